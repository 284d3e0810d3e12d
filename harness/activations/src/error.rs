//! The one error type: what happened, where, and what to do next.
//!
//! [`Error::exit_code`] turns it into the process's exit status: 2 for bad usage or input, 1 for anything else.

use std::path::{Path, PathBuf};

use actbench_kernels::KernelError;
use thiserror::Error as ThisError;

/// The result of anything that can fail here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong.
#[derive(Debug, ThisError)]
pub enum Error {
    /// The command line or a call asks for something that does not exist or does not fit.
    #[error("{0}")]
    Usage(String),
    /// A file, a model or a data set is not what it must be. Starts with its path or name.
    #[error("{origin}: {what}")]
    Input {
        /// Path or name of the input.
        origin: String,
        /// What is wrong with it and what to do next.
        what: String,
    },
    /// The operating system refused to read or write.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// The verb: `read`, `write`, `create`, ...
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's own words.
        source: std::io::Error,
    },
    /// Memory that is not there.
    #[error("out of memory: {what} would take {bytes} bytes")]
    OutOfMemory {
        /// What was to be allocated.
        what: String,
        /// Bytes asked for.
        bytes: u64,
    },
    /// A case that was predicted to need more memory than it may have; nothing was allocated.
    #[error(
        "out of memory: {what} would take {bytes} bytes in all, over the limit of {limit} (--memory-limit); take fewer samples or \
         layers, or the method lazy or lazy-disk"
    )]
    OverMemoryLimit {
        /// What was to be held.
        what: String,
        /// Bytes of the whole process then.
        bytes: u64,
        /// Bytes it may have.
        limit: u64,
    },
    /// An operation of a backend failed.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// A numerical procedure did not get through.
    #[error("{0}")]
    Numeric(String),
    /// Results that must agree do not.
    #[error("{0}")]
    Disagreement(String),
    /// The user asked to stop.
    #[error("interrupted")]
    Interrupted,
}

impl Error {
    /// Bad usage: `what` says what was asked and what would be right.
    pub fn usage(what: impl Into<String>) -> Self {
        Error::Usage(what.into())
    }

    /// Bad input named by a free text, such as a data set's name.
    pub fn input(origin: impl Into<String>, what: impl Into<String>) -> Self {
        Error::Input { origin: origin.into(), what: what.into() }
    }

    /// Bad input in a file.
    pub fn file(path: impl AsRef<Path>, what: impl Into<String>) -> Self {
        Error::Input { origin: path.as_ref().display().to_string(), what: what.into() }
    }

    /// The same error with what to do next after it, where it is about an input.
    #[must_use]
    pub fn advise(self, advice: &str) -> Self {
        match self {
            Error::Input { origin, what } => Error::Input { origin, what: format!("{what}; {advice}") },
            other => other,
        }
    }

    /// A failed system call on a path, for `map_err`.
    pub fn io(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| Error::Io { action, path, source }
    }

    /// The process's exit status: 2 bad usage or input, 130 interrupted, 1 anything else.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Usage(_) | Error::Input { .. } => 2,
            Error::Io { action, .. } if matches!(*action, "read" | "open" | "find") => 2,
            Error::Interrupted => 130,
            _ => 1,
        }
    }
}
