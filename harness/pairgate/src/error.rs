//! The one error type: what happened, where, and what to do next.
//!
//! [`Error::exit_code`] turns it into the process's exit status: 70 for a bug, 130 for an interrupt, 2 for anything else. It
//! is never 1, which says "regressed".

use std::path::{Path, PathBuf};

use thiserror::Error as ThisError;

/// The result of anything that can fail here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong.
#[derive(Debug, ThisError)]
pub enum Error {
    /// The command line or a call asks for something that does not exist or does not fit.
    #[error("{0}")]
    Usage(String),
    /// A file, a revision or a series of numbers is not valid. Starts with its path or name.
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
        /// The file or directory.
        path: PathBuf,
        /// The system's own message.
        source: std::io::Error,
    },
    /// A measurement that cannot be made on this machine.
    #[error("{0}")]
    Measurement(String),
    /// The user asked to stop.
    #[error("interrupted")]
    Interrupted,
    /// A bug: no input or call of a user can cause it.
    #[error("internal error: {0}; this is a bug, please report it with the command line")]
    Internal(String),
}

impl Error {
    /// Bad usage: `what` says what was asked and what would be right.
    pub fn usage(what: impl Into<String>) -> Self {
        Error::Usage(what.into())
    }

    /// Bad input named by a free text, such as the name of a series.
    pub fn input(origin: impl Into<String>, what: impl Into<String>) -> Self {
        Error::Input { origin: origin.into(), what: what.into() }
    }

    /// Bad input in a file.
    pub fn file(path: impl AsRef<Path>, what: impl Into<String>) -> Self {
        Error::Input { origin: path.as_ref().display().to_string(), what: what.into() }
    }

    /// A bug of this crate or of its caller.
    pub fn internal(what: impl Into<String>) -> Self {
        Error::Internal(what.into())
    }

    /// A failed system call on a path, for `map_err`.
    pub fn io(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| Error::Io { action, path, source }
    }

    /// The process's exit status: 70 internal, 130 interrupted, 2 anything else, such as a journal that cannot be written.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Usage(_) | Error::Input { .. } | Error::Io { .. } | Error::Measurement(_) => 2,
            Error::Interrupted => 130,
            Error::Internal(_) => 70,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_separate_input_bugs_and_interrupts() {
        let io = |action: &'static str| Error::io(action, "a")(std::io::Error::other("refused"));
        assert_eq!([Error::usage("a"), Error::file("a", "b"), io("read"), io("find")].map(|it| it.exit_code()), [2; 4]);
        // Not 1: a gate that cannot write has shown no regression.
        assert_eq!([io("write"), Error::Measurement("a".to_owned())].map(|it| it.exit_code()), [2; 2]);
        assert_eq!((Error::Interrupted.exit_code(), Error::internal("a").exit_code()), (130, 70));
    }
}
