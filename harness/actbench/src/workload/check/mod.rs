//! Checks of a device before its measurements can be trusted: reference values, and bit-identical features by every method.
//!
//! Tests run the same checks on the emulator; here they are part of the binary, for machines with a real device and without
//! the sources. They use the same loading and the same extraction as a run.

use std::path::Path;

use crate::error::Result;

mod goldens;
mod same_bits;
mod target;

pub use target::{CheckResult, CheckScope, CheckTarget};

/// Compares `target` with the goldens in `directory`, with itself and with the CPU. `on_result` receives each result at once.
///
/// # Errors
/// Goldens that cannot be read. A failure of the device is a failed check, not an error.
pub fn run(
    target: &CheckTarget,
    directory: &Path,
    scope: CheckScope,
    on_result: &mut dyn FnMut(&CheckResult),
) -> Result<Vec<CheckResult>> {
    let mut results = Vec::new();
    let mut record = |result: CheckResult| {
        on_result(&result);
        results.push(result);
    };
    goldens::check(target, directory, scope, &mut record)?;
    same_bits::check(target, scope, &mut record)?;
    Ok(results)
}
