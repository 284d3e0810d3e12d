//! The progress of a command on standard error: a bar on a terminal, lines when piped, nothing when quiet.

use std::io::IsTerminal;

use actbench_activations::progress::ticking_bar;
use indicatif::ProgressBar;
use pairgate::stderr_line;

/// Where the progress of a command goes.
pub struct ProgressDisplay {
    bar: Option<ProgressBar>,
    prints_lines: bool,
}

impl ProgressDisplay {
    /// A bar in the style of `template`, or lines. `length` is the number of steps, if it is known; none for a clock alone.
    pub fn new(template: &str, length: Option<u64>, quiet: bool) -> Self {
        Self::on(std::io::stderr().is_terminal(), template, length, quiet)
    }

    fn on(is_terminal: bool, template: &str, length: Option<u64>, quiet: bool) -> Self {
        let bar = (is_terminal && !quiet).then(|| ticking_bar(template, length, false));
        ProgressDisplay { bar, prints_lines: !is_terminal && !quiet }
    }

    /// The bar, on a terminal.
    pub fn bar(&self) -> Option<&ProgressBar> {
        self.bar.as_ref()
    }

    /// Sets position, length and message of the bar.
    pub fn advance(&self, done: u64, total: u64, message: String) {
        if let Some(bar) = &self.bar {
            bar.set_length(total);
            bar.set_position(done);
            bar.set_message(message);
        }
    }

    /// Prints a line if there are lines in the place of a bar.
    pub fn line(&self, line: impl FnOnce() -> String) {
        if self.prints_lines {
            stderr_line!("{}", line());
        }
    }

    /// Prints a line that is not to be missed: above the bar, or as one of the lines.
    pub fn notice(&self, line: String) {
        match &self.bar {
            Some(bar) => bar.println(line),
            None => self.line(|| line),
        }
    }

    /// Removes the bar.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Drop for ProgressDisplay {
    fn drop(&mut self) {
        self.finish();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bar_and_lines_exclude_each_other() {
        let display = |is_terminal, quiet| ProgressDisplay::on(is_terminal, "{msg} {pos}/{len}", Some(0), quiet);
        for (is_terminal, quiet, expected) in [
            (true, false, (true, false)),
            (false, false, (false, true)),
            (true, true, (false, false)),
            (false, true, (false, false)),
        ] {
            let display = display(is_terminal, quiet);
            assert_eq!((display.bar().is_some(), display.prints_lines), expected, "{is_terminal} {quiet}");
        }
        let display = display(true, false);
        display.advance(2, 5, "case 3".to_owned());
        let bar = display.bar().unwrap();
        assert_eq!((bar.position(), bar.length(), bar.message()), (2, Some(5), "case 3".to_owned()));
        display.finish();
        assert!(bar.is_finished());
    }
}
