//! The progress bar of a download, on standard error if that is a terminal.

use indicatif::{ProgressBar, ProgressStyle};

/// The bar of a file of `size` bytes; hidden if `quiet` is set.
pub(super) fn download_bar(name: &str, size: Option<u64>, quiet: bool) -> ProgressBar {
    let bar = match size {
        _ if quiet => ProgressBar::hidden(),
        Some(size) => ProgressBar::new(size),
        None => ProgressBar::no_length(),
    };
    if let Ok(style) = ProgressStyle::with_template("{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}") {
        bar.set_style(style);
    }
    bar.set_message(name.to_owned());
    bar
}
