//! In which order cells run, and which of them a shard takes.

use std::fmt;
use std::str::FromStr;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::error::{Error, Result};

/// One of several machines, or runs, that share a matrix: every `of`-th cell from the `index`-th on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// From 1 on.
    pub index: usize,
    /// How many there are.
    pub of: usize,
}

impl Shard {
    /// All cells.
    pub const WHOLE: Shard = Shard { index: 1, of: 1 };
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.of)
    }
}

impl FromStr for Shard {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parts = text.split_once('/').and_then(|(index, of)| Some((index.parse().ok()?, of.parse().ok()?)));
        match parts {
            Some((index, of)) if index >= 1 && index <= of => Ok(Shard { index, of }),
            _ => Err(Error::usage(format!("'{text}' is no shard: write I/N with I from 1 to N, as in 2/4"))),
        }
    }
}

/// The cells `0..n` that `shard` takes, in the order in which they run: shuffled by `seed`, so that a drift of the machine
/// over the hours does not look like an effect of an axis of the file (see [`crate::runner::schedule`] for the same within a
/// cell). Shards take every n-th of the one order, so that each gets large and small cells.
pub fn order(n: usize, seed: u64, shard: Shard) -> Vec<usize> {
    let mut cells: Vec<usize> = (0..n).collect();
    cells.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    cells.into_iter().skip(shard.index - 1).step_by(shard.of).collect()
}
