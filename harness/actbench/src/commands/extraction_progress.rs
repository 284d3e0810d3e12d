//! The progress of `actbench cache` and `actbench features` on standard error: a bar on a terminal, a line now and then when piped,
//! nothing when quiet.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::HumanCount;

use crate::case::{CaseObserver, Phase};
use crate::progress::ProgressDisplay;
use crate::quantities::rounded_duration;
use actbench_activations::plan::{Progress, ProgressSink};

const TEMPLATE: &str = "{msg} {wide_bar} {pos}/{len} ({per_sec}, {eta} left)";

/// The time between two lines.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// Displays the progress of loading and of an extraction.
pub struct ExtractionProgress {
    display: ProgressDisplay,
    state: Mutex<State>,
}

/// A phase and its last line.
struct State {
    phase: Phase,
    started: Instant,
    last_line: Instant,
}

impl ExtractionProgress {
    /// Progress of an extraction whose loading begins now.
    pub fn new(quiet: bool) -> Arc<Self> {
        let now = Instant::now();
        let state = Mutex::new(State { phase: Phase::Loading, started: now, last_line: now });
        let progress = ExtractionProgress { display: ProgressDisplay::new(TEMPLATE, Some(0), quiet), state };
        progress.phase(Phase::Loading);
        Arc::new(progress)
    }

    /// Where a plan reports its progress.
    pub fn sink(self: &Arc<Self>) -> ProgressSink {
        let progress = self.clone();
        Arc::new(move |step: Progress| progress.progress(step.done, step.total, step.unit))
    }

    /// The work has ended.
    pub fn finish(&self) {
        self.display.finish();
    }
}

impl CaseObserver for ExtractionProgress {
    fn phase(&self, phase: Phase) {
        let now = Instant::now();
        // A poisoned lock is harmless: times and a name have no invariant.
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = State { phase, started: now, last_line: now };
        if let Some(bar) = self.display.bar() {
            bar.set_message(phase.to_string());
            bar.set_length(0);
            bar.reset();
        }
    }

    fn progress(&self, done: u64, total: u64, unit: &str) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.display.advance(done, total, state.phase.to_string());
        if state.last_line.elapsed() >= LINE_INTERVAL {
            state.last_line = Instant::now();
            self.display.line(|| line(state.phase, done, total, unit, state.started.elapsed()));
        }
    }

    fn loaded(&self) {}

    fn measured(&self) {}
}

/// `extracting: 1,200 of 25,000 samples (96 samples/s, about 4 min left)`.
fn line(phase: Phase, done: u64, total: u64, unit: &str, spent: Duration) -> String {
    let rate = done as f64 / spent.as_secs_f64().max(f64::MIN_POSITIVE);
    let position = format!("{phase}: {} of {} {unit}", HumanCount(done), HumanCount(total));
    if done == 0 {
        return position;
    }
    let left = spent.div_f64(done as f64).mul_f64(total.saturating_sub(done) as f64);
    let digits = usize::from(rate < 10.0);
    format!("{position} ({rate:.digits$} {unit}/s, about {} left)", rounded_duration(left))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_has_rate_and_time_left() {
        let at = |done, total, seconds| line(Phase::Extracting, done, total, "samples", Duration::from_secs(seconds));
        let left = |seconds| rounded_duration(Duration::from_secs(seconds));
        assert_eq!(
            at(1200, 26_200, 12),
            format!("extracting: 1,200 of 26,200 samples (100 samples/s, about {} left)", left(250))
        );
        assert_eq!(at(3, 6, 2), format!("extracting: 3 of 6 samples (1.5 samples/s, about {} left)", left(2)));
        assert_eq!(at(0, 6, 2), "extracting: 0 of 6 samples");
    }
}
