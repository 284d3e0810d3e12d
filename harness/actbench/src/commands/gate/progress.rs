//! The progress of a gate, and the recording of its pairs.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use pairgate::Result;
use pairgate::engine::{GateObserver, GateRound};
use pairgate::export::format::counted;
use pairgate::journal::GateJournal;
use pairgate::pair::{GatePair, GateStage};
use pairgate::source::ObservationResult;
use pairgate::stderr_line;

/// Records the pairs of a gate and shows its progress.
pub struct GateProgress {
    journal: GateJournal,
    bar: Option<ProgressBar>,
    /// Whether lines are printed instead of a bar.
    prints_lines: bool,
    pairs: usize,
    start: Instant,
}

impl GateProgress {
    /// A bar on a terminal, a line a round when piped, nothing when quiet.
    pub fn new(journal: GateJournal, quiet: bool) -> Self {
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
        GateProgress { journal, bar, prints_lines: !terminal && !quiet, pairs: 0, start: Instant::now() }
    }

    /// The gate has ended.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl GateObserver for GateProgress {
    fn recorded_pair(&mut self, stage: GateStage, case: &str, index: usize) -> Option<GatePair> {
        self.journal.recorded_pair(stage, case, index)
    }

    fn on_pair(&mut self, pair: &GatePair) -> Result<()> {
        self.pairs += 1;
        self.journal.append(pair)?;
        for (side, result) in [("base", &pair.base), ("head", &pair.head)] {
            if let ObservationResult::Failed(reason) = result {
                let line = format!("{}: {side} failed: {reason}", pair.case);
                match &self.bar {
                    Some(bar) => bar.println(line),
                    None if self.prints_lines => stderr_line!("{line}"),
                    None => {}
                }
            }
        }
        Ok(())
    }

    fn on_round(&mut self, round: &GateRound) {
        let stage = match round.stage {
            GateStage::Screen => "screening",
            GateStage::Confirm => "confirming flagged cases",
        };
        let cases = counted(round.cases, "case");
        let text = format!("{stage}: round {} of at most {}, {cases}", round.index + 1, round.max_rounds);
        if let Some(bar) = &self.bar {
            bar.set_length(round.max_rounds as u64);
            bar.set_position(round.index as u64);
            bar.set_message(text);
        } else if self.prints_lines {
            let spent = self.start.elapsed().as_secs_f64();
            let rate =
                if self.pairs == 0 { String::new() } else { format!(", {:.2} s a pair", spent / self.pairs as f64) };
            stderr_line!("{text}, {spent:.0} s{rate}");
        }
    }
}
