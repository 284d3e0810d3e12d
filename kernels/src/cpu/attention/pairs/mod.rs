//! Attention in bf16 on dot products of pairs: `vdpbf16ps` and `tdpbf16ps`.
//!
//! Lanes and blocks of keys are those of [`super`]. Scores `[key][lane]` are the matmul of keys and queries, and outputs
//! `[element][lane]` that of values and weights, so that a lane is a column of both: maxima, sums and corrections of
//! the online softmax need no exchange between the lanes of a vector, and no score is transposed. Keys and values are packed
//! once for all lanes of a task.
//!
//! A weight is rounded to bf16 for its matmul, and the sum of the weights adds the rounded ones. A key that a lane does not see
//! has the score minus infinity and the weight 0, whose term changes no accumulator; values that are not finite are left
//! out ([`PairTask::add_without_masked`]). Therefore the bits of a lane do not depend on which masked keys its tile has.

use std::ops::Range;

use half::bf16;

use self::pack::KeyValueBlock;
use self::softmax::{Exponent, VectorState};
use super::block::LANES;
use super::{AttentionInputs, AttentionTask};

mod amx;
mod dots;
mod orders;
mod pack;
mod softmax;

pub(super) use amx::attend_amx;
pub(super) use dots::attend_dots;

/// Keys of a block, which starts at a multiple of it.
const KEYS: usize = 64;

/// Keys of a tile. Tiles without a visible key are skipped.
const TILE_KEYS: usize = 16;

/// The vectors of lanes of a task, at most, unless a single row has more. The more, the fewer times keys and values are
/// packed. With heads of 128 elements their queries and outputs take 288 KiB of the L2 cache.
pub(super) const MAX_VECTORS: usize = 24;

/// A cache line: 16 lanes of `f32`, or of pairs of bf16.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; LANES]);

const ZEROS: Line = Line([0.0; LANES]);

/// Working memory of a task.
#[derive(Default)]
pub(super) struct PairScratch {
    /// The row of `keys_values` of each position from the first block on.
    key_rows: Vec<usize>,
    lanes: Vec<LanePlace>,
    /// `[vectors][pairs]`: one pair of elements of all lanes of a vector.
    queries: Vec<Line>,
    /// `[vectors][elements]`: the weighted sums of the values so far.
    outputs: Vec<Line>,
    states: Vec<VectorState>,
    block: KeyValueBlock,
    /// `[vectors of a group][KEYS]`: the scores of the current block; then, in the first half, its weights in pairs of keys.
    scores: Vec<Line>,
    repair: RepairScratch,
}

/// The place of the query of a lane and of its output: head `i % group` of row `i / group` for lane `i`.
struct LanePlace {
    row: usize,
    /// The first column of the head.
    column: usize,
}

/// Working memory of [`PairTask::add_without_masked`].
#[derive(Default)]
struct RepairScratch {
    values: Vec<Line>,
    before: Vec<Line>,
    outputs: Vec<Line>,
}

/// The left operand of a matmul of pairs.
#[derive(Clone, Copy)]
struct PairRows {
    start: *const u32,
    /// Words from a row to the next one, or from a pair to the next one where rows are adjacent.
    stride: usize,
    /// A multiple of [`PairTiles::ROWS`].
    rows: usize,
    /// A multiple of [`PairTiles::PAIRS`].
    pairs: usize,
}

/// The matmuls of an instruction set: `c[v][row][lane] = sum over pairs of a[row][pair] . b[v][pair][lane]`.
///
/// An accumulator depends on its row and its lane alone, whatever `V` is.
trait PairTiles {
    /// Vectors of lanes of a matmul, at most.
    const GROUP: usize;
    /// Rows of a tile.
    const ROWS: usize;
    /// Pairs of a step.
    const PAIRS: usize;
    /// Whether values are packed as `[element][key pair]`, else as `[key pair][element]`.
    const VALUES_BY_ELEMENT: bool;

