//! The stopping rule of a run without fixed repetitions.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::interval::BLOCKS_OF_CONFIDENCE;
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
    /// The default time was spent after at least the minimum number of blocks.
    Time {
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
    /// Time of a run without a budget, from the start of the command; the minimum number of blocks may exceed it.
    pub time: Duration,
}

impl Default for StoppingRule {
    fn default() -> Self {
        // Stopping at the first narrow interval favors intervals that are narrow by chance; the minimum reduces that effect. On
        // a busy machine 1.5 % is out of reach, and the time bounds a run whose user asked for no precision.
        StoppingRule {
            half_width: 0.015,
            min_blocks: BLOCKS_OF_CONFIDENCE,
            max_blocks: 50,
            time: Duration::from_secs(60),
        }
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

    /// Why a run ends for want of time after `blocks` blocks, if it does: the next block, as long as the longest so far, does not
    /// fit into `budget`, or without a budget into the default time. One block is measured whatever the budget, because a run
    /// without any measurement is useless; without a budget it is the minimum number of blocks.
    pub fn out_of_time(
        &self,
        budget: Option<Duration>,
        spent: Duration,
        longest_block: Duration,
        blocks: usize,
    ) -> Option<RunEnd> {
        let exceeds = |limit: Duration, block: Duration| spent.saturating_add(block) > limit;
        match budget {
            Some(budget) => (blocks > 0 && exceeds(budget, longest_block)).then_some(RunEnd::Budget { blocks }),
            // The next block may be slower than all before it. The margin of a quarter keeps the promised time in most cases.
            None => (blocks >= self.min_blocks && exceeds(self.time, longest_block.mul_f64(1.25)))
                .then_some(RunEnd::Time { blocks }),
        }
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
        let end = |budget, spent, longest, blocks| {
            StoppingRule::default().out_of_time(budget, seconds(spent), seconds(longest), blocks)
        };
        assert_eq!(end(Some(seconds(10)), 7, 3, 1), None);
        assert_eq!(end(Some(seconds(10)), 8, 3, 1), Some(RunEnd::Budget { blocks: 1 }));
        assert_eq!(end(Some(seconds(10)), 8, 3, 0), None, "one block is measured whatever the budget");
        assert_eq!(end(Some(seconds(600)), 300, 30, 9), None, "a budget extends the default time");
        assert_eq!(end(None, 1 << 40, 3, 5), None, "without a budget six blocks are measured");
        assert_eq!(end(None, 50, 8, 6), None);
        assert_eq!(end(None, 51, 8, 6), Some(RunEnd::Time { blocks: 6 }));
    }
}
