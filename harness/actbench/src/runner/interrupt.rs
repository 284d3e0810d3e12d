//! Ctrl-C and the terminate signal, with the benchmark's error type.

use crate::error::{Result, from_pairgate};

pub use pairgate::process::interrupt::requested;

/// Records Ctrl-C and the terminate signal from now on, instead of ending the process.
///
/// # Errors
/// The handler cannot be installed, or was before.
pub fn install() -> Result<()> {
    actbench_activations::hub::interrupt::stop_when(requested);
    pairgate::process::interrupt::install().map_err(from_pairgate)
}
