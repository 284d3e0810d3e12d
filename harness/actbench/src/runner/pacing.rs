//! Which block comes next, and when there have been enough.

use std::time::{Duration, Instant};

use crate::results::ResultFile;
use crate::results::adaptive::{RunEnd, Stopping};
use crate::workload::case::RunConfig;

/// A block of all cases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Block {
    /// Not counted.
    WarmUp,
    /// Counted, from 0 on.
    Counted(usize),
}

impl Block {
    /// The number of a counted block.
    pub fn counted(self) -> Option<usize> {
        match self {
            Block::WarmUp => None,
            Block::Counted(index) => Some(index),
        }
    }
}

/// Hands out blocks: a fixed number, or until the ratios are known well enough or the budget is used up.
pub struct Pacing {
    warmup_left: usize,
    done: usize,
    start: Instant,
    last: Instant,
    longest_block: Duration,
    stopping: Stopping,
}

impl Pacing {
    /// For a run that starts now.
    pub fn new(config: &RunConfig) -> Self {
        let (start, longest_block) = (Instant::now(), Duration::ZERO);
        let (warmup_left, stopping) = (config.warmup, Stopping::default());
        Pacing { warmup_left, done: 0, start, last: start, longest_block, stopping }
    }

    /// The next block, once those before it are in `results`; else why there is none.
    pub fn next(&mut self, results: &ResultFile) -> Result<Block, RunEnd> {
        let now = Instant::now();
        self.longest_block = self.longest_block.max(now - self.last);
        self.last = now;
        let config = &results.config;
        if self.warmup_left > 0 {
            self.warmup_left -= 1;
            return Ok(Block::WarmUp);
        }
        let (done, spent) = (self.done, now - self.start);
        let end = |why: fn(usize) -> RunEnd| Err(why(done));
        match config.repetitions {
            Some(repetitions) if done >= repetitions => return end(|blocks| RunEnd::Fixed { blocks }),
            Some(_) => {}
            None if done >= self.stopping.most_blocks => return end(|blocks| RunEnd::Most { blocks }),
            None if self.stopping.has_enough(config, &results.rows, done) => {
                return end(|blocks| RunEnd::Enough { blocks });
            }
            // One block is measured whatever the budget: a run that measured nothing is of no use to anyone.
            None if done > 0 && !Stopping::fits(config.budget(), spent, self.longest_block) => {
                return end(|blocks| RunEnd::Budget { blocks });
            }
            None => {}
        }
        self.done += 1;
        Ok(Block::Counted(done))
    }
}
