//! The progress of a run on standard error: a bar on a terminal, one line per case when piped, nothing when quiet.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::protocol::Message;
use super::schedule::Slot;
use crate::results::{Row, Status};
use pairgate::stderr_line;

/// Displays the progress of a run.
pub struct RunProgress {
    bar: Option<ProgressBar>,
    lines: bool,
    n_cases: Option<usize>,
    /// Prefix of each case, with its separator.
    title: String,
}

impl RunProgress {
    /// Progress of a run of `n_cases` cases, if the number is fixed; `title` names the run within a matrix.
    pub fn new(n_cases: Option<usize>, title: Option<&str>, quiet: bool) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let bar = (terminal && !quiet).then(|| {
            let bar = ProgressBar::new(0);
            if let Ok(style) =
                ProgressStyle::with_template("{prefix} {msg} {wide_bar} {pos}/{len} ({per_sec}, {eta} left)")
            {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        let title = title.map_or_else(String::new, |title| format!("{title}: "));
        RunProgress { bar, lines: !terminal && !quiet, n_cases, title }
    }

    /// Case `index` (from 0 on) begins.
    pub fn begin(&self, index: usize, slot: Slot) {
        if let Some(bar) = &self.bar {
            bar.set_prefix(format!("{}{}: {}", self.title, self.position(index), label(slot)));
            bar.set_message("starting");
            bar.set_length(0);
            bar.reset();
        }
    }

    /// The worker sent a message.
    pub fn message(&self, message: &Message) {
        let Some(bar) = &self.bar else { return };
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
            Message::Done { .. } | Message::Failed(_) => {}
        }
    }

    /// The case has ended as `row`.
    pub fn end(&self, index: usize, slot: Slot, row: &Row) {
        let figures = match (row.status, row.elapsed_s, row.metric_value) {
            (Status::Ok, Some(elapsed), Some(metric)) => format!("{elapsed:.2} s, {} {metric:.4}", row.metric_name),
            _ => format!("{}: {}", row.status, row.reason.as_deref().unwrap_or("no reason given")),
        };
        let line = format!("{}{}: {}: {figures}", self.title, self.position(index), label(slot));
        match &self.bar {
            Some(bar) if row.status != Status::Ok => bar.println(line),
            Some(_) => {}
            None if self.lines => stderr_line!("{line}"),
            None => {}
        }
    }

    fn position(&self, index: usize) -> String {
        match self.n_cases {
            Some(n_cases) => format!("case {} of {n_cases}", index + 1),
            None => format!("case {}", index + 1),
        }
    }

    /// The run has ended.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn label(slot: Slot) -> String {
    let without = slot.ablation.map_or_else(String::new, |ablation| format!(" without {ablation}"));
    match slot.block {
        Some(block) => format!("{} {}{without}, repetition {}", slot.task, slot.method, block + 1),
        None => format!("{} {}{without}, warm-up", slot.task, slot.method),
    }
}
