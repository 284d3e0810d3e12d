//! Causal attention over ragged rows and prefix-tree nodes, by blocks of keys with an online softmax (Milakov and
//! Gimelshein 2018; Dao et al. 2022).
//!
//! A task is a range of rows of one segment and one key/value head. Its *lanes* are those rows times the query heads of
//! the group, adjacent in vectors, so that each key element is used for all of them and keys need no transpose. Lanes
//! do not mix, and the block boundaries depend on positions alone: a score is one chain over the elements of the head,
//! a sum of weights and an output are one chain over the visible positions. The bits of a row therefore depend on its
//! own sequence alone. A block without a visible key for a lane leaves the state of the lane as it is, so that it makes no
//! difference whether other lanes of the task need the block.

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use self::block::{KeyBlock, LANES, QueryLanes};
use super::gemm::epilogue::OutputRows;
use super::isa::{Isa, dispatch};
use super::tensor::{CpuTensor, Element, with_element};
use crate::backend::{AttentionLayout, AttentionSegment, AttentionShape, ScoreRule};
use crate::dtype::DType;

mod block;
#[cfg(target_arch = "x86_64")]
mod pairs;

/// The maximum number of vectors of lanes of a task of fused multiply-adds, unless a single row has more: their outputs and
/// a block of keys and values fit the L2 cache.
const MAX_VECTORS: usize = 8;

/// Vectors of lanes of a task for which packing a block of keys and values is still worth it.
const MIN_VECTORS: usize = 4;

/// Tasks of a thread, if there are enough rows, to balance unequal ones.
const TASKS_PER_THREAD: usize = 4;

/// `out = softmax(scores of query keys^T) values`, causal, for the query rows of the segments.
pub fn attention(
    isa: Isa,
    query: &CpuTensor,
    keys_values: &CpuTensor,
    layout: &AttentionLayout,
    shape: AttentionShape,
    scores: ScoreRule,
    out: &mut CpuTensor,
) {
    #[cfg(target_arch = "x86_64")]
    if isa.has_bf16_dots() && query.dtype() == DType::Bf16 {
        let (query, keys_values) = (bytemuck::cast_slice(query.bytes()), bytemuck::cast_slice(keys_values.bytes()));
        let inputs = AttentionInputs { query, keys_values, shape, scores, out: &OutputRows::new(out) };
        for_each_task(layout, shape, scores, pairs::MAX_VECTORS, |task, scratch| {
            // SAFETY: an `Isa` above `Portable` comes from `Isa::detect`, which found these features and got the
            // permission for AMX.
            unsafe {
                if isa == Isa::Amx {
                    pairs::attend_amx(&inputs, task, &mut scratch.pairs);
                } else {
                    pairs::attend_dots(&inputs, task, &mut scratch.pairs);
                }
            }
        });
        return;
    }
    with_element!(query.dtype(), E => {
        let (query, keys_values) = (bytemuck::cast_slice(query.bytes()), bytemuck::cast_slice(keys_values.bytes()));
        let inputs = AttentionInputs::<E> { query, keys_values, shape, scores, out: &OutputRows::new(out) };
        for_each_task(layout, shape, scores, MAX_VECTORS, |task, scratch| {
            attend::<E>(isa, &inputs, task, isa >= Isa::Avx512, scratch)
        });
    });
}

/// The arguments of [`attention`].
struct AttentionInputs<'a, E> {
    query: &'a [E],
    keys_values: &'a [E],
    shape: AttentionShape,
    scores: ScoreRule,
    out: &'a OutputRows<'a, E>,
}

impl<E> AttentionInputs<'_, E> {
    /// Query heads of a key/value head.
    #[inline(always)]
    fn group(&self) -> usize {
        self.shape.n_heads / self.shape.n_kv_heads
    }
}

/// A range of rows of a segment, and a key/value head.
struct AttentionTask<'a> {
    segment: &'a AttentionSegment,
    /// First row, relative to the segment.
    first: usize,
    rows: usize,
    kv_head: usize,
}

impl AttentionTask<'_> {
    /// The position of the first row.
    #[inline(always)]
    fn first_position(&self) -> usize {
        self.segment.start_position + self.first
    }

    /// Fills `key_rows` with the rows of `keys_values` of all positions that the rows see, from a block of `block_keys` keys
    /// on, whose position is the result.
    #[inline(always)]
    fn collect_key_rows(&self, window: Option<usize>, block_keys: usize, key_rows: &mut Vec<usize>) -> usize {
        // Blocks wholly before the window of the first row are not loaded: the windows of the others start later.
        let first_key = window.map_or(0, |window| (self.first_position() + 1).saturating_sub(window));
        let first_block = first_key / block_keys * block_keys;
        key_rows.clear();
        let (mut skipped, mut left) = (first_block, self.first_position() + self.rows - first_block);
        for &(first, len) in &self.segment.keys {
            let from = skipped.min(len);
            let count = left.min(len - from);
            key_rows.extend(first + from..first + from + count);
            skipped -= from;
            left -= count;
        }
        first_block
    }
}

/// The place of a task in a layout.
#[derive(Clone, Copy)]
struct TaskPlace {
    segment: usize,
    first: usize,
    rows: usize,
    kv_head: usize,
}

thread_local! {
    /// A thread's working memory, kept so that the steady state does not allocate.
    static SCRATCH: RefCell<AttentionScratch> = RefCell::new(AttentionScratch::default());
    /// The tasks of a call, kept like it.
    static TASKS: Cell<Vec<TaskPlace>> = const { Cell::new(Vec::new()) };
}

