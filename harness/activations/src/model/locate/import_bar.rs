//! The progress bar of a GGUF import that is part of opening a model. It is next to the hub's download bars, which the
//! hub's client shows itself.

use std::path::Path;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::error::Result;
use crate::import::{ImportSummary, import_gguf};

/// [`import_gguf`] with a progress bar on standard error, unless `quiet` is set or standard error is not a terminal.
///
/// # Errors
/// As [`import_gguf`].
pub(super) fn import_with_bar(file: &Path, out: &Path, force: bool, quiet: bool) -> Result<ImportSummary> {
    let bar = if quiet { ProgressBar::hidden() } else { ProgressBar::new(0) };
    if let Ok(style) = ProgressStyle::with_template("importing {wide_bar} {pos}/{len} tensors") {
        bar.set_style(style);
    }
    // The tokenizer is converted first, without countable steps.
    bar.enable_steady_tick(Duration::from_millis(200));
    let summary = import_gguf(file, out, force, &mut |done, total| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    });
    bar.finish_and_clear();
    summary
}
