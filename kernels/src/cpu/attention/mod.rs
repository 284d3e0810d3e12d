//! Causal attention over ragged rows and prefix-tree nodes, by blocks of keys with an online softmax (Milakov and
//! Gimelshein 2018; Dao et al. 2022).
//!
//! A task is some rows of one segment and one key/value head. Its *lanes* are those rows times the query heads of the
//! group, side by side in vectors, so that a key serves all of them at once and nothing of a key has to be
//! transposed. Lanes never mix, and where blocks of keys are cut depends on positions alone: a score is one chain over
//! the head's elements, a sum of weights and an output one chain over the positions that the row sees. So a row's bits
//! depend on its own sequence alone.

use std::cell::RefCell;

use rayon::prelude::*;

use self::block::{Block, LANES, Lanes};
use super::gemm::epilogue::OutputRows;
use super::isa::{Isa, dispatch};
use super::tensor::{CpuTensor, Element, with_element};
use crate::backend::{AttentionLayout, AttentionSegment, AttentionShape};

mod block;

/// Vectors of lanes in a task, unless one row has more: their outputs and a block of keys and values stay in the
/// second-level cache.
const MAX_VECTORS: usize = 4;

/// `out = softmax(query keys^T / sqrt(head_dim)) values`, causal, for the rows the segments name.
pub fn attention(
    isa: Isa,
    query: &CpuTensor,
    keys_values: &CpuTensor,
    layout: &AttentionLayout,
    shape: AttentionShape,
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
                let rows = Rows { segment, first, count: task_rows.min(segment.len - first) };
                SCRATCH.with(|scratch| match scratch.try_borrow_mut() {
                    Ok(mut scratch) => {
                        attend::<E>(isa, query, keys_values, rows, task % shape.n_kv_heads, shape, &mut scratch, &out);
                    }
                    // No task starts another inside, so this does not happen; it would only cost an allocation.
                    Err(_) => {
                        let mut own = Scratch::default();
                        attend::<E>(isa, query, keys_values, rows, task % shape.n_kv_heads, shape, &mut own, &out);
                    }
                });
            });
        });
    });
}

thread_local! {
    /// A thread's working memory, kept so that the steady state allocates nothing.
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::default());
}

/// Working memory of a task.
#[derive(Default)]
struct Scratch {
    /// The row of `keys_values` that holds each position.
    key_rows: Vec<usize>,
    lanes: Lanes,
    block: Block,
}

/// Some rows of a segment.
#[derive(Clone, Copy)]
struct Rows<'a> {
    segment: &'a AttentionSegment,
    /// First row, counted from the segment's first.
    first: usize,
    count: usize,
}

dispatch!(fn attend<E: Element>(
    query: &[E],
    keys_values: &[E],
    rows: Rows<'_>,
    kv_head: usize,
    shape: AttentionShape,
    scratch: &mut Scratch,
    out: &OutputRows<'_, E>,
) = attend_body);

#[inline(always)]
#[allow(clippy::too_many_arguments)] // As `attend`, whose body it is.
fn attend_body<E: Element>(
    query: &[E],
    keys_values: &[E],
    rows: Rows<'_>,
    kv_head: usize,
    shape: AttentionShape,
    scratch: &mut Scratch,
    out: &OutputRows<'_, E>,
) {
    let Scratch { key_rows, lanes, block } = scratch;
    let (head_dim, group) = (shape.head_dim, shape.n_heads / shape.n_kv_heads);
    let first_position = rows.segment.start_position + rows.first;
    let visible = first_position + rows.count;
    key_rows.clear();
    key_rows.extend(rows.segment.keys.iter().flat_map(|&(first, len)| first..first + len).take(visible));

    // Lane `i` is head `i % group` of row `i / group`.
    let scale = 1.0 / (head_dim as f32).sqrt();
    lanes.begin(rows.count * group, head_dim, |lane| first_position + lane / group);
    let query_start = |lane: usize| {
        let row = rows.segment.query_row + rows.first + lane / group;
        (row * shape.n_heads + kv_head * group + lane % group) * head_dim
    };
    for lane in 0..rows.count * group {
        let start = query_start(lane);
        lanes.set_query(lane, query[start..start + head_dim].iter().map(|value| value.to_f32() * scale));
    }

    let width = 2 * shape.n_kv_heads * head_dim;
    let (key_column, value_column) = (kv_head * head_dim, (shape.n_kv_heads + kv_head) * head_dim);
    for first in (0..key_rows.len()).step_by(block::KEYS) {
        let in_block = &key_rows[first..key_rows.len().min(first + block::KEYS)];
        block.begin(first, in_block.len(), head_dim);
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
        // SAFETY: segments name distinct query rows, and a row's head is one task's alone.
        let out = unsafe { out.piece(row, from, from + head_dim) };
        for (out, value) in out.iter_mut().zip(lanes.output(lane)) {
            *out = E::from_f32(value);
        }
    }
}
