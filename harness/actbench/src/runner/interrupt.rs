//! Ctrl-C and the terminate signal, with the benchmark's error type.

use std::sync::OnceLock;

use actbench_activations::import::directory::remove_unfinished;
use pairgate::process::interrupt::{ForcedExitRemoval, at_forced_exit};

use crate::error::{Result, from_pairgate};

pub use pairgate::process::interrupt::requested;

/// Records Ctrl-C and the terminate signal from now on, instead of ending the process. Does nothing the second time.
///
/// # Errors
/// The handler cannot be installed.
pub fn install() -> Result<()> {
    actbench_activations::hub::interrupt::stop_when(requested);
    static REMOVAL: OnceLock<ForcedExitRemoval> = OnceLock::new();
    pairgate::process::interrupt::install().map_err(from_pairgate)?;
    // An import does not poll, and may have written gigabytes.
    REMOVAL.get_or_init(|| at_forced_exit(remove_unfinished));
    Ok(())
}
