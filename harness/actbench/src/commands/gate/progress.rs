//! The progress of a gate, and the recording of its pairs.

use std::time::Instant;

use crate::progress::ProgressDisplay;
use pairgate::Result;
use pairgate::engine::{GateObserver, GateRound};
use pairgate::export::format::counted;
use pairgate::journal::GateJournal;
use pairgate::pair::{GatePair, GateStage};
use pairgate::source::ObservationResult;

/// Records the pairs of a gate and shows its progress.
pub struct GateProgress {
    journal: GateJournal,
    display: ProgressDisplay,
    pairs: usize,
    start: Instant,
}

impl GateProgress {
    /// A bar on a terminal, a line a round when piped, nothing when quiet.
    pub fn new(journal: GateJournal, quiet: bool) -> Self {
        let display = ProgressDisplay::new("{msg} {wide_bar} {pos}/{len} rounds ({eta} left at most)", Some(0), quiet);
        GateProgress { journal, display, pairs: 0, start: Instant::now() }
    }

    /// The gate has ended.
    pub fn finish(&self) {
        self.display.finish();
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
                self.display.notice(format!("{}: {side} failed: {reason}", pair.case));
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
        self.display.advance(round.index as u64, round.max_rounds as u64, text.clone());
        self.display.line(|| {
            let spent = self.start.elapsed().as_secs_f64();
            let rate =
                if self.pairs == 0 { String::new() } else { format!(", {:.2} s a pair", spent / self.pairs as f64) };
            format!("{text}, {spent:.0} s{rate}")
        });
    }
}
