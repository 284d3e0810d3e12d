//! One block of keys and values against the lanes of a task: scores, weights, outputs.
//!
//! Everything is `f32`. Inner loops have constant bounds over arrays, so that the compiler keeps them in registers.

use crate::cpu::math::exp;

/// Lanes of a vector: 512 bits of `f32`.
pub const LANES: usize = 16;

/// Keys of a block. Blocks begin at multiples of it, so that where a row's sums are cut depends on positions alone.
pub const KEYS: usize = 64;

/// Keys that one pass over a pair of query vectors scores.
const TILE_KEYS: usize = 4;
/// The same for a single vector, whose chains would be too few to fill the processor's pipeline.
const SINGLE_KEYS: usize = 8;
/// Lanes and vectors of columns that one pass over the values serves.
const TILE_LANES: usize = 4;
const TILE_COLUMNS: usize = 4;

type Vector = [f32; LANES];

/// Keys and values of consecutive positions, widened.
#[derive(Default)]
pub struct Block {
    /// Position of the first.
    first: usize,
    len: usize,
    head_dim: usize,
    /// `[KEYS][head_dim]`. Keys past `len` hold whatever they did; their scores are masked.
    keys: Vec<f32>,
    /// `[KEYS][head_dim padded to vectors]`; the padding is zero.
    values: Vec<Vector>,
}

impl Block {
    /// A block of `len` positions from `first` on, to be filled by [`Block::set`].
    #[inline(always)]
    pub fn begin(&mut self, first: usize, len: usize, head_dim: usize) {
        let columns = head_dim.div_ceil(LANES);
        if self.head_dim != head_dim {
            self.keys.clear();
            self.values.clear();
        }
        self.keys.resize(KEYS * head_dim, 0.0);
        self.values.resize(KEYS * columns, [0.0; LANES]);
        (self.first, self.len, self.head_dim) = (first, len, head_dim);
    }

    /// The key and the value of the position at `index`.
    #[inline(always)]
    pub fn set(&mut self, index: usize, key: impl Iterator<Item = f32>, value: impl Iterator<Item = f32>) {
        let head_dim = self.head_dim;
        let columns = head_dim.div_ceil(LANES);
        for (out, key) in self.keys[index * head_dim..(index + 1) * head_dim].iter_mut().zip(key) {
            *out = key;
        }
        let values = &mut self.values[index * columns..(index + 1) * columns];
        for (out, value) in values.as_flattened_mut()[..head_dim].iter_mut().zip(value) {
            *out = value;
        }
    }
}

/// Query rows and what has come of them so far.
#[derive(Default)]
pub struct Lanes {
    count: usize,
    head_dim: usize,
    /// Position of each lane; those past `count` are where the last one is.
    positions: Vec<[u32; LANES]>,
    /// `[vectors][head_dim]`: element by element, all lanes of a vector side by side.
    queries: Vec<Vector>,
    /// Largest score so far.
    largest: Vec<Vector>,
    /// Sum of the weights so far.
    totals: Vec<Vector>,
    /// `[lanes][columns]`: weighted sum of the values so far.
    outputs: Vec<Vector>,
    /// `[vectors][KEYS]`: scores of the block at hand, then its weights.
    weights: Vec<Vector>,
}

impl Lanes {
    /// `count` lanes that have seen nothing, at the positions that `position` tells.
    #[inline(always)]
    pub fn begin(&mut self, count: usize, head_dim: usize, position: impl Fn(usize) -> usize) {
        let (vectors, columns) = (count.div_ceil(LANES), head_dim.div_ceil(LANES));
        (self.count, self.head_dim) = (count, head_dim);
        let position = |lane: usize| position(lane.min(count.saturating_sub(1)));
        self.positions.clear();
        let of_vector = |vector| std::array::from_fn(|lane| position(vector * LANES + lane) as u32);
        self.positions.extend((0..vectors).map(of_vector));
        for (all, len, value) in [
            (&mut self.queries, vectors * head_dim, 0.0),
            (&mut self.largest, vectors, f32::NEG_INFINITY),
            (&mut self.totals, vectors, 0.0),
            (&mut self.outputs, vectors * LANES * columns, 0.0),
        ] {
            all.clear();
            all.resize(len, [value; LANES]);
        }
        self.weights.resize(vectors * KEYS, [0.0; LANES]);
    }

