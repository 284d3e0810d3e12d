//! Causal attention over ragged rows and prefix-tree nodes.
//!
//! A task is one segment and one key/value head. It widens the segment's keys (transposed) and values once, and
//! then serves the query heads of the group. Every score is one chain over the head's elements, every output one
//! chain over the positions in order, and the softmax sum is cut into lanes by position, so a query row's bits
//! depend on its own sequence alone.

use rayon::prelude::*;

use super::gemm::epilogue::OutputRows;
use super::isa::{Isa, dispatch};
use super::math::{exp, sum};
use super::tensor::{CpuTensor, Element, with_element};
use crate::backend::{AttentionLayout, AttentionSegment, AttentionShape};

/// Query rows that share a pass over the keys and values.
const QUERY_BLOCK: usize = 4;

/// Positions are padded to whole vectors; the padding scores minus infinity.
const LANES: usize = 16;

/// `out = softmax(query keys^T / sqrt(head_dim)) values`, causal, for the rows the segments name.
pub fn attention(
    isa: Isa,
    query: &CpuTensor,
    keys_values: &CpuTensor,
    layout: &AttentionLayout,
    shape: AttentionShape,
    out: &mut CpuTensor,
) {
    with_element!(query.dtype(), E => {
        let query: &[E] = bytemuck::cast_slice(query.bytes());
        let keys_values: &[E] = bytemuck::cast_slice(keys_values.bytes());
        let out = OutputRows::<E>::new(out);
        (0..layout.segments.len() * shape.n_kv_heads).into_par_iter().for_each(|task| {
            let segment = &layout.segments[task / shape.n_kv_heads];
            attend::<E>(isa, query, keys_values, segment, task % shape.n_kv_heads, shape, &out);
        });
    });
}

dispatch!(fn attend<E: Element>(
    query: &[E],
    keys_values: &[E],
    segment: &AttentionSegment,
    kv_head: usize,
    shape: AttentionShape,
    out: &OutputRows<'_, E>,
) = attend_body);

#[inline(always)]
fn attend_body<E: Element>(
    query: &[E],
    keys_values: &[E],
    segment: &AttentionSegment,
    kv_head: usize,
    shape: AttentionShape,
    out: &OutputRows<'_, E>,
) {
    let head_dim = shape.head_dim;
    let n_keys = segment.start_position + segment.len;
    let stride = n_keys.next_multiple_of(LANES);
    // keys: [head_dim][stride], so that a score's chain over the head vectorises over positions.
    let mut keys = vec![0.0f32; head_dim * stride];
    let mut values = vec![0.0f32; n_keys * head_dim];
    let key_column = kv_head * head_dim;
    let value_column = (shape.n_kv_heads + kv_head) * head_dim;
    let width = 2 * shape.n_kv_heads * head_dim;
    let rows = segment.keys.iter().flat_map(|&(first, len)| first..first + len);
    for (position, row) in rows.enumerate().take(n_keys) {
        let row = &keys_values[row * width..(row + 1) * width];
        for (element, key) in row[key_column..key_column + head_dim].iter().enumerate() {
            keys[element * stride + position] = key.to_f32();
        }
        for (out, value) in values[position * head_dim..].iter_mut().zip(&row[value_column..value_column + head_dim]) {
            *out = value.to_f32();
        }
    }

    let group = shape.n_heads / shape.n_kv_heads;
    let scale = 1.0 / (head_dim as f32).sqrt();
    let mut scores = vec![0.0f32; QUERY_BLOCK * stride];
    let mut queries = vec![0.0f32; QUERY_BLOCK * head_dim];
    let mut outputs = vec![0.0f32; QUERY_BLOCK * head_dim];
    for head in kv_head * group..(kv_head + 1) * group {
        for first in (0..segment.len).step_by(QUERY_BLOCK) {
            let count = QUERY_BLOCK.min(segment.len - first);
            queries.fill(0.0);
            for index in 0..count {
                let start = (segment.query_row + first + index) * shape.query_width() + head * head_dim;
                for (out, value) in queries[index * head_dim..].iter_mut().zip(&query[start..start + head_dim]) {
                    *out = value.to_f32() * scale;
                }
            }
            let visible = segment.start_position + first + count;
            score_block(&queries, &keys, head_dim, stride, visible.next_multiple_of(LANES), &mut scores);
            for index in 0..count {
                let row = &mut scores[index * stride..(index + 1) * stride];
                softmax(row, segment.start_position + first + index + 1);
            }
            outputs.fill(0.0);
            weigh_values(&scores, &values, head_dim, stride, visible, count, &mut outputs);
            for index in 0..count {
                let row = segment.query_row + first + index;
                // SAFETY: segments name distinct query rows, and a head's columns are one task's alone.
                let out = unsafe { out.piece(row, head * head_dim, (head + 1) * head_dim) };
                for (out, value) in out.iter_mut().zip(&outputs[index * head_dim..]) {
                    *out = E::from_f32(*value);
                }
            }
        }
    }
}

