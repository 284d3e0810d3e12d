//! Any program run until it ends: its output, its exit status, and no process left behind whatever happens.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use super::child_group::{ChildGroup, ResourceUsage};
use super::{exit_status, interrupt, streams, threads};
use crate::error::{Error, Result};

/// How often the parent checks for an interrupt or a timeout while the program runs.
const POLL: Duration = Duration::from_millis(10);

/// How long the pipes of a program that has ended may stay open.
const PIPE_TIMEOUT: Duration = Duration::from_secs(5);

/// How a program ended and what it wrote.
#[derive(Clone, Debug)]
pub struct ProcessOutput {
    /// How it ended; none for one that was killed because it ran too long.
    pub status: Option<ExitStatus>,
    /// Standard output, up to 64 MiB.
    pub stdout: String,
    /// The end of standard error.
    pub stderr: String,
    /// From before it was started until it had ended.
    pub elapsed: Duration,
    /// What it used; none for one that was killed.
    pub usage: Option<ResourceUsage>,
}

impl ProcessOutput {
    /// Why it failed, in one line; none where it succeeded.
    pub fn failure(&self) -> Option<String> {
        let status = match self.status {
            None => return Some("exceeded the time limit (--timeout)".to_owned()),
            Some(status) if status.success() => return None,
            Some(status) => exit_status::describe_exit(status),
        };
        let last = self.stderr.lines().rev().map(str::trim).find(|line| !line.is_empty());
        Some(last.map_or_else(|| status.clone(), |last| format!("{status}: {last}")))
    }
}

/// Runs `program` with `arguments` and the environment `variables` added to the parent's, in `directory` if one is named.
///
/// It runs in a process group of its own, and the group dies with this process; on Ctrl-C the whole group is killed.
///
/// # Errors
/// It cannot be started, or the user interrupts.
pub fn run_program(
    program: &Path,
    arguments: &[OsString],
    variables: &[(&str, &OsStr)],
    directory: Option<&Path>,
    timeout: Option<Duration>,
) -> Result<ProcessOutput> {
    let mut command = Command::new(program);
    command.args(arguments).envs(variables.iter().copied());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    if let Some(directory) = directory {
        command.current_dir(directory);
    }
    let start = Instant::now();
    let mut child = ChildGroup::spawn_guarded(&mut command, program)?;
    let (stdout, stderr) = (streams::whole(child.stdout()?)?, streams::tail(child.stderr()?)?);
    // A time too far off to be represented is no limit.
    let deadline = timeout.and_then(|timeout| start.checked_add(timeout));
    let exit = wait(&mut child, deadline)?;
    child.kill();
    let received = |stream: &Receiver<String>| stream.recv_timeout(PIPE_TIMEOUT).unwrap_or_default();
    let (end, exit) = exit.map_or_else(|| (Instant::now(), None), |(end, exit)| (end, Some(exit)));
    Ok(ProcessOutput {
        status: exit.map(|exit| exit.status),
        usage: exit.map(|exit| exit.usage),
        stdout: received(&stdout),
        stderr: received(&stderr),
        elapsed: end.saturating_duration_since(start),
    })
}

/// Waits for the child: when it ended and how, or none after `deadline`.
///
/// A thread blocks until the child ends and records the time, because a parent that polls would add up to a polling
/// interval to the times that are measured.
fn wait(child: &mut ChildGroup, deadline: Option<Instant>) -> Result<Option<(Instant, super::child_group::ChildExit)>> {
    let (sender, ended) = channel();
    let id = child.id();
    threads::start(move || {
        // SAFETY: `siginfo_t` is a plain C structure, for which all zeros is a valid value.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        // SAFETY: the pointer is to a live variable. The child is not reaped (WNOWAIT); a number that was reaped meanwhile
        // is an error that ends the loop.
        while unsafe { libc::waitid(libc::P_PID, id as libc::id_t, &mut info, libc::WEXITED | libc::WNOWAIT) } != 0 {
            if std::io::Error::last_os_error().kind() != std::io::ErrorKind::Interrupted {
                break;
            }
        }
        let _ = sender.send(Instant::now());
    })?;
    loop {
        if interrupt::requested() {
            return Err(Error::Interrupted);
        }
        match ended.recv_timeout(POLL) {
            Ok(end) => {
                let exit = child.try_wait()?;
                return exit.map(|exit| Some((end, exit))).ok_or_else(|| Error::internal("a child ended twice"));
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Error::internal("the thread that waits for a child died"));
            }
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Ok(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn shell(script: &str, timeout: Option<Duration>) -> ProcessOutput {
        let variables = [("WORD", OsStr::new("heard"))];
        run_program(Path::new("/bin/sh"), &["-c".into(), script.into()], &variables, None, timeout).unwrap()
    }

    #[test]
    fn output_status_and_last_error_line_are_kept() {
        let success = shell("echo $WORD; echo aside >&2", None);
        assert_eq!((success.stdout.as_str(), success.stderr.as_str()), ("heard\n", "aside\n"));
        assert_eq!(success.failure(), None);
        assert_eq!(shell("echo last >&2; exit 3", None).failure().unwrap(), "exit status 3: last");
        let killed = shell("kill -9 $$", None).failure().unwrap();
        assert!(killed.contains("SIGKILL"), "{killed}");
    }

    #[test]
    fn time_cpu_and_memory_are_measured() {
        let slept = shell("sleep 0.05", None);
        assert!(slept.elapsed >= Duration::from_millis(50), "{slept:?}");
        let usage = slept.usage.unwrap();
        assert!(usage.cpu_s >= 0.0 && usage.peak_rss_mib > 0.0, "{usage:?}");
    }

    #[test]
    fn timeout_kills_the_program_and_its_descendants() {
        let directory = tempfile::tempdir().unwrap();
        let mark = directory.path().join("mark");
        let script = format!("(sleep 2; touch {}) & sleep 60", mark.display());
        let stopped = shell(&script, Some(Duration::from_millis(100)));
        assert!(stopped.failure().unwrap().contains("--timeout"));
        thread::sleep(Duration::from_millis(2300));
        assert!(!mark.exists(), "a grandchild lived on");
    }

    #[test]
    fn descendants_end_with_their_program() {
        let directory = tempfile::tempdir().unwrap();
        let mark = directory.path().join("mark");
        let script = format!("(sleep 1; touch {}) >/dev/null 2>&1 & exit 0", mark.display());
        assert_eq!(shell(&script, None).failure(), None);
        thread::sleep(Duration::from_millis(1300));
        assert!(!mark.exists(), "a grandchild lived on");
    }

    #[test]
    fn absent_program_is_named_in_the_error() {
        let error = run_program(Path::new("/no/such/program"), &[], &[], None, None).unwrap_err();
        assert!(error.to_string().contains("/no/such/program"), "{error}");
    }
}
