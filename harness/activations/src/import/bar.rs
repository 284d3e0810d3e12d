//! An import with a progress bar.

use std::path::Path;

use super::{ImportSummary, import_gguf};
use crate::error::Result;
use crate::progress::ticking_bar;

/// [`import_gguf`] with a progress bar on standard error, unless `quiet` is set or standard error is not a terminal.
///
/// # Errors
/// As [`import_gguf`].
pub fn import_with_bar(file: &Path, out: &Path, force: bool, quiet: bool) -> Result<ImportSummary> {
    // Ticking: the tokenizer is converted first, without countable steps.
    let bar = ticking_bar("importing {wide_bar} {pos}/{len} tensors", Some(0), quiet);
    let summary = import_gguf(file, out, force, &mut |done, total| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    });
    bar.finish_and_clear();
    summary
}