/// Working memory of a task.
#[derive(Default)]
struct AttentionScratch {
    /// The row of `keys_values` of each position from the first block on.
    key_rows: Vec<usize>,
    lanes: QueryLanes,
    block: KeyBlock,
    #[cfg(target_arch = "x86_64")]
    pairs: pairs::PairScratch,
}

/// Divides the segments into tasks of up to `max_vectors` vectors of lanes and runs them on the threads of the pool, those
/// with the most keys first: a long one that starts last would keep the others waiting.
fn for_each_task(
    layout: &AttentionLayout,
    shape: AttentionShape,
    scores: ScoreRule,
    max_vectors: usize,
    run: impl Fn(&AttentionTask<'_>, &mut AttentionScratch) + Sync,
) {
    let group = shape.n_heads / shape.n_kv_heads;
    let threads = rayon::current_num_threads();
    let rows: usize = layout.segments.iter().map(|segment| segment.len).sum();
    let vectors = (rows * shape.n_heads).div_ceil(LANES * threads * TASKS_PER_THREAD).clamp(MIN_VECTORS, max_vectors);
    let task_rows = (vectors * LANES / group).max(1);
    let mut places = TASKS.take();
    places.clear();
    for (segment, AttentionSegment { len, .. }) in layout.segments.iter().enumerate() {
        // Nearly equal parts, so that the last one does not have a few rows only.
        let parts = len.div_ceil(task_rows);
        for part in 0..parts {
            let (first, end) = (len * part / parts, len * (part + 1) / parts);
            let place = |kv_head| TaskPlace { segment, first, rows: end - first, kv_head };
            places.extend((0..shape.n_kv_heads).map(place));
        }
    }
    places.sort_unstable_by_key(|place| {
        let end = layout.segments[place.segment].start_position + place.first + place.rows;
        let keys = scores.window.map_or(end, |window| end.min(window.saturating_add(place.rows)));
        (Reverse(keys * place.rows), place.segment, place.first, place.kv_head)
    });
    let next = AtomicUsize::new(0);
    (0..threads.min(places.len())).into_par_iter().with_max_len(1).for_each(|_| {
        let run_all = |scratch: &mut AttentionScratch| {
            while let Some(place) = places.get(next.fetch_add(1, Ordering::Relaxed)) {
                let TaskPlace { segment, first, rows, kv_head } = *place;
                run(&AttentionTask { segment: &layout.segments[segment], first, rows, kv_head }, scratch);
            }
        };
        SCRATCH.with(|scratch| match scratch.try_borrow_mut() {
            Ok(mut scratch) => run_all(&mut scratch),
            // Unreachable, as no task runs another one inside. It would only cost an allocation.
            Err(_) => run_all(&mut AttentionScratch::default()),
        });
    });
    TASKS.set(places);
}

dispatch!(fn attend<E: Element>(
    inputs: &AttentionInputs<'_, E>,
    task: &AttentionTask<'_>,
    has_wide_registers: bool,
    scratch: &mut AttentionScratch,
) = attend_body);

#[inline(always)]
fn attend_body<E: Element>(
    inputs: &AttentionInputs<'_, E>,
    task: &AttentionTask<'_>,
    has_wide_registers: bool,
    scratch: &mut AttentionScratch,
) {
    let AttentionScratch { key_rows, lanes, block, .. } = scratch;
    let AttentionInputs { query, keys_values, shape, scores, out } = *inputs;
    let (head_dim, group) = (shape.head_dim, inputs.group());
    let (first_position, kv_head) = (task.first_position(), task.kv_head);
    let first_block = task.collect_key_rows(scores.window, block::KEYS, key_rows);

    // Lane `i` is head `i % group` of row `i / group`.
    lanes.begin(task.rows * group, head_dim, scores, |lane| first_position + lane / group);
    let query_start = |lane: usize| {
        let row = task.segment.query_row + task.first + lane / group;
        (row * shape.n_heads + kv_head * group + lane % group) * head_dim
    };
    for lane in 0..task.rows * group {
        let start = query_start(lane);
        lanes.set_query(lane, query[start..start + head_dim].iter().map(|value| value.to_f32() * scores.scale));
    }

    let width = 2 * shape.n_kv_heads * head_dim;
    let (key_column, value_column) = (kv_head * head_dim, (shape.n_kv_heads + kv_head) * head_dim);
    for first in (0..key_rows.len()).step_by(block::KEYS) {
        let in_block = &key_rows[first..key_rows.len().min(first + block::KEYS)];
        block.begin(first_block + first, in_block.len(), head_dim);
        for (index, row) in in_block.iter().enumerate() {
            let row = &keys_values[row * width..(row + 1) * width];
            block.set(
                index,
                row[key_column..key_column + head_dim].iter().map(|key| key.to_f32()),
                row[value_column..value_column + head_dim].iter().map(|value| value.to_f32()),
            );
        }
        if has_wide_registers { lanes.attend::<true>(block) } else { lanes.attend::<false>(block) }
    }

    for lane in 0..task.rows * group {
        let row = task.segment.query_row + task.first + lane / group;
        let from = (kv_head * group + lane % group) * head_dim;
        // SAFETY: segments have distinct query rows, and each head of a row belongs to one task.
        let out = unsafe { out.row_slice(row, from, from + head_dim) };
        for (out, value) in out.iter_mut().zip(lanes.output(lane)) {
            *out = E::from_f32(value);
        }
    }
}
