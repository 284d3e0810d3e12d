//! Runs one case in its own process: starts the worker, receives its messages and makes sure it exits.

use std::io::Write;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use super::exit::{CaseExit, ExitReason};
use super::interrupt;
use super::protocol::{Line, Message, VERSION};
use crate::case::CaseSpec;
use crate::error::{Error, Result, from_pairgate};
use pairgate::process::{ChildGroup, streams};

/// Interval at which the parent checks for an interrupt or a timeout while the worker sends nothing.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Time for the worker to exit after its last message, and for its pipes to close after that. Exiting takes
/// milliseconds; a worker that needs seconds hangs.
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
            if let Some(exit) = worker.group.try_wait().map_err(from_pairgate)? {
                return Ok(ConversationEnd::Exited(last, exit.status));
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
    group: ChildGroup,
    lines: Receiver<String>,
    stderr: Receiver<String>,
}

impl Worker {
    fn start(binary: &Path, spec: &CaseSpec) -> Result<Self> {
        let mut command = Command::new(binary);
        command.arg("worker").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut group = ChildGroup::spawn(&mut command, binary).map_err(from_pairgate)?;
        let mut stdin = group.stdin().map_err(from_pairgate)?;
        let lines = streams::lines(group.stdout().map_err(from_pairgate)?).map_err(from_pairgate)?;
        let stderr = streams::tail(group.stderr().map_err(from_pairgate)?).map_err(from_pairgate)?;
        let worker = Worker { group, lines, stderr };
        let text = serde_json::to_string(spec)
            .map_err(|error| Error::internal(format!("a case cannot be written as JSON: {error}")))?;
        // The write fails if the worker died at once; its exit then has the reason.
        let _ = writeln!(stdin, "{text}");
        Ok(worker)
    }

    /// Kills the process unless it has exited, and collects its standard error.
    fn finish(mut self, end: ConversationEnd) -> CaseExit {
        self.group.kill();
        // A process that the worker started may keep the pipe open; the timeout bounds the wait for it.
        let stderr = self.stderr.recv_timeout(EXIT_TIMEOUT).unwrap_or_default();
        let reason = match end {
            ConversationEnd::Exited(last, status) => ExitReason::judge(last, status, &stderr),
            ConversationEnd::MustStop(reason) => reason,
        };
        CaseExit { reason, stderr }
    }
}
