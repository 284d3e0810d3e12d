//! The crate's error type. A message names the input, the failure and the remedy.
//!
//! [`Error::exit_code`] maps an error to the exit status of the process:
//!
//! | status | meaning |
//! |---|---|
//! | 0 | success; never the status of an error |
//! | 1 | failure at run time: out of memory, a device, a numerical procedure, a write, results that disagree |
//! | 2 | bad usage or bad input: the caller can correct the command line, the file or the model |
//! | 70 | internal error: a fault of actbench that no input should cause (`EX_SOFTWARE` of BSD's `sysexits.h`) |
//! | 130 | interrupted by the user (128 + `SIGINT`, as shells report it) |

use std::path::{Path, PathBuf};

use actbench_kernels::KernelError;
use thiserror::Error as ThisError;

use crate::units::Bytes;

/// The result of every fallible function of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The end of every internal error and of the report of a panic.
pub(crate) const REPORT_REQUEST: &str = "this is a fault of actbench, please report it with the command line";

/// An error of this crate.
#[derive(Debug, ThisError)]
pub enum Error {
    /// The command line or an argument of a call is invalid.
    #[error("{0}")]
    Usage(String),
    /// A file, a model or a data set is invalid. The message starts with its path or name.
    #[error("{origin}: {what}")]
    Input {
        /// Path or name of the input.
        origin: String,
        /// The defect and the remedy.
        what: String,
    },
    /// An invariant of actbench does not hold. No command line and no input should be able to cause it.
    #[error("internal error: {what}; {}", REPORT_REQUEST)]
    Internal {
        /// The broken invariant.
        what: String,
    },
    /// A system call failed.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// The verb: `read`, `write`, `create`, ...
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// An allocation failed.
    #[error("out of memory: {what} would take {}", Bytes(*bytes))]
    OutOfMemory {
        /// The purpose of the allocation.
        what: String,
        /// Requested bytes.
        bytes: u64,
    },
    /// A case is predicted to exceed its memory limit; nothing was allocated.
    #[error(
        "out of memory: {} would be needed, over the limit of {} (--memory-limit): {what}; {advice}",
        Bytes(*bytes),
        Bytes(*limit)
    )]
    OverMemoryLimit {
        /// The memory in use, and what would be added for which purpose.
        what: String,
        /// Predicted bytes of the whole process.
        bytes: u64,
        /// Permitted bytes of the whole process.
        limit: u64,
        /// What would take less.
        advice: &'static str,
    },
    /// An operation of a backend failed.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// A numerical procedure failed.
    #[error("{0}")]
    Numeric(String),
    /// Results that must agree do not.
    #[error("{0}")]
    Disagreement(String),
    /// The user interrupted the process.
    #[error("interrupted")]
    Interrupted,
}

impl Error {
    /// Bad usage: `what` names the invalid argument and a valid one.
    pub fn usage(what: impl Into<String>) -> Self {
        Error::Usage(what.into())
    }

    /// Bad input that has a name instead of a path, such as a data set.
    pub fn input(origin: impl Into<String>, what: impl Into<String>) -> Self {
        Error::Input { origin: origin.into(), what: what.into() }
    }

    /// Bad input in a file.
    pub fn file(path: impl AsRef<Path>, what: impl Into<String>) -> Self {
        Error::Input { origin: path.as_ref().display().to_string(), what: what.into() }
    }

    /// An internal error: `what` names the invariant that does not hold. The message asks for a report.
    ///
    /// Use it only where neither the command line nor an input can be the cause; a user can correct those, but not
    /// this.
    pub fn internal(what: impl Into<String>) -> Self {
        Error::Internal { what: what.into() }
    }

    /// Appends `advice` to an input error and returns every other error unchanged.
    #[must_use]
    pub fn advise(self, advice: &str) -> Self {
        match self {
            Error::Input { origin, what } => Error::Input { origin, what: format!("{what}; {advice}") },
            other => other,
        }
    }

    /// A function for `map_err` that adds the verb and the path to the error of a system call.
    pub fn io(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| Error::Io { action, path, source }
    }

    /// The exit status of the process; the module documentation lists all of them.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Usage(_) | Error::Input { .. } => 2,
            Error::Io { action, .. } if matches!(*action, "read" | "open" | "find") => 2,
            Error::Internal { .. } => 70,
            Error::Interrupted => 130,
            _ => 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_separate_usage_failure_and_fault() {
        assert_eq!(Error::usage("unknown layer").exit_code(), 2);
        assert_eq!(Error::Numeric("the solver diverged".to_owned()).exit_code(), 1);
        assert_eq!(Error::internal("no pipe").exit_code(), 70);
        assert_eq!(Error::Interrupted.exit_code(), 130);
    }

    #[test]
    fn internal_error_asks_for_report() {
        insta::assert_snapshot!(Error::internal("the child has no pipe"), @"internal error: the child has no pipe; this is a fault of actbench, please report it with the command line");
    }
}
