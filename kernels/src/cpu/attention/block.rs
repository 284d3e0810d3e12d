//! Attention of the lanes of a task over one block of keys and values: scores, weights, outputs.
//!
//! All values are `f32`. Inner loops have constant bounds over arrays, so that the compiler keeps the arrays in
//! registers.

use crate::backend::ScoreRule;
use crate::cpu::math::{exp, soft_cap};

/// Lanes of a vector: 512 bits of `f32`.
pub const LANES: usize = 16;

/// Keys of a block. Blocks start at multiples of it, so that the block boundaries of a row depend on positions alone.
pub const KEYS: usize = 64;

/// Lanes that are updated in one pass over the values.
const TILE_LANES: usize = 4;

/// The keys of a block that a lane sees, as a range; empty where `from` is not below `to`.
#[derive(Clone, Copy)]
struct VisibleKeys {
    from: usize,
    to: usize,
}

/// One `f32` for each lane.
type LaneVector = [f32; LANES];

/// Keys and values of consecutive positions, widened to `f32`.
#[derive(Default)]
pub struct KeyBlock {
    /// Position of the first key.
    first: usize,
    len: usize,
    head_dim: usize,
    /// `[KEYS][head_dim]`. Keys beyond `len` have stale contents; their scores are masked.
    keys: Vec<f32>,
    /// `[KEYS][head_dim padded to vectors]`; the padding is zero.
    values: Vec<LaneVector>,
}

impl KeyBlock {
    /// Starts a block of `len` positions from `first`, which [`KeyBlock::set`] fills.
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

    /// Sets the key and the value at `index` of the block.
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

/// The queries of a task and the state of their online softmax.
#[derive(Default)]
pub struct QueryLanes {
    count: usize,
    head_dim: usize,
    soft_cap: Option<f32>,
    /// Position of each lane. Lanes beyond `count` have the position of the last one.
    positions: Vec<[u32; LANES]>,
    /// The first position that each lane sees.
    first_visible: Vec<[u32; LANES]>,
    /// `[vectors][head_dim]`: one element of all lanes of a vector.
    queries: Vec<LaneVector>,
    /// `[vectors]`: the largest score so far.
    max_scores: Vec<LaneVector>,
    /// `[vectors]`: the sum of the weights so far.
    weight_sums: Vec<LaneVector>,
    /// `[lanes][columns]`: the weighted sum of the values so far.
    outputs: Vec<LaneVector>,
    /// `[vectors][KEYS]`: the scores of the current block, then its weights.
    weights: Vec<LaneVector>,
}

impl QueryLanes {
    /// Starts `count` lanes at the positions `position(lane)`.
    #[inline(always)]
    pub fn begin(&mut self, count: usize, head_dim: usize, scores: ScoreRule, position: impl Fn(usize) -> usize) {
        let (vectors, columns) = (count.div_ceil(LANES), head_dim.div_ceil(LANES));
        (self.count, self.head_dim, self.soft_cap) = (count, head_dim, scores.soft_cap);
        let position = |lane: usize| position(lane.min(count.saturating_sub(1)));
        self.positions.clear();
        let vector_positions = |vector| std::array::from_fn(|lane| position(vector * LANES + lane) as u32);
        self.positions.extend((0..vectors).map(vector_positions));
        self.first_visible.clear();
        let first_visible = |position: u32| match scores.window {
            Some(window) => (position as usize + 1).saturating_sub(window) as u32,
            None => 0,
        };
        self.first_visible.extend(self.positions.iter().map(|positions| positions.map(first_visible)));
        for (state, len, value) in [
            (&mut self.queries, vectors * head_dim, 0.0),
            (&mut self.max_scores, vectors, f32::NEG_INFINITY),
            (&mut self.weight_sums, vectors, 0.0),
            (&mut self.outputs, vectors * LANES * columns, 0.0),
        ] {
            state.clear();
            state.resize(len, [value; LANES]);
        }
        self.weights.resize(vectors * KEYS, [0.0; LANES]);
    }

    /// Sets the scaled query of a lane.
    #[inline(always)]
    pub fn set_query(&mut self, lane: usize, query: impl Iterator<Item = f32>) {
        let first = lane / LANES * self.head_dim;
        for (out, value) in self.queries[first..first + self.head_dim].iter_mut().zip(query) {
            out[lane % LANES] = value;
        }
    }