    /// Sets `c`, or adds to it. `a` is `[row][pair]`, or `[pair][row]` with `ADD` unless [`PairTiles::VALUES_BY_ELEMENT`].
    ///
    /// # Safety
    /// The processor has the instructions, and the operands have the sizes of `a`.
    unsafe fn multiply<const V: usize, const ADD: bool>(a: PairRows, b: [*const Line; V], c: [*mut Line; V]);
}

/// [`PairTiles::multiply`] for the run-time number of vectors, up to [`PairTiles::GROUP`].
///
/// # Safety
/// As [`PairTiles::multiply`].
#[inline(always)]
unsafe fn multiply_group<T: PairTiles, const ADD: bool>(
    count: usize,
    a: PairRows,
    b: impl Fn(usize) -> *const Line,
    c: impl Fn(usize) -> *mut Line,
) {
    // SAFETY: the caller guarantees the instructions and the sizes.
    unsafe {
        match count {
            1 => T::multiply::<1, ADD>(a, [b(0)], [c(0)]),
            2 => T::multiply::<2, ADD>(a, [b(0), b(1)], [c(0), c(1)]),
            3 => T::multiply::<3, ADD>(a, [b(0), b(1), b(2)], [c(0), c(1), c(2)]),
            _ => {}
        }
    }
}

/// A task and the sizes of its operands.
struct PairTask<'a> {
    inputs: &'a AttentionInputs<'a, bf16>,
    task: &'a AttentionTask<'a>,
    /// Pairs of elements of a head, padded to whole cache lines of 32 elements.
    padded_pairs: usize,
    /// Pairs of elements of a head that are multiplied.
    pairs: usize,
    /// Elements of an output that are computed.
    elements: usize,
}

/// A group of vectors of a task and the keys of a block that any of its lanes sees, rounded outwards to tiles.
struct VectorGroup {
    first: usize,
    count: usize,
    keys: Range<usize>,
}

/// Computes the output rows of `task`.
///
/// # Safety
/// The processor has the instructions of `T` and AVX-512 BF16.
#[inline(always)]
unsafe fn attend<T: PairTiles>(
    inputs: &AttentionInputs<'_, bf16>,
    task: &AttentionTask<'_>,
    scratch: &mut PairScratch,
) {
    let head_dim = inputs.shape.head_dim;
    let padded_pairs = head_dim.next_multiple_of(32) / 2;
    let pairs = head_dim.div_ceil(2).next_multiple_of(T::PAIRS);
    let pair_task = PairTask { inputs, task, padded_pairs, pairs, elements: head_dim.next_multiple_of(T::ROWS) };
    // SAFETY: the caller guarantees the instructions.
    unsafe { pair_task.run::<T>(scratch) }
}

