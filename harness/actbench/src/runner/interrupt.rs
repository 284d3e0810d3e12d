//! Ctrl-C and SIGTERM set a flag here; loops that wait check it.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, Result};

static REQUESTED: AtomicBool = AtomicBool::new(false);

/// Installs a handler that records Ctrl-C and SIGTERM instead of terminating the process.
///
/// # Errors
/// The handler cannot be installed, or already is.
pub fn install() -> Result<()> {
    ctrlc::set_handler(|| REQUESTED.store(true, Ordering::SeqCst))
        .map_err(|error| Error::internal(format!("the Ctrl-C handler cannot be installed: {error}")))
}

/// Whether the user requested a stop.
pub fn requested() -> bool {
    REQUESTED.load(Ordering::SeqCst)
}
