//! Threads, where the system may refuse them.

use std::io;
use std::thread::{self, JoinHandle};

use crate::error::{Error, Result};

/// Starts a thread.
///
/// # Errors
/// The system permits no further thread.
pub fn start<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<JoinHandle<T>> {
    thread::Builder::new().spawn(work).map_err(|error| refused(&error))
}

/// Checks that a thread can be started.
///
/// # Errors
/// The system permits no further thread.
pub fn check() -> Result<()> {
    // Its result is nothing, and it cannot panic.
    let _ = start(|| ())?.join();
    Ok(())
}

/// The error for a thread that the system refused.
pub fn refused(error: &io::Error) -> Error {
    Error::Measurement(format!(
        "cannot start a thread: {error}; raise the limit on processes and threads (`ulimit -u`, or pids.max of the cgroup)"
    ))
}
