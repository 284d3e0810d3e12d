//! Progress bars on standard error, for downloads and imports here and for the runs and gates of `actbench`.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How often a ticking bar is drawn while nothing advances, so that its clock does not stand still.
const TICK: Duration = Duration::from_millis(200);

/// A bar of `length` steps, or of an unknown number of them, in the style of `template`. Hidden if `quiet` is set or standard
/// error is not a terminal.
pub fn progress_bar(template: &str, length: Option<u64>, quiet: bool) -> ProgressBar {
    let target = if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let bar = ProgressBar::with_draw_target(length, target);
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

/// A [`progress_bar`] that is also drawn while nothing advances.
pub fn ticking_bar(template: &str, length: Option<u64>, quiet: bool) -> ProgressBar {
    let bar = progress_bar(template, length, quiet);
    bar.enable_steady_tick(TICK);
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quiet_bar_is_hidden_and_counts() {
        let bar = ticking_bar("{msg} {wide_bar} {pos}/{len}", Some(3), true);
        bar.inc(2);
        assert_eq!((bar.is_hidden(), bar.position()), (true, 2));
        assert_eq!((progress_bar("{msg}", None, false).length(), bar.length()), (None, Some(3)));
    }
}
