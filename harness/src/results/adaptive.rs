//! When a run that was given no number of repetitions has seen enough.

use std::time::Duration;

use super::Row;
use super::summary::time_ratios;
use crate::workload::case::RunConfig;

/// The rule.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stopping {
    /// Enough, once every ratio of times is known to within this share either way.
    pub half_width: f64,
    /// Not before so many blocks: fewer give no interval of 95 %, and none that can be trusted to be narrow.
    pub fewest_blocks: usize,
    /// Never after more.
    pub most_blocks: usize,
}

impl Default for Stopping {
    fn default() -> Self {
        // Judged after every block, a narrow interval tends to be one that is narrow by luck; with a later start there is
        // less of that. Six are the fewest with a confidence of 95 %.
        Stopping { half_width: 0.015, fewest_blocks: 6, most_blocks: 50 }
    }
}

impl Stopping {
    /// Whether `rows`, which hold `blocks` whole blocks, are enough. Where there is nothing to compare (one method, or
    /// one that never comes through) the fewest blocks are.
    pub fn has_enough(&self, config: &RunConfig, rows: &[Row], blocks: usize) -> bool {
        if blocks < self.fewest_blocks || blocks >= self.most_blocks {
            return blocks >= self.most_blocks;
        }
        let narrow = |half: Option<f64>| half.is_some_and(|half| half <= self.half_width);
        let ratios = config.tasks.iter().flat_map(|task| time_ratios(*task, rows));
        ratios.map(|ratio| ratio.relative_half_width()).all(narrow)
    }

    /// Whether another block fits into what is left of `budget`, if it takes as long as the longest so far.
    pub fn fits(budget: Option<Duration>, spent: Duration, longest_block: Duration) -> bool {
        budget.is_none_or(|budget| spent.saturating_add(longest_block) <= budget)
    }
}
