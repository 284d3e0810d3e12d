//! Threads of a session, which the system may refuse.

use std::thread::{Builder, JoinHandle};

use actbench_kernels::KernelError;

use crate::error::Result;

/// Runs `work` on a thread named `name`.
///
/// # Errors
/// The system permits no further thread.
pub(in crate::model) fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    let refused = |error: std::io::Error| KernelError::Device {
        op: "start threads",
        device: name.to_owned(),
        message: error.to_string(),
    };
    Ok(Builder::new().name(name.to_owned()).spawn(work).map_err(refused)?)
}
