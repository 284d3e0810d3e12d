//! The progress of a self-test: a bar on a terminal, a line a gate when piped, nothing when quiet.

use std::time::Instant;

use crate::progress::ProgressDisplay;
use pairgate::CaseReport;
use pairgate::selftest::live::SelftestObserver;
use pairgate::selftest::trials::InjectedChange;

/// Shows the progress of a self-test.
pub struct SelftestProgress {
    display: ProgressDisplay,
    start: Instant,
}

impl SelftestProgress {
    /// The progress of a self-test that starts now.
    pub fn new(quiet: bool) -> Self {
        let display = ProgressDisplay::new("{msg} {wide_bar} {pos}/{len} gates ({eta} left)", Some(0), quiet);
        SelftestProgress { display, start: Instant::now() }
    }

    /// The self-test has ended.
    pub fn finish(&self) {
        self.display.finish();
    }
}

impl SelftestObserver for SelftestProgress {
    fn on_pilot(&mut self, pairs: usize) {
        self.display.advance(0, 0, "pilot".to_owned());
        self.display.line(|| format!("pilot: {pairs} pairs to measure the case"));
    }

    fn on_gate(&mut self, done: usize, total: usize, change: InjectedChange, case: &CaseReport) {
        let text = format!("{change}: {} after {} pairs", case.verdict, case.pairs);
        self.display.advance(done as u64, total as u64, text.clone());
        self.display.line(|| {
            let spent = self.start.elapsed().as_secs_f64();
            let left = spent / done as f64 * (total - done) as f64;
            format!("gate {done} of {total}: {text} ({spent:.0} s, about {left:.0} s left)")
        });
    }
}
