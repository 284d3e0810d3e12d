//! Threads of a session, which the system may refuse.

use std::thread::{Builder, JoinHandle, Scope, ScopedJoinHandle};

use actbench_kernels::KernelError;

use crate::error::Result;

/// Runs `work` on a thread named `name`.
///
/// # Errors
/// The system permits no further thread.
pub(in crate::model) fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    Ok(Builder::new().name(name.to_owned()).spawn(work).map_err(|error| refused(name, &error))?)
}

/// Runs `work` on a thread named `name`, which ends before `scope` does.
///
/// # Errors
/// The system permits no further thread.
pub(in crate::model) fn spawn_scoped<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: &str,
    work: impl FnOnce() -> T + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, T>> {
    let started = Builder::new().name(name.to_owned()).spawn_scoped(scope, work);
    Ok(started.map_err(|error| refused(name, &error))?)
}

fn refused(name: &str, error: &std::io::Error) -> KernelError {
    KernelError::Device { op: "start threads", device: name.to_owned(), message: error.to_string() }
}
