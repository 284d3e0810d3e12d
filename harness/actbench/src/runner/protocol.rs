//! The protocol between worker and parent: one JSON message per line on the standard output of the worker.

use serde::{Deserialize, Serialize};

use crate::case::{CaseOutcome, Phase};
use crate::error::Error;
use crate::measure::memory::Peaks;

/// Version of the protocol. Parent and worker are the same binary, so the versions always agree.
pub const VERSION: u32 = 1;

/// A line of the protocol.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// [`VERSION`].
    pub v: u32,
    /// The message.
    #[serde(flatten)]
    pub message: Message,
}

/// A message of a worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Message {
    /// A phase begins.
    Phase {
        /// The phase.
        phase: Phase,
    },
    /// Progress within the phase.
    Progress {
        /// Completed units.
        done: u64,
        /// All units.
        total: u64,
        /// The name of a unit.
        unit: String,
    },
    /// The measurement is complete. Later work counts in no time and no peak of the case.
    Measured,
    /// The case is complete; the last message.
    Done {
        /// Its outcome.
        outcome: Box<CaseOutcome>,
        /// Its peak memory.
        peaks: Peaks,
    },
    /// The case failed; the last message.
    Failed(Failure),
}

/// Why a case failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The error message.
    pub message: String,
    /// Whether the settings or the input are the cause, so that every other case would fail in the same way.
    pub bad_input: bool,
    /// Bytes of the failed or refused allocation.
    pub out_of_memory_bytes: Option<u64>,
    /// Whether the case was not started because it was predicted to exceed the memory limit.
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
    fn messages_round_trip_as_single_lines() {
        for message in [
            Message::Phase { phase: Phase::Extracting },
            Message::Measured,
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
