//! The progress of a self-test: a bar on a terminal, a line a gate when piped, nothing when quiet.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use pairgate::CaseReport;
use pairgate::selftest::live::SelftestObserver;
use pairgate::selftest::trials::InjectedChange;
use pairgate::stderr_line;

/// Shows the progress of a self-test.
pub struct SelftestProgress {
    bar: Option<ProgressBar>,
    /// Whether lines are printed instead of a bar.
    prints_lines: bool,
    start: Instant,
}

impl SelftestProgress {
    /// The progress of a self-test that starts now.
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
        SelftestProgress { bar, prints_lines: !terminal && !quiet, start: Instant::now() }
    }

    /// The self-test has ended.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl SelftestObserver for SelftestProgress {
    fn on_pilot(&mut self, pairs: usize) {
        if let Some(bar) = &self.bar {
            bar.set_message("pilot");
        } else if self.prints_lines {
            stderr_line!("pilot: {pairs} pairs to measure the case");
        }
    }

    fn on_gate(&mut self, done: usize, total: usize, change: InjectedChange, case: &CaseReport) {
        let text = format!("{change}: {} after {} pairs", case.verdict, case.pairs);
        if let Some(bar) = &self.bar {
            bar.set_length(total as u64);
            bar.set_position(done as u64);
            bar.set_message(text);
        } else if self.prints_lines {
            let spent = self.start.elapsed().as_secs_f64();
            let left = spent / done as f64 * (total - done) as f64;
            stderr_line!("gate {done} of {total}: {text} ({spent:.0} s, about {left:.0} s left)");
        }
    }
}
