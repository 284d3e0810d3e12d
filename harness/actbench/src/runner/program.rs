//! Any program run to its end: its output, its exit status, and no process left behind whatever happens.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::{Duration, Instant};

use super::{child, ending, interrupt, streams};
use crate::error::{Error, Result};

/// How often the parent looks for an interrupt, a timeout or the end.
const POLL: Duration = Duration::from_millis(2);

/// How long the pipes of a program that has ended may stay open.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a program came to.
#[derive(Clone, Debug)]
pub struct Finished {
    /// How it ended; none for one that was stopped because it ran too long.
    pub status: Option<ExitStatus>,
    /// The whole standard output, up to 64 MiB.
    pub stdout: String,
    /// The end of the standard error.
    pub stderr: String,
}

impl Finished {
    /// Why it did not come through, in one line; none where it did.
    pub fn failure(&self) -> Option<String> {
        let status = match self.status {
            None => return Some("ran longer than it may (--timeout)".to_owned()),
            Some(status) if status.success() => return None,
            Some(status) => ending::describe(status),
        };
        let last = self.stderr.lines().rev().map(str::trim).find(|line| !line.is_empty());
        Some(last.map_or_else(|| status.clone(), |last| format!("{status}: {last}")))
    }
}

/// Runs `program` with `arguments` and the environment `variables` beside its own, in `folder` if one is named.
///
/// It runs in a group of its own and dies with this program; on Ctrl-C the whole group is ended.
///
/// # Errors
/// It cannot be started, or the user interrupts.
pub fn run(
    program: &Path,
    arguments: &[OsString],
    variables: &[(&str, &OsStr)],
    folder: Option<&Path>,
    timeout: Option<Duration>,
) -> Result<Finished> {
    let mut command = Command::new(program);
    command.args(arguments).envs(variables.iter().copied());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    if let Some(folder) = folder {
        command.current_dir(folder);
    }
    child::tie_to_parent(&mut command);
    let mut process = command.spawn().map_err(Error::io("start", program))?;
    let (Some(stdout), Some(stderr)) = (process.stdout.take(), process.stderr.take()) else {
        return Err(Error::usage("the child process has no pipes"));
    };
    let mut running = Group { process, ended: false, stdout: streams::whole(stdout), stderr: streams::tail(stderr) };
    // A time too far off to be told is no limit.
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let status = loop {
        if interrupt::requested() {
            return Err(Error::Interrupted);
        }
        if let Some(status) = running.process.try_wait().map_err(Error::io("wait for", program))? {
            running.ended = true;
            break Some(status);
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            break None;
        }
        thread::sleep(POLL);
    };
    running.kill();
    let text = |stream: &Receiver<String>| stream.recv_timeout(PATIENCE).unwrap_or_default();
    Ok(Finished { status, stdout: text(&running.stdout), stderr: text(&running.stderr) })
}

/// A program that is killed, with all it started, when this is dropped before it has ended.
struct Group {
    process: Child,
    ended: bool,
    stdout: Receiver<String>,
    stderr: Receiver<String>,
}

impl Group {
    fn kill(&mut self) {
        if !self.ended {
            // SAFETY: plain system call; the group is the child's own, and the child has not been waited for, so
            // its number cannot have been given to another process.
            unsafe { libc::kill(-(self.process.id() as libc::pid_t), libc::SIGKILL) };
            self.ended = self.process.wait().is_ok();
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, timeout: Option<Duration>) -> Finished {
        run(Path::new("/bin/sh"), &["-c".into(), script.into()], &[("WORD", OsStr::new("heard"))], None, timeout)
            .unwrap()
    }

    #[test]
    fn output_status_and_last_words_are_kept() {
        let well = shell("echo $WORD; echo aside >&2", None);
        assert_eq!((well.stdout.as_str(), well.stderr.as_str(), well.failure()), ("heard\n", "aside\n", None));
        assert_eq!(shell("echo last >&2; exit 3", None).failure().unwrap(), "exit status 3: last");
        let killed = shell("kill -9 $$", None).failure().unwrap();
        assert!(killed.contains("SIGKILL"), "{killed}");
    }

    #[test]
    fn a_program_that_runs_too_long_is_ended_with_all_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let mark = folder.path().join("mark");
        let script = format!("(sleep 2; touch {}) & sleep 60", mark.display());
        let stopped = shell(&script, Some(Duration::from_millis(100)));
        assert!(stopped.failure().unwrap().contains("--timeout"));
        thread::sleep(Duration::from_millis(2300));
        assert!(!mark.exists(), "a grandchild lived on");
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let error = run(Path::new("/no/such/program"), &[], &[], None, None).unwrap_err();
        assert!(error.to_string().contains("/no/such/program"), "{error}");
    }
}
