//! Ctrl-C and the terminate signal: recorded here, acted on by the loops that poll [`requested`].

use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, Result};

static REQUESTED: AtomicBool = AtomicBool::new(false);

/// Records Ctrl-C and the terminate signal from now on, instead of ending the process.
///
/// # Errors
/// The handler cannot be installed, or was before.
pub fn install() -> Result<()> {
    ctrlc::set_handler(|| REQUESTED.store(true, Ordering::SeqCst))
        .map_err(|error| Error::internal(format!("cannot handle Ctrl-C: {error}")))
}

/// Whether the user asked to stop.
pub fn requested() -> bool {
    REQUESTED.load(Ordering::SeqCst)
}
