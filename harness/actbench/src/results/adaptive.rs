//! When a run that was given no number of repetitions has seen enough.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Row;
use super::summary::time_ratios;
use crate::workload::case::RunConfig;

/// Why a run took as many blocks as it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "because", rename_all = "kebab-case")]
pub enum RunEnd {
    /// So many were asked for.
    Fixed {
        /// Counted blocks.
        blocks: usize,
    },
    /// Every ratio of times is known well enough, or there is none to know.
    Enough {
        /// Counted blocks.
        blocks: usize,
    },
    /// Another block would not fit into the budget.
    Budget {
        /// Counted blocks.
        blocks: usize,
    },
    /// More would not help: the ratios are not known as well as wanted, and come no nearer.
    Most {
        /// Counted blocks.
        blocks: usize,
    },
}

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
        if blocks < self.fewest_blocks {
            return false;
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

#[cfg(test)]
mod tests {
    use super::super::tests::ok_row;
    use super::*;
    use crate::runner::schedule::tests::config;
    use crate::workload::case::{Method, Task};

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

    fn enough(blocks: usize, noise: f64) -> bool {
        let config = RunConfig { tasks: vec![Task::Train], methods: vec![Method::Eager, Method::Lazy], ..config() };
        Stopping::default().has_enough(&config, &rows(blocks, noise), blocks)
    }

    #[test]
    fn narrow_intervals_are_enough_and_wide_ones_are_not() {
        assert!(enough(6, 0.001));
        assert!(!enough(5, 0.001), "five blocks give no interval of 95 %");
        assert!(!enough(6, 0.2));
        assert!(!enough(40, 0.2));
    }

    #[test]
    fn with_nothing_to_compare_the_fewest_blocks_are_enough() {
        let config = RunConfig { methods: vec![Method::Lazy], ..config() };
        assert!(!Stopping::default().has_enough(&config, &[], 5));
        assert!(Stopping::default().has_enough(&config, &[], 6));
    }

    #[test]
    fn a_block_must_fit_into_what_is_left_of_the_budget() {
        let seconds = Duration::from_secs;
        assert!(Stopping::fits(Some(seconds(10)), seconds(7), seconds(3)));
        assert!(!Stopping::fits(Some(seconds(10)), seconds(8), seconds(3)));
        assert!(Stopping::fits(None, seconds(1 << 40), seconds(3)));
    }
}