    /// The output of a lane: the weighted mean of the visible values.
    #[inline(always)]
    pub fn output(&self, lane: usize) -> impl Iterator<Item = f32> + '_ {
        let columns = self.head_dim.div_ceil(LANES);
        let inverse = 1.0 / self.weight_sums[lane / LANES][lane % LANES];
        let accumulators = self.outputs[lane * columns..(lane + 1) * columns].as_flattened();
        accumulators[..self.head_dim].iter().map(move |acc| acc * inverse)
    }

    /// Processes a block. Blocks are passed in the order of their positions, from the first one that a lane sees.
    ///
    /// `WIDE` is for processors with 32 registers of 16 lanes. A tile there has 16 accumulators, enough independent chains to
    /// hide the latency of fused multiply-adds; with 16 registers of 8 lanes it has 8.
    #[inline(always)]
    pub fn attend<const WIDE: bool>(&mut self, block: &KeyBlock) {
        self.score::<WIDE>(block);
        for vector in 0..self.positions.len() {
            // Positions increase with the lanes, so the last lane decides whether any of them has reached the block, and the
            // first one whether all windows start after it.
            let is_reached = self.positions[vector][LANES - 1] as usize >= block.first;
            if is_reached && (self.first_visible[vector][0] as usize) < block.first + block.len {
                if let Some(cap) = self.soft_cap {
                    self.cap_scores(vector, cap, block);
                }
                self.update_online_softmax(vector, block);
            }
        }
        // Windows start later with each lane, so the last lane decides whether the window of any starts after the first key.
        let has_window = self.first_visible.last().is_some_and(|first| first[LANES - 1] as usize > block.first);
        match (has_window, WIDE) {
            (true, true) => self.add_block::<4, true>(block),
            (false, true) => self.add_block::<4, false>(block),
            (true, false) => self.add_block::<1, true>(block),
            (false, false) => self.add_block::<1, false>(block),
        }
    }

    /// The number of keys of the block up to the last one that a lane of `vector` sees.
    #[inline(always)]
    fn seen_keys(&self, vector: usize, block: &KeyBlock) -> usize {
        (self.positions[vector][LANES - 1] as usize + 1).saturating_sub(block.first).min(block.len)
    }

    /// `weights[vector][key] = query . key` for all lanes and the keys that a lane of the vector sees; unspecified for others.
    #[inline(always)]
    fn score<const WIDE: bool>(&mut self, block: &KeyBlock) {
        let vectors = self.positions.len();
        let mut vector = 0;
        if WIDE {
            while vector + 2 <= vectors {
                for key in (0..self.seen_keys(vector + 1, block)).step_by(8) {
                    self.score_tile::<2, 8>(vector, key, block);
                }
                vector += 2;
            }
        }
        for vector in vector..vectors {
            for key in (0..self.seen_keys(vector, block)).step_by(if WIDE { 8 } else { 4 }) {
                if WIDE {
                    self.score_tile::<1, 8>(vector, key, block);
                } else {
                    self.score_tile::<1, 4>(vector, key, block);
                }
            }
        }
    }

    /// Scores `K` keys for `V` vectors of lanes. Each score is one chain over the elements of the head.
    #[inline(always)]
    fn score_tile<const V: usize, const K: usize>(&mut self, vector: usize, key: usize, block: &KeyBlock) {
        let head_dim = self.head_dim;
        let mut accumulators = [[[0.0f32; LANES]; V]; K];
        let queries: [&[LaneVector]; V] =
            std::array::from_fn(|v| &self.queries[(vector + v) * head_dim..(vector + v + 1) * head_dim]);
        let keys: [&[f32]; K] = std::array::from_fn(|k| &block.keys[(key + k) * head_dim..(key + k + 1) * head_dim]);
        for element in 0..head_dim {
            // SAFETY: all slices have `head_dim` elements. With bounds checks on the keys their lengths would take the registers
            // of their pointers. A single vector is faster with the checks: without them the compiler gathers keys.
            let unchecked = |values: &[f32]| unsafe { *values.get_unchecked(element) };
            let queries: [LaneVector; V] = std::array::from_fn(|v| queries[v][element]);
            for k in 0..K {
                let key = if V == 1 { keys[k][element] } else { unchecked(keys[k]) };
                for v in 0..V {
                    for lane in 0..LANES {
                        accumulators[k][v][lane] = queries[v][lane].mul_add(key, accumulators[k][v][lane]);
                    }
                }
            }
        }
        for (k, accumulators) in accumulators.iter().enumerate() {
            for (v, accumulators) in accumulators.iter().enumerate() {
                self.weights[(vector + v) * KEYS + key + k] = *accumulators;
            }
        }
    }

