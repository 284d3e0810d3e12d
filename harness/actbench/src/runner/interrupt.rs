//! Ctrl-C and the terminate signal: noted here, acted on by whoever waits.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, Result};

static REQUESTED: AtomicBool = AtomicBool::new(false);

/// Notes Ctrl-C and the terminate signal from now on, instead of dying of them.
///
/// # Errors
/// The handler cannot be installed, or was before.
pub fn install() -> Result<()> {
    ctrlc::set_handler(|| REQUESTED.store(true, Ordering::SeqCst))
        .map_err(|error| Error::usage(format!("cannot watch for Ctrl-C: {error}")))
}

/// Whether the user asked to stop.
pub fn requested() -> bool {
    REQUESTED.load(Ordering::SeqCst)
}
