//! The order in which cells run, and the cells of a shard.

use std::fmt;
use std::str::FromStr;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::error::{Error, Result};

/// One of several parts of a matrix, for several machines or runs: every `count`-th cell, beginning with number `index`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Number of the shard, from 1 on.
    pub index: usize,
    /// Number of shards.
    pub count: usize,
}

impl Shard {
    /// The only shard of an undivided matrix.
    pub const WHOLE: Shard = Shard { index: 1, count: 1 };
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.count)
    }
}

impl FromStr for Shard {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parts = text.split_once('/').and_then(|(index, count)| Some((index.parse().ok()?, count.parse().ok()?)));
        match parts {
            Some((index, count)) if index >= 1 && index <= count => Ok(Shard { index, count }),
            _ => Err(Error::usage(format!("invalid shard '{text}': use I/N with I from 1 to N, such as 2/4"))),
        }
    }
}

/// The cells of `0..n` that belong to `shard`, in the order in which they run. The order is shuffled by `seed`, so that a drift
/// of the machine over hours does not look like an effect of one of the lists ([`crate::runner::schedule`] does the same
/// within a cell). A shard takes every `count`-th cell of that order, so that each shard has large and small cells.
pub fn order(n: usize, seed: u64, shard: Shard) -> Vec<usize> {
    let mut cells: Vec<usize> = (0..n).collect();
    cells.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    cells.into_iter().skip(shard.index - 1).step_by(shard.count).collect()
}