    /// Caps the scores of a vector.
    #[inline(always)]
    fn cap_scores(&mut self, vector: usize, cap: f32, block: &KeyBlock) {
        let seen = self.seen_keys(vector, block);
        for scores in &mut self.weights[vector * KEYS..vector * KEYS + seen] {
            for score in scores {
                *score = soft_cap(*score, cap);
            }
        }
    }

    /// Converts the scores of a vector to weights `e^(score - max)`, and rescales its state to the new maximum.
    #[inline(always)]
    fn update_online_softmax(&mut self, vector: usize, block: &KeyBlock) {
        let seen = self.seen_keys(vector, block);
        let weights = &mut self.weights[vector * KEYS..vector * KEYS + seen];
        let positions = &self.positions[vector];
        let mut max_scores = self.max_scores[vector];
        // Causal mask: a row does not see positions after its own.
        if (positions[0] as usize) + 1 < block.first + seen {
            for (index, scores) in weights.iter_mut().enumerate() {
                let position = (block.first + index) as u32;
                for lane in 0..LANES {
                    let is_visible = position <= positions[lane];
                    scores[lane] = if is_visible { scores[lane] } else { f32::NEG_INFINITY };
                }
            }
        }
        // Sliding window: a row does not see positions before its window.
        let first_visible = &self.first_visible[vector];
        if first_visible[LANES - 1] as usize > block.first {
            for (index, scores) in weights.iter_mut().enumerate() {
                let position = (block.first + index) as u32;
                for lane in 0..LANES {
                    let is_visible = position >= first_visible[lane];
                    scores[lane] = if is_visible { scores[lane] } else { f32::NEG_INFINITY };
                }
            }
        }
        for scores in weights.iter() {
            for lane in 0..LANES {
                max_scores[lane] = if scores[lane] > max_scores[lane] { scores[lane] } else { max_scores[lane] };
            }
        }
        // A lane that has seen no key yet has the maximum minus infinity, and the difference of two infinities is NaN. With 0
        // in its place the weights and the factor are 0, and its sums and outputs stay 0.
        let mut references = max_scores;
        for reference in &mut references {
            *reference = if *reference == f32::NEG_INFINITY { 0.0 } else { *reference };
        }
        let mut factors = self.max_scores[vector];
        for lane in 0..LANES {
            // In the first block that a lane sees the old maximum is minus infinity and the factor 0; the sums are still 0.
            factors[lane] = exp(factors[lane] - references[lane]);
        }
        let mut weight_sums = self.weight_sums[vector];
        for lane in 0..LANES {
            weight_sums[lane] *= factors[lane];
        }
        for scores in weights.iter_mut() {
            for lane in 0..LANES {
                scores[lane] = exp(scores[lane] - references[lane]);
                weight_sums[lane] += scores[lane];
            }
        }
        (self.max_scores[vector], self.weight_sums[vector]) = (max_scores, weight_sums);
        // Multiplying by 1 changes no bit, and after the first blocks the maximum seldom changes.
        if block.first > 0 && factors != [1.0; LANES] {
            let columns = self.head_dim.div_ceil(LANES);
            let outputs = &mut self.outputs[vector * LANES * columns..(vector + 1) * LANES * columns];
            for (outputs, factor) in outputs.chunks_exact_mut(columns).zip(factors) {
                outputs.as_flattened_mut().iter_mut().for_each(|output| *output *= factor);
            }
        }
    }

    /// Adds the weighted values of the block to the outputs, `C` vectors of columns in one pass. `WINDOW` is whether the window of a lane starts after the
    /// first key of the block.
    #[inline(always)]
    fn add_block<const C: usize, const WINDOW: bool>(&mut self, block: &KeyBlock) {
        let columns = self.head_dim.div_ceil(LANES);
        for lane in (0..self.count / TILE_LANES * TILE_LANES).step_by(TILE_LANES) {
            self.add_values::<TILE_LANES, C, WINDOW>(lane, columns, block);
        }
        for lane in self.count / TILE_LANES * TILE_LANES..self.count {
            self.add_values::<1, C, WINDOW>(lane, columns, block);
        }
    }

