//! The stopping rule of a run without fixed repetitions.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::row::Row;
use super::summary::time_ratios;
use crate::case::RunConfig;

/// Why a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "because", rename_all = "kebab-case")]
pub enum RunEnd {
    /// The requested number of blocks was measured.
    Fixed {
        /// Measured blocks.
        blocks: usize,
    },
    /// Every time ratio is precise enough, or there is none.
    Enough {
        /// Measured blocks.
        blocks: usize,
    },
    /// Another block would exceed the budget.
    Budget {
        /// Measured blocks.
        blocks: usize,
    },
    /// The maximum number of blocks was measured, and a time ratio is still not precise enough.
    #[serde(rename = "most")]
    MaxBlocks {
        /// Measured blocks.
        blocks: usize,
    },
}

/// The stopping rule.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StoppingRule {
    /// Every time ratio must have an interval of at most this relative half-width.
    pub half_width: f64,
    /// Minimum number of blocks: fewer give no interval of 95 %.
    pub min_blocks: usize,
    /// Maximum number of blocks.
    pub max_blocks: usize,
}

impl Default for StoppingRule {
    fn default() -> Self {
        // Six is the smallest number of blocks with a confidence of 95 %. StoppingRule at the first narrow interval favors intervals
        // that are narrow by chance; the minimum reduces that effect.
        StoppingRule { half_width: 0.015, min_blocks: 6, max_blocks: 50 }
    }
}

impl StoppingRule {
    /// Whether `rows`, which contain `blocks` complete blocks, are precise enough. If there is nothing to compare (one method,
    /// or one that always fails), the minimum number of blocks suffices.
    pub fn is_satisfied(&self, config: &RunConfig, rows: &[Row], blocks: usize) -> bool {
        if blocks < self.min_blocks {
            return false;
        }
        let narrow = |half: Option<f64>| half.is_some_and(|half| half <= self.half_width);
        let ratios = config.tasks.iter().flat_map(|task| time_ratios(*task, rows));
        ratios.map(|ratio| ratio.relative_half_width()).all(narrow)
    }

    /// Whether another block fits into the rest of `budget`, if it takes as long as the longest so far.
    pub fn fits(budget: Option<Duration>, spent: Duration, longest_block: Duration) -> bool {
        budget.is_none_or(|budget| spent.saturating_add(longest_block) <= budget)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::{Method, Task};
    use crate::test_support::ok_row;

    /// Blocks of both methods; the ratio of times swings by `noise` from block to block.
    fn rows(blocks: usize, noise: f64) -> Vec<Row> {
        let block = |block: usize| {
            let swing = 1.0 + noise * (2.0 * (block as f64 * 0.618_034).fract() - 1.0);
            [
                ok_row(Task::Train, Method::Eager, block, 2.0 * swing, 50.0),
                ok_row(Task::Train, Method::Lazy, block, 1.0, 30.0),
            ]
        };
        (0..blocks).flat_map(block).collect()
    }

    fn satisfied(blocks: usize, noise: f64) -> bool {
        let config =
            RunConfig { tasks: vec![Task::Train], methods: vec![Method::Eager, Method::Lazy], ..RunConfig::default() };
        StoppingRule::default().is_satisfied(&config, &rows(blocks, noise), blocks)
    }

    #[test]
    fn stopping_rule_needs_narrow_intervals() {
        assert!(satisfied(6, 0.001));
        assert!(!satisfied(5, 0.001), "five blocks give no interval of 95 %");
        assert!(!satisfied(6, 0.2));
        assert!(!satisfied(40, 0.2));
    }

    #[test]
    fn without_comparison_minimum_blocks_suffice() {
        let config = RunConfig { methods: vec![Method::Lazy], ..RunConfig::default() };
        assert!(!StoppingRule::default().is_satisfied(&config, &[], 5));
        assert!(StoppingRule::default().is_satisfied(&config, &[], 6));
    }

    #[test]
    fn next_block_must_fit_into_remaining_budget() {
        let seconds = Duration::from_secs;
        assert!(StoppingRule::fits(Some(seconds(10)), seconds(7), seconds(3)));
        assert!(!StoppingRule::fits(Some(seconds(10)), seconds(8), seconds(3)));
        assert!(StoppingRule::fits(None, seconds(1 << 40), seconds(3)));
    }
}
