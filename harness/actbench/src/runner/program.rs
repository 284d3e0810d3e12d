//! Runs any executable to completion and returns its output and exit status; no process is left behind.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::{Duration, Instant};

use super::{child, exit, interrupt, streams};
use crate::error::{Error, Result};

/// Interval at which the parent checks for an interrupt, a timeout or the exit.
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// Time for the pipes to close after the process has exited.
const PIPE_TIMEOUT: Duration = Duration::from_secs(5);

/// The output and the exit status of a process.
#[derive(Clone, Debug)]
pub struct ProcessOutput {
    /// The exit status; none if the process exceeded the time limit and was killed.
    pub status: Option<ExitStatus>,
    /// The whole standard output, up to 64 MiB.
    pub stdout: String,
    /// The end of the standard error.
    pub stderr: String,
}

impl ProcessOutput {
    /// Why the process failed, in one line; none if it succeeded.
    pub fn failure(&self) -> Option<String> {
        let status = match self.status {
            None => return Some("exceeded the time limit (--timeout)".to_owned()),
            Some(status) if status.success() => return None,
            Some(status) => exit::describe(status),
        };
        let last = self.stderr.lines().rev().map(str::trim).find(|line| !line.is_empty());
        Some(last.map_or_else(|| status.clone(), |last| format!("{status}: {last}")))
    }
}

/// Runs `binary` with `arguments` and the additional environment `variables`, in `directory` if given.
///
/// The process has its own process group and is killed when this process exits; Ctrl-C kills the whole group.
///
/// # Errors
/// The binary cannot be started, or the user interrupts.
pub fn run(
    binary: &Path,
    arguments: &[OsString],
    variables: &[(&str, &OsStr)],
    directory: Option<&Path>,
    timeout: Option<Duration>,
) -> Result<ProcessOutput> {
    let mut command = Command::new(binary);
    command.args(arguments).envs(variables.iter().copied());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    if let Some(directory) = directory {
        command.current_dir(directory);
    }
    child::tie_to_parent(&mut command);
    let mut process = command.spawn().map_err(Error::io("start", binary))?;
    let (Some(stdout), Some(stderr)) = (process.stdout.take(), process.stderr.take()) else {
        return Err(Error::internal("the child process has no pipes"));
    };
    let mut group =
        ProcessGroup { process, exited: false, stdout: streams::whole(stdout), stderr: streams::tail(stderr) };
    // A deadline beyond the range of `Instant` is never reached.
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let status = loop {
        if interrupt::requested() {
            return Err(Error::Interrupted);
        }
        if let Some(status) = group.process.try_wait().map_err(Error::io("wait for", binary))? {
            group.exited = true;
            break Some(status);
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            break None;
        }
        thread::sleep(POLL_INTERVAL);
    };
    group.kill();
    let text = |stream: &Receiver<String>| stream.recv_timeout(PIPE_TIMEOUT).unwrap_or_default();
    Ok(ProcessOutput { status, stdout: text(&group.stdout), stderr: text(&group.stderr) })
}

/// A process and all processes it started. Dropping this kills them unless the process has exited.
struct ProcessGroup {
    process: Child,
    exited: bool,
    stdout: Receiver<String>,
    stderr: Receiver<String>,
}

impl ProcessGroup {
    fn kill(&mut self) {
        if !self.exited {
            // SAFETY: plain system call; the group is the child's own, and the child has not been waited for, so
            // its number cannot have been given to another process.
            unsafe { libc::kill(-(self.process.id() as libc::pid_t), libc::SIGKILL) };
            self.exited = self.process.wait().is_ok();
        }
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        self.kill();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, timeout: Option<Duration>) -> ProcessOutput {
        run(Path::new("/bin/sh"), &["-c".into(), script.into()], &[("WORD", OsStr::new("passed"))], None, timeout)
            .unwrap()
    }

    #[test]
    fn output_status_and_stderr_are_kept() {
        let success = shell("echo $WORD; echo aside >&2", None);
        assert_eq!(
            (success.stdout.as_str(), success.stderr.as_str(), success.failure()),
            ("passed\n", "aside\n", None)
        );
        assert_eq!(shell("echo last >&2; exit 3", None).failure().unwrap(), "exit status 3: last");
        let killed = shell("kill -9 $$", None).failure().unwrap();
        assert!(killed.contains("SIGKILL"), "{killed}");
    }

    #[test]
    fn timeout_kills_the_process_and_its_children() {
        let directory = tempfile::tempdir().unwrap();
        let mark = directory.path().join("mark");
        let script = format!("(sleep 2; touch {}) & sleep 60", mark.display());
        let stopped = shell(&script, Some(Duration::from_millis(100)));
        assert!(stopped.failure().unwrap().contains("--timeout"));
        thread::sleep(Duration::from_millis(2300));
        assert!(!mark.exists(), "a grandchild survived");
    }

    #[test]
    fn missing_binary_is_named() {
        let error = run(Path::new("/no/such/binary"), &[], &[], None, None).unwrap_err();
        assert!(error.to_string().contains("/no/such/binary"), "{error}");
    }
}
