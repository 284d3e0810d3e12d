//! The order in which cells run, and the cells of a shard.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::shard::Shard;

/// The cells of `0..n` that belong to `shard`, in the order in which they run. The order is shuffled by `seed`, so that a drift
/// of the machine over hours does not look like an effect of one of the lists ([`crate::runner::schedule`] does the same
/// within a cell). A shard takes every `count`-th cell of that order, so that each shard has large and small cells.
pub fn order(n: usize, seed: u64, shard: Shard) -> Vec<usize> {
    let mut cells: Vec<usize> = (0..n).collect();
    cells.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    cells.into_iter().skip(shard.index - 1).step_by(shard.count).collect()
}
