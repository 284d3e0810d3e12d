//! One case in a process of its own: started, listened to, ended.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use super::ending::{Ended, Ending};
use super::protocol::{Line, Message, VERSION};
use super::{interrupt, streams};
use crate::error::{Error, Result};
use crate::workload::case::CaseSpec;

/// How often the parent looks for an interrupt or a timeout while a child is silent.
const POLL: Duration = Duration::from_millis(50);

/// How long a child may take to end once it has said its last word.
const PATIENCE: Duration = Duration::from_secs(5);

/// Runs `spec` in a child of the program `program`, and tells `hear` what the child says meanwhile.
///
/// On Linux the child dies with the thread that calls this, so that thread should last as long as the program.
///
/// # Errors
/// The child cannot be started, or the user interrupts. A case that fails is an [`Ending`].
pub fn run(
    program: &Path,
    spec: &CaseSpec,
    timeout: Option<Duration>,
    hear: &mut dyn FnMut(&Message),
) -> Result<Ended> {
    let mut child = Running::start(program, spec)?;
    let ending = listen(&mut child, timeout, hear)?;
    Ok(child.end(ending))
}

/// What a child came to, as far as its messages and the clock tell.
enum Heard {
    /// It is judged by what it said last and how it exits.
    Exited(Option<Message>, ExitStatus),
    /// It has to be stopped.
    Stopped(Ending),
}

fn listen(child: &mut Running, timeout: Option<Duration>, hear: &mut dyn FnMut(&Message)) -> Result<Heard> {
    let mut last = None;
    // A time too far off to be told is no limit.
    let mut limit = timeout.and_then(|timeout| Some((Instant::now().checked_add(timeout)?, Ending::TimedOut(timeout))));
    let mut talking = true;
    loop {
        if interrupt::requested() {
            return Err(Error::Interrupted);
        }
        if talking {
            match child.lines.recv_timeout(POLL) {
                Ok(line) => match parse(&line) {
                    Some(message @ (Message::Done { .. } | Message::Failed(_))) => {
                        limit = Some((Instant::now() + PATIENCE, lingered(Some(&message))));
                        last = Some(message);
                    }
                    Some(message) => hear(&message),
                    None => return Ok(Heard::Stopped(Ending::Garbled(line))),
                },
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    talking = false;
                    limit = Some((Instant::now() + PATIENCE, lingered(last.as_ref())));
                }
            }
        } else {
            if let Some(status) = child.process.try_wait().map_err(Error::io("wait for", "the child process"))? {
                child.ended = true;
                return Ok(Heard::Exited(last, status));
            }
            thread::sleep(Duration::from_millis(1));
        }
        if let Some((_, ending)) = limit.take_if(|(deadline, _)| Instant::now() >= *deadline) {
            return Ok(Heard::Stopped(ending));
        }
    }
}

/// What a child that does not end comes to: its failure is told all the same, its result is not to be trusted.
fn lingered(last: Option<&Message>) -> Ending {
    match last {
        Some(Message::Failed(failure)) => Ending::Failed(failure.clone()),
        _ => Ending::Lingered(PATIENCE),
    }
}

fn parse(line: &str) -> Option<Message> {
    serde_json::from_str::<Line>(line).ok().filter(|line| line.v == VERSION).map(|line| line.message)
}

/// A child that is killed, with all it started, when this is dropped before it has ended.
struct Running {
    process: Child,
    ended: bool,
    lines: Receiver<String>,
    stderr: Receiver<String>,
}

impl Running {
    fn start(program: &Path, spec: &CaseSpec) -> Result<Self> {
        let mut command = Command::new(program);
        command.arg("worker").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        tie_to_parent(&mut command);
        let mut process = command.spawn().map_err(Error::io("start", program))?;
        let streams = (process.stdin.take(), process.stdout.take(), process.stderr.take());
        let (Some(mut stdin), Some(stdout), Some(stderr)) = streams else {
            return Err(Error::usage("the child process has no pipes"));
        };
        let running = Running { process, ended: false, lines: streams::lines(stdout), stderr: streams::tail(stderr) };
        let text = serde_json::to_string(spec).map_err(|error| Error::usage(error.to_string()))?;
        // A child that died at once closes its end; its ending then tells why.
        let _ = writeln!(stdin, "{text}");
        Ok(running)
    }

    /// Ends the process if it has not ended, and gathers its last words.
    fn end(mut self, heard: Heard) -> Ended {
        self.kill();
        // Whoever else may hold the pipe's other end is not waited for.
        let stderr = self.stderr.recv_timeout(PATIENCE).unwrap_or_default();
        let ending = match heard {
            Heard::Exited(last, status) => Ending::judge(last, status, &stderr),
            Heard::Stopped(ending) => ending,
        };
        Ended { ending, stderr }
    }

    fn kill(&mut self) {
        if !self.ended {
            // SAFETY: plain system call; the group is the child's own, and the child has not been waited for, so
            // its number cannot have been given to another process.
            unsafe { libc::kill(-(self.process.id() as libc::pid_t), libc::SIGKILL) };
            self.ended = self.process.wait().is_ok();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Gives the child a group of its own, so that the terminal's Ctrl-C reaches the parent alone, which then ends the
/// whole group; and on Linux has the kernel end the child should the parent die without a chance to.
pub(super) fn tie_to_parent(command: &mut Command) {
    command.process_group(0);
    #[cfg(target_os = "linux")]
    {
        let parent = std::process::id() as libc::pid_t;
        let tie = move || {
            // SAFETY: plain system calls that take no pointers.
            let (tied, present) =
                unsafe { (libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) == 0, libc::getppid() == parent) };
            // A parent that died before the call above would never be noticed.
            if tied && present { Ok(()) } else { Err(std::io::Error::last_os_error()) }
        };
        // SAFETY: between fork and exec only the async-signal-safe `prctl` and `getppid` are called, and nothing is
        // allocated.
        unsafe { command.pre_exec(tie) };
    }
}
