//! How a self-test shows itself: a bar on a terminal, a line a gate when piped, nothing when quiet.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::gate::CaseReport;
use crate::selftest::live::{Change, GateListener};

/// Shows a self-test.
pub struct SelftestProgress {
    bar: Option<ProgressBar>,
    lines: bool,
    start: Instant,
}

impl SelftestProgress {
    /// For a self-test that starts now.
    pub fn new(quiet: bool) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let bar = (terminal && !quiet).then(|| {
            let bar = ProgressBar::new(0);
            if let Ok(style) = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} gates ({eta} left)") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        SelftestProgress { bar, lines: !terminal && !quiet, start: Instant::now() }
    }

    /// The self-test has ended.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl GateListener for SelftestProgress {
    fn pilot(&mut self, pairs: usize) {
        if let Some(bar) = &self.bar {
            bar.set_message("pilot");
        } else if self.lines {
            eprintln!("pilot: {pairs} pairs, to learn what the case takes");
        }
    }

    fn ended(&mut self, done: usize, total: usize, change: Change, case: &CaseReport) {
        let what = format!("{change}: {} after {} pairs", case.verdict, case.pairs);
        if let Some(bar) = &self.bar {
            bar.set_length(total as u64);
            bar.set_position(done as u64);
            bar.set_message(what);
        } else if self.lines {
            let spent = self.start.elapsed().as_secs_f64();
            let left = spent / done as f64 * (total - done) as f64;
            eprintln!("gate {done} of {total}: {what} ({spent:.0} s, about {left:.0} s left)");
        }
    }
}
