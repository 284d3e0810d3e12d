//! One case in a process of its own: started, listened to, ended.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::interrupt;
use super::protocol::{Failure, Line, Message, VERSION};
use crate::error::{Error, Result};
use crate::measure::memory::Peaks;
use crate::workload::case::{CaseOutcome, CaseSpec};

/// How often the parent looks for an interrupt or a timeout while a child is silent.
const POLL: Duration = Duration::from_millis(50);

/// How much of a child's standard error is kept for the reason of a failure.
const KEPT_STDERR: usize = 64 << 10;

/// How a case ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Ending {
    /// It came through.
    Done(CaseOutcome, Peaks),
    /// It said why it failed.
    Failed(Failure),
    /// It ran longer than it may.
    TimedOut(Duration),
    /// A signal ended it.
    Killed(i32),
    /// It ended without a word of its own: exit status and the end of its standard error.
    Silent(Option<i32>, String),
    /// It said something that is no message.
    Garbled(String),
}

/// Runs `spec` in a child of the program `program`, and tells `hear` what the child says meanwhile.
///
/// # Errors
/// The child cannot be started, or the user interrupts. A case that fails is an [`Ending`].
pub fn run(
    program: &PathBuf,
    spec: &CaseSpec,
    timeout: Option<Duration>,
    hear: &mut dyn FnMut(&Message),
) -> Result<Ending> {
    let mut child = Running::start(program, spec)?;
    let deadline = timeout.map(|timeout| Instant::now() + timeout);
    let mut last = None;
    loop {
        if interrupt::requested() {
            return Err(Error::Interrupted);
        }
        match child.lines.recv_timeout(POLL) {
            Ok(line) => match parse(&line) {
                Some(message @ (Message::Done { .. } | Message::Failed(_))) => last = Some(message),
                Some(message) => hear(&message),
                None => return Ok(Ending::Garbled(line)),
            },
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        if let (Some(deadline), Some(timeout)) = (deadline, timeout) {
            if Instant::now() >= deadline {
                return Ok(Ending::TimedOut(timeout));
            }
        }
    }
    let (status, stderr) = child.wait()?;
    Ok(match (last, status.signal()) {
        (Some(Message::Done { outcome, peaks }), None) if status.success() => Ending::Done(outcome, peaks),
        (Some(Message::Failed(failure)), _) => Ending::Failed(failure),
        (_, Some(signal)) => allocation_failure(&stderr).map_or(Ending::Killed(signal), Ending::Failed),
        _ => Ending::Silent(status.code(), stderr),
    })
}

fn parse(line: &str) -> Option<Message> {
    serde_json::from_str::<Line>(line).ok().filter(|line| line.v == VERSION).map(|line| line.message)
}

/// The standard library's last words when an allocation fails, which ends the process.
fn allocation_failure(stderr: &str) -> Option<Failure> {
    let line = stderr.lines().find(|line| line.starts_with("memory allocation of "))?;
    let bytes = line.split_whitespace().nth(3)?.parse().ok()?;
    Some(Failure { message: line.to_owned(), bad_input: false, out_of_memory_bytes: Some(bytes) })
}

/// A child that is killed, with all it started, when this is dropped before it has ended.
struct Running {
    child: Child,
    ended: bool,
    lines: Receiver<String>,
    stderr: Option<JoinHandle<String>>,
}

impl Running {
    fn start(program: &PathBuf, spec: &CaseSpec) -> Result<Self> {
        let mut command = Command::new(program);
        command.arg("worker").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // A group of its own: the terminal's Ctrl-C reaches the parent alone, which then ends the whole group.
        command.process_group(0);
        #[cfg(target_os = "linux")]
        // SAFETY: between fork and exec only the async-signal-safe `prctl` is called.
        unsafe {
            command.pre_exec(|| {
                // Should the parent be killed without a chance to clean up, the kernel ends the child.
                if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) == 0 {
                    Ok(())
                } else {
                    Err(std::io::Error::last_os_error())
                }
            });
        }
        let mut child = command.spawn().map_err(Error::io("start", program))?;
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (sender, lines) = channel();
        if let Some(stdout) = stdout {
            thread::spawn(move || {
                // A line that is no text is passed on as what can be read of it, and refused by the parser.
                let mut reader = BufReader::new(stdout);
                let mut line = Vec::new();
                while matches!(reader.read_until(b'\n', &mut line), Ok(read) if read > 0) {
                    if sender.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err() {
                        break;
                    }
                    line.clear();
                }
            });
        }
        let stderr = stderr.map(|stderr| thread::spawn(move || keep_end(stderr)));
        let running = Running { child, ended: false, lines, stderr };
        if let Some(mut stdin) = stdin {
            let text = serde_json::to_string(spec).map_err(|error| Error::usage(error.to_string()))?;
            // A child that died at once closes its end; its ending then tells why.
            let _ = writeln!(stdin, "{text}");
        }
        Ok(running)
    }

    fn wait(&mut self) -> Result<(ExitStatus, String)> {
        let status = self.child.wait().map_err(Error::io("wait for", "the child process"))?;
        self.ended = true;
        let stderr = self.stderr.take().and_then(|thread| thread.join().ok()).unwrap_or_default();
        Ok((status, stderr))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.ended {
            // SAFETY: plain system call; the group is the child's own, and the child has not been waited for, so
            // its number cannot have been given to another process.
            unsafe { libc::kill(-(self.child.id() as libc::pid_t), libc::SIGKILL) };
            let _ = self.child.wait();
        }
    }
}

/// Reads to the end and keeps the last bytes.
fn keep_end(mut stream: impl Read) -> String {
    let mut kept = Vec::new();
    let mut chunk = [0u8; 4096];
    while let Ok(read) = stream.read(&mut chunk) {
        if read == 0 {
            break;
        }
        kept.extend_from_slice(&chunk[..read]);
        let excess = kept.len().saturating_sub(KEPT_STDERR);
        kept.drain(..excess);
    }
    String::from_utf8_lossy(&kept).into_owned()
}
