//! Runs one case in its own process: starts the worker, receives its messages and makes sure it exits.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use super::exit::{CaseExit, ExitReason};
use super::protocol::{Line, Message, VERSION};
use super::{interrupt, streams};
use crate::case::CaseSpec;
use crate::error::{Error, Result};

/// Interval at which the parent checks for an interrupt or a timeout while the worker sends nothing.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Time for the worker to exit after its last message, and for its pipes to close after that. Five seconds leave time to
/// unmap large weights; a worker that needs longer hangs.
const EXIT_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs `spec` in a worker process of the binary `binary` and passes its messages to `on_message`.
///
/// On Linux the kernel kills the worker when the calling thread exits (`PR_SET_PDEATHSIG`), so call this from a thread that
/// lives as long as the process.
///
/// # Errors
/// The worker cannot be started, or the user interrupts. A case that fails is an [`ExitReason`], not an error.
pub fn run(
    binary: &Path,
    spec: &CaseSpec,
    timeout: Option<Duration>,
    on_message: &mut dyn FnMut(&Message),
) -> Result<CaseExit> {
    let mut worker = Worker::start(binary, spec)?;
    let end = receive(&mut worker, timeout, on_message)?;
    Ok(worker.finish(end))
}

/// How the conversation with a worker ended.
enum ConversationEnd {
    /// The worker exited; its last message and its exit status decide the reason.
    Exited(Option<Message>, ExitStatus),
    /// The worker has to be killed, for this reason.
    MustStop(ExitReason),
}

fn receive(
    worker: &mut Worker,
    timeout: Option<Duration>,
    on_message: &mut dyn FnMut(&Message),
) -> Result<ConversationEnd> {
    let mut last = None;
    // A deadline beyond the range of `Instant` is never reached.
    let mut limit =
        timeout.and_then(|timeout| Some((Instant::now().checked_add(timeout)?, ExitReason::TimedOut(timeout))));
    let mut stdout_open = true;
    loop {
        if interrupt::requested() {
            return Err(Error::Interrupted);
        }
        if stdout_open {
            match worker.lines.recv_timeout(POLL_INTERVAL) {
                Ok(line) => match parse(&line) {
                    Some(message @ (Message::Done { .. } | Message::Failed(_))) => {
                        limit = Some((Instant::now() + EXIT_TIMEOUT, did_not_exit(Some(&message))));
                        last = Some(message);
                    }
                    Some(message) => on_message(&message),
                    None => return Ok(ConversationEnd::MustStop(ExitReason::InvalidOutput(line))),
                },
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    stdout_open = false;
                    limit = Some((Instant::now() + EXIT_TIMEOUT, did_not_exit(last.as_ref())));
                }
            }
        } else {
            if let Some(status) = worker.process.try_wait().map_err(Error::io("wait for", "the worker process"))? {
                worker.exited = true;
                return Ok(ConversationEnd::Exited(last, status));
            }
            thread::sleep(Duration::from_millis(1));
        }
        if let Some((_, reason)) = limit.take_if(|(deadline, _)| Instant::now() >= *deadline) {
            return Ok(ConversationEnd::MustStop(reason));
        }
    }
}

/// The reason for killing a worker that does not exit: a reported failure is kept, a reported result is not trusted.
fn did_not_exit(last: Option<&Message>) -> ExitReason {
    match last {
        Some(Message::Failed(failure)) => ExitReason::Failed(failure.clone()),
        _ => ExitReason::DidNotExit(EXIT_TIMEOUT),
    }
}

fn parse(line: &str) -> Option<Message> {
    serde_json::from_str::<Line>(line).ok().filter(|line| line.v == VERSION).map(|line| line.message)
}

/// A worker process. Dropping this kills it, with all processes it started, unless it has exited.
struct Worker {
    process: Child,
    exited: bool,
    lines: Receiver<String>,
    stderr: Receiver<String>,
}

impl Worker {
    fn start(binary: &Path, spec: &CaseSpec) -> Result<Self> {
        let mut command = Command::new(binary);
        command.arg("worker").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        tie_to_parent(&mut command);
        let mut process = command.spawn().map_err(Error::io("start", binary))?;
        let streams = (process.stdin.take(), process.stdout.take(), process.stderr.take());
        let (Some(mut stdin), Some(stdout), Some(stderr)) = streams else {
            return Err(Error::internal("the worker process has no pipes"));
        };
        let worker = Worker { process, exited: false, lines: streams::lines(stdout), stderr: streams::tail(stderr) };
        let text = serde_json::to_string(spec)
            .map_err(|error| Error::internal(format!("a case cannot be written as JSON: {error}")))?;
        // The write fails if the worker died at once; its exit then has the reason.
        let _ = writeln!(stdin, "{text}");
        Ok(worker)
    }

    /// Kills the process unless it has exited, and collects its standard error.
    fn finish(mut self, end: ConversationEnd) -> CaseExit {
        self.kill();
        // A process that the worker started may keep the pipe open; the timeout bounds the wait for it.
        let stderr = self.stderr.recv_timeout(EXIT_TIMEOUT).unwrap_or_default();
        let reason = match end {
            ConversationEnd::Exited(last, status) => ExitReason::judge(last, status, &stderr),
            ConversationEnd::MustStop(reason) => reason,
        };
        CaseExit { reason, stderr }
    }

    fn kill(&mut self) {
        if !self.exited {
            // SAFETY: plain system call; the group is the child's own, and the child has not been waited for, so
            // its number cannot have been given to another process.
            unsafe { libc::kill(-(self.process.id() as libc::pid_t), libc::SIGKILL) };
            self.exited = self.process.wait().is_ok();
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Puts the child into its own process group, so that the terminal's Ctrl-C reaches only the parent, which then kills the
/// whole group. On Linux the kernel also kills the child if the parent dies first.
pub(super) fn tie_to_parent(command: &mut Command) {
    command.process_group(0);
    #[cfg(target_os = "linux")]
    {
        let parent = std::process::id() as libc::pid_t;
        let tie = move || {
            // SAFETY: plain system calls that take no pointers.
            let (tied, present) =
                unsafe { (libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) == 0, libc::getppid() == parent) };
            // The kernel does not signal the death of a parent that died before the call above.
            if tied && present { Ok(()) } else { Err(std::io::Error::last_os_error()) }
        };
        // SAFETY: between fork and exec only the async-signal-safe `prctl` and `getppid` are called, and nothing is
        // allocated.
        unsafe { command.pre_exec(tie) };
    }
}
