//! Causal attention over ragged rows and prefix-tree nodes, by blocks of keys with an online softmax (Milakov and
//! Gimelshein 2018; Dao et al. 2022).
//!
//! A task is a range of rows of one segment and one key/value head. Its *lanes* are those rows times the query heads of
//! the group, adjacent in vectors, so that each key element is used for all of them and keys need no transpose. Lanes
//! do not mix, and the block boundaries depend on positions alone: a score is one chain over the elements of the head,
//! a sum of weights and an output are one chain over the visible positions. The bits of a row therefore depend on its
//! own sequence alone. A block without a visible key for a lane leaves the state of the lane as it is, so that it makes no
//! difference whether other lanes of the task need the block.

use std::cell::RefCell;

use rayon::prelude::*;

use self::block::{KeyBlock, LANES, QueryLanes};
use super::gemm::epilogue::OutputRows;
use super::isa::{Isa, dispatch};
use super::tensor::{CpuTensor, Element, with_element};
use crate::backend::{AttentionLayout, AttentionSegment, AttentionShape, ScoreRule};

mod block;

/// The maximum number of vectors of lanes of a task, unless a single row has more: their outputs and a block of keys
/// and values fit the L2 cache.
const MAX_VECTORS: usize = 4;

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
    let group = shape.n_heads / shape.n_kv_heads;
    let task_rows = (MAX_VECTORS * LANES / group).max(1);
    with_element!(query.dtype(), E => {
        let query: &[E] = bytemuck::cast_slice(query.bytes());
        let keys_values: &[E] = bytemuck::cast_slice(keys_values.bytes());
        let out = OutputRows::<E>::new(out);
        layout.segments.par_iter().for_each(|segment| {
            let chunks = segment.len.div_ceil(task_rows);
            (0..shape.n_kv_heads * chunks).into_par_iter().for_each(|task| {
                let first = task / shape.n_kv_heads * task_rows;
                let rows = SegmentRows { segment, first, count: task_rows.min(segment.len - first) };
                let kv_head = task % shape.n_kv_heads;
                SCRATCH.with(|scratch| match scratch.try_borrow_mut() {
                    Ok(mut scratch) => {
                        attend::<E>(isa, query, keys_values, rows, kv_head, shape, scores, &mut scratch, &out);
                    }
                    // Unreachable, as no task runs another one inside. It would only cost an allocation.
                    Err(_) => {
                        let mut own = AttentionScratch::default();
                        attend::<E>(isa, query, keys_values, rows, kv_head, shape, scores, &mut own, &out);
                    }
                });
            });
        });
    });
}

thread_local! {
    /// A thread's working memory, kept so that the steady state does not allocate.
    static SCRATCH: RefCell<AttentionScratch> = RefCell::new(AttentionScratch::default());
}

/// Working memory of a task.
#[derive(Default)]
struct AttentionScratch {
    /// The row of `keys_values` of each position from the first block on.
    key_rows: Vec<usize>,
    lanes: QueryLanes,
    block: KeyBlock,
}

/// A range of rows of a segment.
#[derive(Clone, Copy)]
struct SegmentRows<'a> {
    segment: &'a AttentionSegment,
    /// First row, relative to the segment.
    first: usize,
    count: usize,
}

dispatch!(fn attend<E: Element>(
    query: &[E],
    keys_values: &[E],
    rows: SegmentRows<'_>,
    kv_head: usize,
    shape: AttentionShape,
    scores: ScoreRule,
    scratch: &mut AttentionScratch,
    out: &OutputRows<'_, E>,
) = attend_body);

#[inline(always)]
#[allow(clippy::too_many_arguments)] // As `attend`, whose body it is.
fn attend_body<E: Element>(
    query: &[E],
    keys_values: &[E],
    rows: SegmentRows<'_>,
    kv_head: usize,
    shape: AttentionShape,
    scores: ScoreRule,
    scratch: &mut AttentionScratch,
    out: &OutputRows<'_, E>,
) {
    let AttentionScratch { key_rows, lanes, block } = scratch;
    let (head_dim, group) = (shape.head_dim, shape.n_heads / shape.n_kv_heads);
    let first_position = rows.segment.start_position + rows.first;
    let visible = first_position + rows.count;
    // Blocks wholly before the window of the first row are not loaded: the windows of the others start later.
    let first_key = scores.window.map_or(0, |window| (first_position + 1).saturating_sub(window));
    let first_block = first_key / block::KEYS * block::KEYS;
    key_rows.clear();
    let positions = rows.segment.keys.iter().flat_map(|&(first, len)| first..first + len);
    key_rows.extend(positions.take(visible).skip(first_block));

    // Lane `i` is head `i % group` of row `i / group`.
    lanes.begin(rows.count * group, head_dim, scores, |lane| first_position + lane / group);
    let query_start = |lane: usize| {
        let row = rows.segment.query_row + rows.first + lane / group;
        (row * shape.n_heads + kv_head * group + lane % group) * head_dim
    };
    for lane in 0..rows.count * group {
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
        lanes.attend(block);
    }

    for lane in 0..rows.count * group {
        let row = rows.segment.query_row + rows.first + lane / group;
        let from = (kv_head * group + lane % group) * head_dim;
        // SAFETY: segments have distinct query rows, and each head of a row belongs to one task.
        let out = unsafe { out.row_slice(row, from, from + head_dim) };
        for (out, value) in out.iter_mut().zip(lanes.output(lane)) {
            *out = E::from_f32(value);
        }
    }
}
