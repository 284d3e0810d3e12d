//! How a gate shows itself while it runs, and keeps its journal.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::error::Result;
use crate::gate::engine::{Listener, Pair, Stage};
use crate::gate::journal::Journal;
use crate::gate::source::Observed;

/// Listens to a gate.
pub struct GateProgress {
    journal: Option<Journal>,
    bar: Option<ProgressBar>,
    lines: bool,
    round: String,
    taken: usize,
    start: Instant,
}

impl GateProgress {
    /// A bar on a terminal, a line a round when piped, nothing when quiet.
    pub fn new(journal: Option<Journal>, quiet: bool) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let bar = (terminal && !quiet).then(|| {
            let bar = ProgressBar::new(0);
            if let Ok(style) = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} rounds ({eta} left at most)")
            {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        let lines = !terminal && !quiet;
        GateProgress { journal, bar, lines, round: String::new(), taken: 0, start: Instant::now() }
    }

    /// The gate has ended.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Listener for GateProgress {
    fn recorded(&mut self, stage: Stage, case: &str, index: usize) -> Option<Pair> {
        self.journal.as_mut()?.recorded(stage, case, index)
    }

    fn taken(&mut self, pair: &Pair) -> Result<()> {
        self.taken += 1;
        if let Some(journal) = &mut self.journal {
            journal.append(pair)?;
        }
        for (side, observed) in [("base", &pair.base), ("head", &pair.head)] {
            if let Observed::Failed(reason) = observed {
                let line = format!("{}: {side} failed: {reason}", pair.case);
                match &self.bar {
                    Some(bar) => bar.println(line),
                    None if self.lines => eprintln!("{line}"),
                    None => {}
                }
            }
        }
        Ok(())
    }

    fn round(&mut self, stage: Stage, round: usize, most: usize, cases: usize) {
        let name = match stage {
            Stage::Screen => "pairs",
            Stage::Confirm => "fresh pairs of what was flagged",
        };
        self.round = format!("{name}: round {} of at most {most}, {cases} cases", round + 1);
        if let Some(bar) = &self.bar {
            bar.set_length(most as u64);
            bar.set_position(round as u64);
            bar.set_message(self.round.clone());
        } else if self.lines {
            let spent = self.start.elapsed().as_secs_f64();
            let rate =
                if self.taken == 0 { String::new() } else { format!(", {:.2} s a pair", spent / self.taken as f64) };
            eprintln!("{}, {spent:.0} s{rate}", self.round);
        }
    }
}
