//! Decides after each block whether another one follows.

use std::time::{Duration, Instant};

use crate::case::RunConfig;
use crate::results::ResultFile;
use crate::results::adaptive::{RunEnd, StoppingRule};

/// A block of all cases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Block {
    /// Its results are discarded.
    WarmUp,
    /// A measured block, numbered from 0 on.
    Measured(usize),
}

impl Block {
    /// The number of a measured block.
    pub fn number(self) -> Option<usize> {
        match self {
            Block::WarmUp => None,
            Block::Measured(index) => Some(index),
        }
    }
}

/// Yields blocks: a fixed number, or until the ratios are precise enough or the time is spent.
pub struct Pacing {
    warmup_left: usize,
    done: usize,
    start: Instant,
    last: Instant,
    longest_block: Duration,
    stopping: StoppingRule,
}

impl Pacing {
    /// Pacing of a run whose first block starts now. Its time counts from `start`.
    pub fn new(config: &RunConfig, start: Instant) -> Self {
        let (warmup_left, stopping) = (config.warmup, StoppingRule::default());
        Pacing { warmup_left, done: 0, start, last: Instant::now(), longest_block: Duration::ZERO, stopping }
    }

    /// The next block, given the `results` of the blocks before it.
    ///
    /// # Errors
    /// The reason to stop.
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
        match config.repetitions {
            Some(repetitions) if done >= repetitions => return Err(RunEnd::Fixed { blocks: done }),
            Some(_) => {}
            None if done >= self.stopping.max_blocks => return Err(RunEnd::MaxBlocks { blocks: done }),
            None if self.stopping.is_satisfied(config, &results.rows, done) => {
                return Err(RunEnd::Enough { blocks: done });
            }
            None => {
                if let Some(end) = self.stopping.out_of_time(config.budget(), spent, self.longest_block, done) {
                    return Err(end);
                }
            }
        }
        self.done += 1;
        Ok(Block::Measured(done))
    }
}
