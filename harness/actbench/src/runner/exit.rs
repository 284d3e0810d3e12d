//! How a worker process exited, and the message for the result file.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use super::protocol::{Failure, Message};
use crate::case::CaseOutcome;
use crate::measure::memory::Peaks;
use pairgate::process::exit_status::signal_name;

/// Characters of the standard error that a message quotes; the row keeps more.
const QUOTED: usize = 600;

/// The exit of a case: its reason, and the end of its standard error.
#[derive(Clone, Debug, PartialEq)]
pub struct CaseExit {
    /// Why the process exited.
    pub reason: ExitReason,
    /// The end of its standard error.
    pub stderr: String,
}

/// Why the process of a case exited.
#[derive(Clone, Debug, PartialEq)]
pub enum ExitReason {
    /// The case completed.
    Completed(Box<CaseOutcome>, Peaks),
    /// The worker reported a failure.
    Failed(Failure),
    /// It exceeded this time limit and was killed.
    TimedOut(Duration),
    /// This signal terminated it.
    Killed(i32),
    /// It exited without a result, with this exit status.
    NoResult(Option<i32>),
    /// It wrote this invalid protocol output.
    InvalidOutput(String),
    /// It did not exit within this time after its last message.
    DidNotExit(Duration),
}

impl ExitReason {
    /// Derives the reason from the last message, the exit status and the standard error.
    ///
    /// A result counts only if the process then exited with success: memory that was corrupted before may show only
    /// during the cleanup.
    pub fn judge(last: Option<Message>, status: ExitStatus, stderr: &str) -> Self {
        match (last, status.signal()) {
            (Some(Message::Done { outcome, peaks }), None) if status.success() => ExitReason::Completed(outcome, peaks),
            (Some(Message::Failed(failure)), _) => ExitReason::Failed(failure),
            (_, Some(signal)) => allocation_failure(stderr).map_or(ExitReason::Killed(signal), ExitReason::Failed),
            _ => ExitReason::NoResult(status.code()),
        }
    }
}

impl CaseExit {
    /// Why the case failed, in one line; empty for a completed case.
    pub fn message(&self) -> String {
        match &self.reason {
            ExitReason::Completed(..) => String::new(),
            ExitReason::Failed(failure) => failure.message.clone(),
            ExitReason::TimedOut(limit) => format!("exceeded the time limit of {} s (--timeout)", limit.as_secs_f64()),
            ExitReason::Killed(signal) => {
                let hint = if *signal == libc::SIGKILL { "; the kernel does this when memory runs out" } else { "" };
                format!("terminated by {}{hint}{}", signal_name(*signal), self.quote())
            }
            ExitReason::NoResult(code) => {
                let code = code.map_or_else(|| "no exit status".to_owned(), |code| format!("exit status {code}"));
                format!("exited without a result, {code}{}", self.quote())
            }
            ExitReason::InvalidOutput(line) => {
                let start: String = line.chars().take(80).collect();
                format!("wrote invalid protocol output: {start}")
            }
            ExitReason::DidNotExit(timeout) => {
                format!("did not exit within {} s after its last message{}", timeout.as_secs_f64(), self.quote())
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
        if quoted.is_empty() { "; its standard error is empty".to_owned() } else { format!(": {quoted}") }
    }
}

/// The standard library's message for a failed allocation, after which it aborts the process (`SIGABRT`).
fn allocation_failure(stderr: &str) -> Option<Failure> {
    let line = stderr.lines().rev().find(|line| line.starts_with("memory allocation of "))?;
    let bytes = line.split_whitespace().nth(3)?.parse().ok()?;
    Some(Failure { message: line.to_owned(), bad_input: false, out_of_memory_bytes: Some(bytes), predicted: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(reason: ExitReason, stderr: &str) -> String {
        CaseExit { reason, stderr: stderr.to_owned() }.message()
    }

    #[test]
    fn message_quotes_panic_without_backtrace_note() {
        let stderr = "thread 'main' stopped at src/x.rs:1:2:\nindex out of bounds\n\
                      note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace\n\n";
        let message = message(ExitReason::NoResult(Some(101)), stderr);
        let wanted =
            "exited without a result, exit status 101: thread 'main' stopped at src/x.rs:1:2: | index out of bounds";
        assert_eq!(message, wanted);
    }

    #[test]
    fn long_stderr_is_quoted_from_its_end() {
        let stderr: String = (0..500).map(|line| format!("line {line}\n")).collect();
        let message = message(ExitReason::Killed(libc::SIGSEGV), &stderr);
        assert!(message.starts_with("terminated by signal 11 (SIGSEGV): line "), "{message}");
        assert!(message.ends_with("line 498 | line 499"), "{message}");
        assert!(message.len() < QUOTED + 60, "{}", message.len());
        let endless = "x".repeat(100_000);
        assert!(self::message(ExitReason::NoResult(None), &endless).len() < QUOTED + 60);
    }

    #[test]
    fn result_before_a_failed_exit_is_discarded() {
        let done = || {
            let outcome = Box::new(CaseOutcome {
                elapsed_s: 1.0,
                extract_s: 0.5,
                train_eval_s: 0.5,
                metric_name: "auroc".to_owned(),
                metric_value: 0.9,
                gpu: None,
                metrics: Default::default(),
            });
            let peaks = Peaks {
                rss_mb: None,
                anonymous_mb: None,
                heap_mb: 1.0,
                rss_anonymous_mb: None,
                rss_file_mb: None,
                load_rss_mb: None,
                includes_loading: true,
            };
            Some(Message::Done { outcome, peaks })
        };
        assert!(matches!(ExitReason::judge(done(), ExitStatus::from_raw(0), ""), ExitReason::Completed(..)));
        assert_eq!(
            ExitReason::judge(done(), ExitStatus::from_raw(libc::SIGSEGV), ""),
            ExitReason::Killed(libc::SIGSEGV)
        );
        assert_eq!(ExitReason::judge(done(), ExitStatus::from_raw(3 << 8), ""), ExitReason::NoResult(Some(3)));
    }

    #[test]
    fn failed_allocation_is_distinguished_from_other_aborts() {
        let abort = ExitStatus::from_raw(libc::SIGABRT);
        let ExitReason::Failed(failure) = ExitReason::judge(None, abort, "memory allocation of 4096 bytes failed\n")
        else {
            panic!("an unrecognized allocation failure");
        };
        assert_eq!(failure.out_of_memory_bytes, Some(4096));
        assert_eq!(ExitReason::judge(None, abort, "assertion failed\n"), ExitReason::Killed(libc::SIGABRT));
    }
}