/// `scores[q][j] = sum over e of queries[q][e] keys[e][j]`, for `j` below `visible`, a multiple of [`LANES`].
#[inline(always)]
fn score_block(queries: &[f32], keys: &[f32], head_dim: usize, stride: usize, visible: usize, scores: &mut [f32]) {
    for first in (0..visible).step_by(LANES) {
        let mut sums = [[0.0f32; LANES]; QUERY_BLOCK];
        for element in 0..head_dim {
            let start = element * stride + first;
            let keys = &keys[start..start + LANES];
            for (index, sums) in sums.iter_mut().enumerate() {
                let query = queries[index * head_dim + element];
                for (sum, key) in sums.iter_mut().zip(keys) {
                    *sum = query.mul_add(*key, *sum);
                }
            }
        }
        for (index, sums) in sums.iter().enumerate() {
            let start = index * stride + first;
            scores[start..start + LANES].copy_from_slice(sums);
        }
    }
}

/// Turns the first `len` scores into probabilities and the rest into zeros.
#[inline(always)]
fn softmax(row: &mut [f32], len: usize) {
    let (visible, hidden) = row.split_at_mut(len);
    hidden.fill(0.0);
    let mut largest = [f32::NEG_INFINITY; LANES];
    for chunk in visible.chunks(LANES) {
        for (largest, value) in largest.iter_mut().zip(chunk) {
            *largest = if *value > *largest { *value } else { *largest };
        }
    }
    let largest = largest.into_iter().fold(f32::NEG_INFINITY, |a, b| if b > a { b } else { a });
    for value in visible.iter_mut() {
        *value = exp(*value - largest);
    }
    let inverse = 1.0 / sum(visible);
    for value in visible.iter_mut() {
        *value *= inverse;
    }
}

/// `outputs[q] = sum over j of scores[q][j] values[j]`, `j` increasing.
#[inline(always)]
fn weigh_values(
    scores: &[f32],
    values: &[f32],
    head_dim: usize,
    stride: usize,
    visible: usize,
    count: usize,
    outputs: &mut [f32],
) {
    let whole = head_dim / LANES * LANES;
    for column in (0..whole).step_by(LANES) {
        let mut sums = [[0.0f32; LANES]; QUERY_BLOCK];
        for position in 0..visible {
            let start = position * head_dim + column;
            let values = &values[start..start + LANES];
            for (index, sums) in sums.iter_mut().enumerate() {
                let weight = scores[index * stride + position];
                for (sum, value) in sums.iter_mut().zip(values) {
                    *sum = weight.mul_add(*value, *sum);
                }
            }
        }
        for (index, sums) in sums.iter().enumerate().take(count) {
            outputs[index * head_dim + column..][..LANES].copy_from_slice(sums);
        }
    }
    for column in whole..head_dim {
        for index in 0..count {
            let mut sum = 0.0f32;
            for position in 0..visible {
                sum = scores[index * stride + position].mul_add(values[position * head_dim + column], sum);
            }
            outputs[index * head_dim + column] = sum;
        }
    }
}