    /// The query of a lane, scaled.
    #[inline(always)]
    pub fn set_query(&mut self, lane: usize, query: impl Iterator<Item = f32>) {
        let first = lane / LANES * self.head_dim;
        for (out, value) in self.queries[first..first + self.head_dim].iter_mut().zip(query) {
            out[lane % LANES] = value;
        }
    }

    /// What came of a lane: the weighted mean of the values it saw.
    #[inline(always)]
    pub fn output(&self, lane: usize) -> impl Iterator<Item = f32> + '_ {
        let columns = self.head_dim.div_ceil(LANES);
        let inverse = 1.0 / self.totals[lane / LANES][lane % LANES];
        let sums = self.outputs[lane * columns..(lane + 1) * columns].as_flattened();
        sums[..self.head_dim].iter().map(move |sum| sum * inverse)
    }

    /// Takes in a block; blocks come in the order of their positions, from 0 on.
    #[inline(always)]
    pub fn attend(&mut self, block: &Block) {
        self.score(block);
        for vector in 0..self.positions.len() {
            // Positions grow with the lanes.
            if self.positions[vector][LANES - 1] as usize >= block.first {
                self.weigh(vector, block);
            }
        }
        let columns = self.head_dim.div_ceil(LANES);
        for lane in (0..self.count / TILE_LANES * TILE_LANES).step_by(TILE_LANES) {
            self.add_values::<TILE_LANES>(lane, columns, block);
        }
        for lane in self.count / TILE_LANES * TILE_LANES..self.count {
            self.add_values::<1>(lane, columns, block);
        }
    }

    /// `weights[vector][key] = query . key` for all lanes; keys past the block's come out as anything.
    #[inline(always)]
    fn score(&mut self, block: &Block) {
        let vectors = self.positions.len();
        for vector in (0..vectors / 2 * 2).step_by(2) {
            for key in (0..block.len).step_by(TILE_KEYS) {
                self.score_tile::<2, TILE_KEYS>(vector, key, block);
            }
        }
        if vectors % 2 == 1 {
            for key in (0..block.len).step_by(SINGLE_KEYS) {
                self.score_tile::<1, SINGLE_KEYS>(vectors - 1, key, block);
            }
        }
    }

    /// Scores `K` keys for `V` vectors of lanes: each score one chain over the head's elements.
    #[inline(always)]
    fn score_tile<const V: usize, const K: usize>(&mut self, vector: usize, key: usize, block: &Block) {
        let head_dim = self.head_dim;
        let mut sums = [[[0.0f32; LANES]; V]; K];
        let queries: [&[Vector]; V] =
            std::array::from_fn(|v| &self.queries[(vector + v) * head_dim..(vector + v + 1) * head_dim]);
        let keys: [&[f32]; K] = std::array::from_fn(|k| &block.keys[(key + k) * head_dim..(key + k + 1) * head_dim]);
        for element in 0..head_dim {
            let queries: [Vector; V] = std::array::from_fn(|v| queries[v][element]);
            for k in 0..K {
                let key = keys[k][element];
                for v in 0..V {
                    for lane in 0..LANES {
                        sums[k][v][lane] = queries[v][lane].mul_add(key, sums[k][v][lane]);
                    }
                }
            }
        }
        for (k, sums) in sums.iter().enumerate() {
            for (v, sums) in sums.iter().enumerate() {
                self.weights[(vector + v) * KEYS + key + k] = *sums;
            }
        }
    }

    /// Turns a vector's scores into weights `e^(score - largest)`, and brings sums and outputs to the new largest score.
    #[inline(always)]
    fn weigh(&mut self, vector: usize, block: &Block) {
        let weights = &mut self.weights[vector * KEYS..vector * KEYS + block.len];
        let positions = &self.positions[vector];
        let mut largest = self.largest[vector];
        // Rows see no position behind their own.
        if (positions[0] as usize) < block.first + block.len - 1 {
            for (index, scores) in weights.iter_mut().enumerate() {
                let position = (block.first + index) as u32;
                for lane in 0..LANES {
                    let seen = position <= positions[lane];
                    scores[lane] = if seen { scores[lane] } else { f32::NEG_INFINITY };
                }
            }
        }
        for scores in weights.iter() {
            for lane in 0..LANES {
                largest[lane] = if scores[lane] > largest[lane] { scores[lane] } else { largest[lane] };
            }
        }
        let mut factors = self.largest[vector];
        for lane in 0..LANES {
            // At first the old largest is minus infinity and the factor 0; nothing was summed yet.
            factors[lane] = exp(factors[lane] - largest[lane]);
        }
        let mut totals = self.totals[vector];
        for lane in 0..LANES {
            totals[lane] *= factors[lane];
        }
        for scores in weights.iter_mut() {
            for lane in 0..LANES {
                scores[lane] = exp(scores[lane] - largest[lane]);
                totals[lane] += scores[lane];
            }
        }
        (self.largest[vector], self.totals[vector]) = (largest, totals);
        // A factor of 1 changes no bit, and after the first blocks the largest score seldom grows.
        if block.first > 0 && factors != [1.0; LANES] {
            let columns = self.head_dim.div_ceil(LANES);
            let outputs = &mut self.outputs[vector * LANES * columns..(vector + 1) * LANES * columns];
            for (outputs, factor) in outputs.chunks_exact_mut(columns).zip(factors) {
                outputs.as_flattened_mut().iter_mut().for_each(|output| *output *= factor);
            }
        }
    }

    /// Adds the block's values to the outputs of `L` lanes from `lane` on, each one chain over the positions that it sees.
    #[inline(always)]
    fn add_values<const L: usize>(&mut self, lane: usize, columns: usize, block: &Block) {
        // How many keys of the block each lane sees. What it does not see has weight 0, but 0 times a value that
        // overflowed would not be 0.
        let seen: [usize; L] = std::array::from_fn(|l| {
            let position = self.positions[(lane + l) / LANES][(lane + l) % LANES];
            (position as usize + 1).saturating_sub(block.first).min(block.len)
        });
        let whole = columns / TILE_COLUMNS * TILE_COLUMNS;
        for column in (0..whole).step_by(TILE_COLUMNS) {
            self.add_tile::<L, TILE_COLUMNS>(lane, column, columns, &seen, block);
        }
        for column in whole..columns {
            self.add_tile::<L, 1>(lane, column, columns, &seen, block);
        }
    }

    #[inline(always)]
    fn add_tile<const L: usize, const C: usize>(
        &mut self,
        lane: usize,
        column: usize,
        columns: usize,
        seen: &[usize; L],
        block: &Block,
    ) {
        let weights: [(&[Vector], usize); L] = std::array::from_fn(|l| {
            let first = (lane + l) / LANES * KEYS;
            (&self.weights[first..first + block.len], (lane + l) % LANES)
        });
        let mut sums: [[Vector; C]; L] =
            std::array::from_fn(|l| std::array::from_fn(|c| self.outputs[(lane + l) * columns + column + c]));
        let values = |key: usize| -> [Vector; C] {
            let row = &block.values[key * columns + column..key * columns + column + C];
            std::array::from_fn(|c| row[c])
        };
        // Positions grow with the lanes, so the first lane sees the fewest keys.
        for key in 0..seen[0] {
            let values = values(key);
            for l in 0..L {
                let weight = weights[l].0[key][weights[l].1];
                for c in 0..C {
                    for element in 0..LANES {
                        sums[l][c][element] = weight.mul_add(values[c][element], sums[l][c][element]);
                    }
                }
            }
        }
        for l in 0..L {
            for key in seen[0]..seen[l] {
                let (values, weight) = (values(key), weights[l].0[key][weights[l].1]);
                for c in 0..C {
                    for element in 0..LANES {
                        sums[l][c][element] = weight.mul_add(values[c][element], sums[l][c][element]);
                    }
                }
            }
        }
        for (l, sums) in sums.iter().enumerate() {
            for (c, sum) in sums.iter().enumerate() {
                self.outputs[(lane + l) * columns + column + c] = *sum;
            }
        }
    }
}
