//! What a child says to its parent: one JSON message a line on its standard output, and nothing else.

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::measure::memory::Peaks;
use crate::workload::case::{CaseOutcome, Phase};

/// Raised whenever a message changes its meaning: parent and child are one program, so they always agree.
pub const VERSION: u32 = 1;

/// A line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// [`VERSION`].
    pub v: u32,
    /// The message.
    #[serde(flatten)]
    pub message: Message,
}

/// A message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Message {
    /// Another phase begins.
    Phase {
        /// Which.
        phase: Phase,
    },
    /// So much of the phase is done.
    Progress {
        /// Units done.
        done: u64,
        /// Units in all.
        total: u64,
        /// What is counted.
        unit: String,
    },
    /// The case is done; the last message.
    Done {
        /// What it came to.
        outcome: CaseOutcome,
        /// What it took.
        peaks: Peaks,
    },
    /// The case failed; the last message.
    Failed(Failure),
}

/// Why a case failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What happened.
    pub message: String,
    /// Whether the settings or the input are at fault, so that every other case would fail alike.
    pub bad_input: bool,
    /// Bytes that were asked for and not there.
    pub out_of_memory_bytes: Option<u64>,
    /// Whether nothing was tried, because it was predicted not to fit.
    #[serde(default)]
    pub predicted: bool,
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        let out_of_memory_bytes = match error {
            Error::OutOfMemory { bytes, .. } | Error::OverMemoryLimit { bytes, .. } => Some(*bytes),
            Error::Kernel(actbench_kernels::KernelError::OutOfMemory { bytes, .. }) => Some(*bytes as u64),
            _ => None,
        };
        let predicted = matches!(error, Error::OverMemoryLimit { .. });
        Failure { message: error.to_string(), bad_input: error.exit_code() == 2, out_of_memory_bytes, predicted }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_the_pipe() {
        for message in [
            Message::Phase { phase: Phase::Extracting },
            Message::Progress { done: 3, total: 9, unit: "samples".to_owned() },
            Message::Failed(Failure::from(&Error::OutOfMemory { what: "activations".to_owned(), bytes: 7 })),
        ] {
            let line = Line { v: VERSION, message };
            let text = serde_json::to_string(&line).unwrap();
            assert!(!text.contains('\n'));
            assert_eq!(serde_json::from_str::<Line>(&text).unwrap(), line);
        }
    }
}
