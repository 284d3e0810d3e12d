//! How a child's life ended, and that in words for the result file.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use super::protocol::{Failure, Message};
use crate::measure::memory::Peaks;
use crate::workload::case::CaseOutcome;

/// Characters of a child's standard error that a reason quotes; the row keeps more.
const QUOTED: usize = 600;

/// How a case ended, with the end of what it wrote to its standard error.
#[derive(Clone, Debug, PartialEq)]
pub struct Ended {
    /// How.
    pub ending: Ending,
    /// The end of its standard error.
    pub stderr: String,
}

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
    /// It ended without a result of its own, with this exit status.
    Silent(Option<i32>),
    /// It said something that is no message.
    Garbled(String),
    /// It had nothing more to say, and did not end for so long.
    Lingered(Duration),
}

impl Ending {
    /// Judges a child by its last message, its exit status and its standard error.
    ///
    /// A result counts only when the process that gave it also ended well: one that dies while it cleans up may have
    /// been broken before.
    pub fn judge(last: Option<Message>, status: ExitStatus, stderr: &str) -> Self {
        match (last, status.signal()) {
            (Some(Message::Done { outcome, peaks }), None) if status.success() => Ending::Done(outcome, peaks),
            (Some(Message::Failed(failure)), _) => Ending::Failed(failure),
            (_, Some(signal)) => allocation_failure(stderr).map_or(Ending::Killed(signal), Ending::Failed),
            _ => Ending::Silent(status.code()),
        }
    }
}

impl Ended {
    /// Why the case failed, in one line; empty for one that came through.
    pub fn reason(&self) -> String {
        match &self.ending {
            Ending::Done(..) => String::new(),
            Ending::Failed(failure) => failure.message.clone(),
            Ending::TimedOut(limit) => format!("took longer than {} s (--timeout)", limit.as_secs_f64()),
            Ending::Killed(signal) => {
                let hint = match *signal {
                    libc::SIGKILL => ", as the kernel does when memory runs out",
                    _ => "",
                };
                format!("ended by {}{hint}{}", signal_name(*signal), self.quote())
            }
            Ending::Silent(code) => {
                let code = code.map_or_else(|| "no exit status".to_owned(), |code| format!("exit status {code}"));
                format!("ended without a result, {code}{}", self.quote())
            }
            Ending::Garbled(line) => {
                let start: String = line.chars().take(80).collect();
                format!("said something that is no message: {start}")
            }
            Ending::Lingered(patience) => {
                format!("did not end within {} s of its last message{}", patience.as_secs_f64(), self.quote())
            }
        }
    }

    /// The last lines of the standard error on one line, after a colon.
    fn quote(&self) -> String {
        let mut quoted = String::new();
        let lines = self.stderr.lines().map(str::trim);
        for line in lines.filter(|line| !line.is_empty() && !line.starts_with("note: run with `RUST_BACKTRACE")).rev() {
            let separator = if quoted.is_empty() { "" } else { " | " };
            if quoted.len() + separator.len() + line.len() > QUOTED && !quoted.is_empty() {
                break;
            }
            quoted = format!("{line}{separator}{quoted}");
        }
        let quoted: String = quoted.chars().take(QUOTED).collect();
        if quoted.is_empty() { "; nothing on its standard error".to_owned() } else { format!(": {quoted}") }
    }
}

/// The standard library's last words when an allocation fails, which ends the process by `SIGABRT`.
fn allocation_failure(stderr: &str) -> Option<Failure> {
    let line = stderr.lines().rev().find(|line| line.starts_with("memory allocation of "))?;
    let bytes = line.split_whitespace().nth(3)?.parse().ok()?;
    Some(Failure { message: line.to_owned(), bad_input: false, out_of_memory_bytes: Some(bytes), predicted: false })
}

/// An exit status in words.
pub fn describe(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => format!("ended by {}", signal_name(signal)),
        (None, Some(code)) => format!("exit status {code}"),
        (None, None) => "no exit status".to_owned(),
    }
}

/// The names of the signals that end a process by themselves; others by number.
fn signal_name(signal: i32) -> String {
    let name = match signal {
        libc::SIGHUP => "SIGHUP",
        libc::SIGINT => "SIGINT",
        libc::SIGQUIT => "SIGQUIT",
        libc::SIGILL => "SIGILL",
        libc::SIGABRT => "SIGABRT",
        libc::SIGBUS => "SIGBUS",
        libc::SIGFPE => "SIGFPE",
        libc::SIGKILL => "SIGKILL",
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGPIPE => "SIGPIPE",
        libc::SIGTERM => "SIGTERM",
        libc::SIGXCPU => "SIGXCPU",
        _ => return format!("signal {signal}"),
    };
    format!("signal {signal} ({name})")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(ending: Ending, stderr: &str) -> String {
        Ended { ending, stderr: stderr.to_owned() }.reason()
    }

    #[test]
    fn the_reason_quotes_the_message_of_a_broken_thread_and_not_the_advice_after_it() {
        let stderr = "thread 'main' stopped at src/x.rs:1:2:\nindex out of bounds\n\
                      note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace\n\n";
        let reason = reason(Ending::Silent(Some(101)), stderr);
        let wanted =
            "ended without a result, exit status 101: thread 'main' stopped at src/x.rs:1:2: | index out of bounds";
        assert_eq!(reason, wanted);
    }

    #[test]
    fn a_long_standard_error_is_quoted_from_its_end() {
        let stderr: String = (0..500).map(|line| format!("line {line}\n")).collect();
        let reason = reason(Ending::Killed(libc::SIGSEGV), &stderr);
        assert!(reason.starts_with("ended by signal 11 (SIGSEGV): line "), "{reason}");
        assert!(reason.ends_with("line 498 | line 499"), "{reason}");
        assert!(reason.len() < QUOTED + 60, "{}", reason.len());
        let endless = "x".repeat(100_000);
        assert!(self::reason(Ending::Silent(None), &endless).len() < QUOTED + 60);
    }

    #[test]
    fn a_result_of_a_process_that_then_died_does_not_count() {
        let done = || {
            let outcome = CaseOutcome {
                elapsed_s: 1.0,
                extract_s: 0.5,
                train_eval_s: 0.5,
                metric_name: "auroc".to_owned(),
                metric_value: 0.9,
                gpu: None,
                extra: serde_json::Map::new(),
            };
            let peaks = Peaks {
                rss_mb: None,
                heap_mb: 1.0,
                rss_anonymous_mb: None,
                rss_file_mb: None,
                load_rss_mb: None,
                includes_loading: true,
            };
            Some(Message::Done { outcome, peaks })
        };
        assert!(matches!(Ending::judge(done(), ExitStatus::from_raw(0), ""), Ending::Done(..)));
        assert_eq!(Ending::judge(done(), ExitStatus::from_raw(libc::SIGSEGV), ""), Ending::Killed(libc::SIGSEGV));
        assert_eq!(Ending::judge(done(), ExitStatus::from_raw(3 << 8), ""), Ending::Silent(Some(3)));
    }

    #[test]
    fn a_refused_allocation_is_told_from_other_aborts() {
        let abort = ExitStatus::from_raw(libc::SIGABRT);
        let Ending::Failed(failure) = Ending::judge(None, abort, "memory allocation of 4096 bytes failed\n") else {
            panic!("not told");
        };
        assert_eq!(failure.out_of_memory_bytes, Some(4096));
        assert_eq!(Ending::judge(None, abort, "assertion failed\n"), Ending::Killed(libc::SIGABRT));
    }
}