    /// Adds the weighted values of the block to the outputs of `L` lanes from `lane`. Each output is one chain over the
    /// visible positions.
    #[inline(always)]
    fn add_values<const L: usize, const C: usize, const WINDOW: bool>(
        &mut self,
        lane: usize,
        columns: usize,
        block: &KeyBlock,
    ) {
        // The visible keys of each lane. Masked keys have weight 0, but 0 times an infinite value would be NaN.
        let visible: [VisibleKeys; L] = std::array::from_fn(|l| {
            let (vector, lane) = ((lane + l) / LANES, (lane + l) % LANES);
            let position = self.positions[vector][lane] as usize;
            let first = if WINDOW { self.first_visible[vector][lane] as usize } else { 0 };
            VisibleKeys {
                from: first.saturating_sub(block.first).min(block.len),
                to: (position + 1).saturating_sub(block.first).min(block.len),
            }
        });
        let whole = columns / C * C;
        for column in (0..whole).step_by(C) {
            self.add_tile::<L, C, WINDOW>(lane, column, columns, &visible, block);
        }
        for column in whole..columns {
            self.add_tile::<L, 1, WINDOW>(lane, column, columns, &visible, block);
        }
    }

    #[inline(always)]
    fn add_tile<const L: usize, const C: usize, const WINDOW: bool>(
        &mut self,
        lane: usize,
        column: usize,
        columns: usize,
        visible: &[VisibleKeys; L],
        block: &KeyBlock,
    ) {
        let weights: [(&[LaneVector], usize); L] = std::array::from_fn(|l| {
            let first = (lane + l) / LANES * KEYS;
            (&self.weights[first..first + block.len], (lane + l) % LANES)
        });
        // Filled in loops, which keep the arrays in registers.
        let mut accumulators = [[[0.0f32; LANES]; C]; L];
        for (l, accumulators) in accumulators.iter_mut().enumerate() {
            let outputs = &self.outputs[(lane + l) * columns + column..(lane + l) * columns + column + C];
            for (accumulators, outputs) in accumulators.iter_mut().zip(outputs) {
                for (acc, output) in accumulators.iter_mut().zip(outputs) {
                    *acc = *output;
                }
            }
        }
        let values = |key: usize| -> [LaneVector; C] {
            let row = &block.values[key * columns + column..key * columns + column + C];
            std::array::from_fn(|c| row[c])
        };
        // Positions increase with the lanes, so the first lane sees the fewest keys at the end of the block and the last lane
        // the fewest at its start. Between them are the keys that all lanes see, where there are any.
        let shared_to = visible[0].to;
        let shared_from = if WINDOW { visible[L - 1].from.min(shared_to) } else { 0 };
        if WINDOW {
            for l in 0..L {
                for key in visible[l].from..shared_from {
                    let (values, weight) = (values(key), weights[l].0[key][weights[l].1]);
                    for c in 0..C {
                        for element in 0..LANES {
                            accumulators[l][c][element] =
                                weight.mul_add(values[c][element], accumulators[l][c][element]);
                        }
                    }
                }
            }
        }
        for key in shared_from..shared_to {
            let values = values(key);
            for l in 0..L {
                let weight = weights[l].0[key][weights[l].1];
                for c in 0..C {
                    for element in 0..LANES {
                        accumulators[l][c][element] = weight.mul_add(values[c][element], accumulators[l][c][element]);
                    }
                }
            }
        }
        for l in 0..L {
            let from = if WINDOW { visible[l].from.max(shared_to) } else { shared_to };
            for key in from..visible[l].to {
                let (values, weight) = (values(key), weights[l].0[key][weights[l].1]);
                for c in 0..C {
                    for element in 0..LANES {
                        accumulators[l][c][element] = weight.mul_add(values[c][element], accumulators[l][c][element]);
                    }
                }
            }
        }
        for (l, accumulators) in accumulators.iter().enumerate() {
            for (c, acc) in accumulators.iter().enumerate() {
                self.outputs[(lane + l) * columns + column + c] = *acc;
            }
        }
    }
}
