//! The progress of a run on standard error: a bar on a terminal, one line per case when piped, nothing when quiet.

use std::time::{Duration, Instant};

use super::protocol::Message;
use super::schedule::Slot;
use crate::progress::ProgressDisplay;
use crate::quantities::rounded_duration;
use crate::results::{Row, Status};

/// The bar of a case.
const TEMPLATE: &str = "{prefix} {msg} {wide_bar} {pos}/{len} ({per_sec}, {eta} left)";

/// How many cases a run has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunLength {
    /// This number.
    Cases(usize),
    /// As many as it takes to know the ratios, at least `least`, until `time` since `started` is over.
    Precision { least: usize, started: Instant, time: Duration },
}

impl RunLength {
    /// The time left at `now` if `done` cases took `spent`; an upper bound if the number of cases is open. None after the last
    /// case, and before the first.
    fn left(self, done: usize, spent: Duration, now: Instant) -> Option<Duration> {
        let of_cases = |n_cases: usize| spent.div_f64(done.max(1) as f64).mul_f64(n_cases.saturating_sub(done) as f64);
        let left = match self {
            RunLength::Cases(n_cases) => of_cases(n_cases),
            RunLength::Precision { least, started, time } => {
                of_cases(least).max(time.saturating_sub(now.saturating_duration_since(started)))
            }
        };
        (done > 0 && !left.is_zero()).then_some(left)
    }
}

/// Displays the progress of a run.
pub struct RunProgress {
    display: ProgressDisplay,
    length: RunLength,
    begin: Instant,
    /// Prefix of each case, with its separator.
    title: String,
}

impl RunProgress {
    /// Progress of a run whose first case begins now; `title` names the run within a matrix.
    pub fn new(length: RunLength, title: Option<&str>, quiet: bool) -> Self {
        let display = ProgressDisplay::new(TEMPLATE, Some(0), quiet);
        let title = title.map_or_else(String::new, |title| format!("{title}: "));
        RunProgress { display, length, begin: Instant::now(), title }
    }

    /// Case `index` (from 0 on) begins.
    pub fn begin(&self, index: usize, slot: Slot) {
        if let Some(bar) = self.display.bar() {
            bar.set_prefix(format!("{}{}: {}{}", self.title, self.position(index), label(slot), self.left(index)));
            bar.set_message("starting");
            bar.set_length(0);
            bar.reset();
        }
    }

    /// The worker sent a message.
    pub fn message(&self, message: &Message) {
        let Some(bar) = self.display.bar() else { return };
        match message {
            Message::Phase { phase } => {
                bar.set_message(phase.to_string());
                bar.set_length(0);
                bar.reset();
            }
            Message::Progress { done, total, .. } => {
                bar.set_length(*total);
                bar.set_position(*done);
            }
            Message::Measured | Message::Done { .. } | Message::Failed(_) => {}
        }
    }

    /// The case has ended as `row`.
    pub fn end(&self, index: usize, slot: Slot, row: &Row) {
        let figures = match (row.status, row.elapsed_s, row.metric_value) {
            (Status::Ok, Some(elapsed), Some(metric)) => format!("{elapsed:.2} s, {} {metric:.4}", row.metric_name),
            _ => format!("{}: {}", row.status, row.reason.as_deref().unwrap_or("no reason given")),
        };
        let line =
            format!("{}{}: {}: {figures}", self.title, self.position(index), label(slot)) + &self.left(index + 1);
        match row.status {
            Status::Ok => self.display.line(|| line),
            _ => self.display.notice(line),
        }
    }

    fn position(&self, index: usize) -> String {
        match self.length {
            RunLength::Cases(n_cases) => format!("case {} of {n_cases}", index + 1),
            RunLength::Precision { .. } => format!("case {}", index + 1),
        }
    }

    /// The time left after `done` cases, with its separator.
    fn left(&self, done: usize) -> String {
        let now = Instant::now();
        let Some(left) = self.length.left(done, now - self.begin, now) else { return String::new() };
        match self.length {
            RunLength::Cases(_) => format!(" (about {} left)", rounded_duration(left)),
            RunLength::Precision { .. } => format!(" (at most {} left)", rounded_duration(left)),
        }
    }

    /// The run has ended.
    pub fn finish(&self) {
        self.display.finish();
    }
}

fn label(slot: Slot) -> String {
    let without = slot.ablation.map_or_else(String::new, |ablation| format!(" without {ablation}"));
    match slot.block {
        Some(block) => format!("{} {}{without}, repetition {}", slot.task, slot.method, block + 1),
        None => format!("{} {}{without}, warm-up", slot.task, slot.method),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_left_is_that_of_cases_and_of_the_limit() {
        let now = Instant::now();
        let seconds = Duration::from_secs;
        let fixed = RunLength::Cases(10);
        assert_eq!(fixed.left(4, seconds(8), now), Some(seconds(12)));
        assert_eq!((fixed.left(0, seconds(0), now), fixed.left(10, seconds(20), now)), (None, None));
        let open = RunLength::Precision { least: 6, started: now, time: seconds(30) };
        assert_eq!(open.left(4, seconds(8), now), Some(seconds(30)));
        assert_eq!(open.left(4, seconds(80), now), Some(seconds(40)));
        assert_eq!(open.left(8, seconds(80), now + seconds(31)), None);
    }
}