impl PairTask<'_> {
    /// # Safety
    /// As [`attend`].
    #[inline(always)]
    unsafe fn run<T: PairTiles>(&self, scratch: &mut PairScratch) {
        let PairScratch { key_rows, lanes, queries, outputs, states, block, scores, repair } = scratch;
        let (AttentionInputs { scores: rule, shape, .. }, task) = (self.inputs, self.task);
        let first_block = task.collect_key_rows(rule.window, KEYS, key_rows);
        let (first_row, group) = (task.segment.query_row + task.first, self.inputs.group());
        lanes.clear();
        lanes.extend((first_row..first_row + task.rows).flat_map(|row| {
            let heads = task.kv_head * group..(task.kv_head + 1) * group;
            heads.map(move |head| LanePlace { row, column: head * shape.head_dim })
        }));
        let (pairs, elements) = (self.padded_pairs, 2 * self.padded_pairs);
        let vectors = lanes.len().div_ceil(LANES);
        let exponent = Exponent::of(*rule);
        queries.resize(vectors * pairs, ZEROS);
        outputs.clear();
        outputs.resize(vectors * elements, ZEROS);
        scores.resize(T::GROUP * KEYS, ZEROS);
        block.resize(pairs);
        states.clear();
        states.extend(lanes.chunks(LANES).map(|lanes| {
            let position = |lane: &LanePlace| lane.row - first_row + task.first_position();
            // Lanes without a query have the position of the last one.
            let mut positions = [lanes.last().map_or(0, position); LANES];
            positions.iter_mut().zip(lanes).for_each(|(out, lane)| *out = position(lane));
            VectorState::new(positions, rule.window)
        }));
        // SAFETY: the caller guarantees the instructions, and the buffers have the sizes of the vectors.
        unsafe {
            for (lanes, queries) in lanes.chunks(LANES).zip(queries.chunks_exact_mut(pairs)) {
                self.pack_queries(lanes, queries);
            }
            for first in (0..key_rows.len()).step_by(KEYS) {
                let rows = &key_rows[first..key_rows.len().min(first + KEYS)];
                let first_key = first_block + first;
                self.pack_block::<T>(rows, block);
                for first in (0..vectors).step_by(T::GROUP) {
                    let count = T::GROUP.min(vectors - first);
                    let keys = visible_tiles(&states[first..first + count], first_key, rows.len());
                    if keys.is_empty() {
                        continue;
                    }
                    let group = VectorGroup { first, count, keys };
                    self.set_scores::<T>(&group, block, queries, scores);
                    for vector in 0..count {
                        let outputs = &mut outputs[(first + vector) * elements..(first + vector + 1) * elements];
                        let scores = &mut scores[vector * KEYS..(vector + 1) * KEYS];
                        let state = &mut states[first + vector];
                        softmax::update(scores, group.keys.clone(), first_key, exponent, state, outputs);
                        clear_padding::<T>(scores, &group.keys);
                    }
                    let states = &states[first..first + count];
                    let is_masked = states.iter().any(|state| state.masks(first_key, &group.keys));
                    if is_masked && !block.is_finite() {
                        self.add_without_masked::<T>(&group, first_key, block, states, scores, outputs, repair);
                    } else {
                        self.add_values::<T>(&group, block.values(), scores, outputs);
                    }
                }
            }
            for ((lanes, state), outputs) in lanes.chunks(LANES).zip(states).zip(outputs.chunks_exact(elements)) {
                self.store_outputs(lanes, state, outputs);
            }
        }
    }

    /// The scores of a group, without scale.
    ///
    /// # Safety
    /// As [`attend`]; the buffers have the sizes of the vectors.
    #[inline(always)]
    unsafe fn set_scores<T: PairTiles>(
        &self,
        group: &VectorGroup,
        block: &KeyValueBlock,
        queries: &[Line],
        scores: &mut [Line],
    ) {
        let keys = &block.keys()[group.keys.start * self.padded_pairs / LANES..];
        let (rows, stride) = (group.keys.len(), self.padded_pairs);
        assert!(keys.len() * LANES >= rows * stride && self.pairs <= stride && scores.len() >= group.count * KEYS);
        let a = PairRows { start: keys.as_ptr().cast(), stride, rows, pairs: self.pairs };
        let queries = &queries[group.first * self.padded_pairs..(group.first + group.count) * self.padded_pairs];
        let (b, c) = (queries.as_ptr(), scores.as_mut_ptr());
        // SAFETY: the caller guarantees the instructions; the operands have the asserted sizes.
        unsafe {
            let b = |vector: usize| b.add(vector * self.padded_pairs);
            let c = |vector: usize| c.add(vector * KEYS + group.keys.start);
            multiply_group::<T, false>(group.count, a, b, c);
        }
    }

    /// Adds the weighted values to the outputs of a group.
    ///
    /// # Safety
    /// As [`attend`]; the buffers have the sizes of the vectors.
    #[inline(always)]
    unsafe fn add_values<T: PairTiles>(
        &self,
        group: &VectorGroup,
        values: &[Line],
        weights: &[Line],
        outputs: &mut [Line],
    ) {
        let step = 2 * T::PAIRS;
        let pairs = group.keys.start / step * T::PAIRS..group.keys.end.div_ceil(step) * T::PAIRS;
        let elements = 2 * self.padded_pairs;
        let stride = if T::VALUES_BY_ELEMENT { KEYS / 2 } else { elements };
        let skipped = if T::VALUES_BY_ELEMENT { pairs.start } else { pairs.start * stride };
        assert!(values.len() * LANES >= elements * KEYS / 2 && pairs.end <= KEYS / 2 && self.elements <= elements);
        let outputs = &mut outputs[group.first * elements..(group.first + group.count) * elements];
        assert!(weights.len() >= group.count * KEYS);
        let (b, c) = (weights.as_ptr(), outputs.as_mut_ptr());
        // SAFETY: the caller guarantees the instructions; the operands have the asserted sizes.
        unsafe {
            let start = values.as_ptr().cast::<u32>().add(skipped);
            let a = PairRows { start, stride, rows: self.elements, pairs: pairs.len() };
            let b = |vector: usize| b.add(vector * KEYS + pairs.start);
            let c = |vector: usize| c.add(vector * elements);
            multiply_group::<T, true>(group.count, a, b, c);
        }
    }

    /// As [`PairTask::add_values`], for a block with a value that is not finite: 0 times it would be NaN in lanes that do not
    /// see it. Each lane is computed with the values that it does not see set to 0, in the same order of accumulation.
    ///
    /// # Safety
    /// As [`PairTask::add_values`].
    #[cold]
    #[inline(never)]
    #[allow(clippy::too_many_arguments)] // The state of a block.
    unsafe fn add_without_masked<T: PairTiles>(
        &self,
        group: &VectorGroup,
        first_key: usize,
        block: &KeyValueBlock,
        states: &[VectorState],
        weights: &[Line],
        outputs: &mut [Line],
        repair: &mut RepairScratch,
    ) {
        let elements = 2 * self.padded_pairs;
        for (vector, state) in states.iter().enumerate() {
            let one = VectorGroup { first: 0, count: 1, keys: group.keys.clone() };
            let from = (group.first + vector) * elements;
            let outputs = &mut outputs[from..from + elements];
            repair.before.clear();
            repair.before.extend_from_slice(outputs);
            for lane in 0..LANES {
                repair.values.clear();
                repair.values.extend_from_slice(block.values());
                let visible = state.visible(lane, first_key);
                for key in (0..KEYS).filter(|key| !visible.contains(key)) {
                    pack::clear_key::<T>(&mut repair.values, key, elements);
                }
                repair.outputs.clear();
                repair.outputs.extend_from_slice(&repair.before);
                let weights = &weights[vector * KEYS..(vector + 1) * KEYS];
                // SAFETY: as for `add_values`, with one vector.
                unsafe { self.add_values::<T>(&one, &repair.values, weights, &mut repair.outputs) };
                for (output, repaired) in outputs.iter_mut().zip(&repair.outputs) {
                    output.0[lane] = repaired.0[lane];
                }
            }
        }
    }
}

/// The tiles of a block of `len` keys from position `first_key` that a lane of consecutive vectors sees, as a range of keys.
#[inline(always)]
fn visible_tiles(states: &[VectorState], first_key: usize, len: usize) -> Range<usize> {
    let (Some(first), Some(last)) = (states.first(), states.last()) else { return 0..0 };
    // Positions and windows increase with the lanes.
    let from = first.first_visible().saturating_sub(first_key) / TILE_KEYS * TILE_KEYS;
    let to = (last.last_position() + 1).saturating_sub(first_key).min(len).next_multiple_of(TILE_KEYS);
    from..to
}

/// Clears the weights of the keys that a step of [`PairTiles::PAIRS`] has besides `keys`.
#[inline(always)]
fn clear_padding<T: PairTiles>(weights: &mut [Line], keys: &Range<usize>) {
    weights[keys.start / 2 / T::PAIRS * T::PAIRS..keys.start / 2].fill(ZEROS);
    weights[keys.end / 2..(keys.end / 2).next_multiple_of(T::PAIRS)].fill(ZEROS);
}
