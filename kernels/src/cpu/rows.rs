//! Operations that treat each row separately: embedding, RMS norm, rotary positions, gathers.

use rayon::prelude::*;

use super::isa::{Isa, dispatch};
use super::math::sum_of_squares;
use super::tensor::{CpuTensor, Element, with_element};
use crate::error::KernelError;
use crate::host::HostTensor;

/// Rows of a task: enough work to outweigh the cost of scheduling it on another thread.
const TASK_ROWS: usize = 16;

/// `out[i] = table[tokens[i]]`, converted to the dtype of `out`.
///
/// # Errors
/// A token that is not in the table, or a gathered element that is not finite in the dtype of `out`.
pub fn embed(isa: Isa, table: &HostTensor, tokens: &[u32], out: &mut CpuTensor) -> Result<(), KernelError> {
    let (vocabulary, columns) = (table.shape()[0], table.shape()[1]);
    if let Some(token) = tokens.iter().find(|token| **token as usize >= vocabulary) {
        return Err(KernelError::shape("embed", format!("token {token} is not in the vocabulary of {vocabulary}")));
    }
    let row_bytes = columns * table.dtype().size();
    let (out_row_bytes, out_dtype) = (out.row_bytes(), out.dtype());
    let non_finite = out
        .bytes_mut()
        .par_chunks_mut((out_row_bytes * TASK_ROWS).max(1))
        .zip(tokens.par_chunks(TASK_ROWS))
        .find_map_first(|(chunk, tokens)| {
            let mut values = vec![0.0f32; columns];
            for (out, token) in chunk.chunks_exact_mut(out_row_bytes).zip(tokens) {
                let first = *token as usize * row_bytes;
                table.dtype().widen(&table.bytes()[first..first + row_bytes], &mut values);
                with_element!(out_dtype, E => narrow_row::<E>(isa, &values, bytemuck::cast_slice_mut(out)));
                if let Some(column) = values.iter().position(|value| !value.is_finite()) {
                    return Some((*token as usize * columns + column, values[column]));
                }
            }
            None
        });
    match non_finite {
        Some((index, value)) => Err(KernelError::NotFinite { op: "embed", index, value }),
        None => Ok(()),
    }
}

dispatch!(fn narrow_row<E: Element>(values: &[f32], out: &mut [E]) = narrow_row_body);

#[inline(always)]
fn narrow_row_body<E: Element>(values: &[f32], out: &mut [E]) {
    for (out, value) in out.iter_mut().zip(values) {
        *out = E::from_f32(*value);
    }
}

/// `out[i] = x[i] / sqrt(mean(x[i]^2) + eps) * scale`.
pub fn rms_norm(isa: Isa, x: &CpuTensor, scale: &[f32], eps: f32, out: &mut CpuTensor) {
    let row_bytes = x.row_bytes();
    out.bytes_mut()[..x.rows() * row_bytes]
        .par_chunks_mut((row_bytes * TASK_ROWS).max(1))
        .zip(x.bytes().par_chunks((row_bytes * TASK_ROWS).max(1)))
        .for_each(|(out, x_rows)| {
            with_element!(x.dtype(), E => {
                norm_rows::<E>(isa, bytemuck::cast_slice(x_rows), scale, eps, bytemuck::cast_slice_mut(out));
            });
        });
}

dispatch!(fn norm_rows<E: Element>(x: &[E], scale: &[f32], eps: f32, out: &mut [E]) = norm_rows_body);

#[inline(always)]
fn norm_rows_body<E: Element>(x: &[E], scale: &[f32], eps: f32, out: &mut [E]) {
    let columns = scale.len();
    let mut values = vec![0.0f32; columns];
    for (x, out) in x.chunks_exact(columns).zip(out.chunks_exact_mut(columns)) {
        for (value, x) in values.iter_mut().zip(x) {
            *value = x.to_f32();
        }
        let inverse = 1.0 / (sum_of_squares(&values) / columns as f32 + eps).sqrt();
        for ((out, value), scale) in out.iter_mut().zip(&values).zip(scale) {
            *out = E::from_f32(value * inverse * scale);
        }
    }
}

/// Cosines and sines of the angles of every position, `[positions, head_dim / 2]` each.
#[derive(Clone, Copy)]
pub struct RopeAngles<'a> {
    /// Cosine of each angle.
    pub cos: &'a [f32],
    /// Sine of each angle.
    pub sin: &'a [f32],
}

/// Rotates the first `n_heads` heads of every row of `x`, in place. Row `i` is at `positions[i]`.
pub fn rope(isa: Isa, x: &mut CpuTensor, n_heads: usize, head_dim: usize, positions: &[u32], angles: RopeAngles<'_>) {
    let (row_bytes, dtype) = (x.row_bytes(), x.dtype());
    x.bytes_mut().par_chunks_mut((row_bytes * TASK_ROWS).max(1)).zip(positions.par_chunks(TASK_ROWS)).for_each(
        |(rows, positions)| {
            for (row, position) in rows.chunks_exact_mut(row_bytes).zip(positions) {
                let first = *position as usize * (head_dim / 2);
                let cos = &angles.cos[first..first + head_dim / 2];
                let sin = &angles.sin[first..first + head_dim / 2];
                with_element!(dtype, E => {
                    let row: &mut [E] = bytemuck::cast_slice_mut(row);
                    rotate_heads::<E>(isa, &mut row[..n_heads * head_dim], head_dim, cos, sin);
                });
            }
        },
    );
}

dispatch!(fn rotate_heads<E: Element>(row: &mut [E], head_dim: usize, cos: &[f32], sin: &[f32]) = rotate_heads_body);

#[inline(always)]
fn rotate_heads_body<E: Element>(row: &mut [E], head_dim: usize, cos: &[f32], sin: &[f32]) {
    for head in row.chunks_exact_mut(head_dim) {
        let (first, second) = head.split_at_mut(head_dim / 2);
        for (((first, second), cos), sin) in first.iter_mut().zip(second).zip(cos).zip(sin) {
            let (a, b) = (first.to_f32(), second.to_f32());
            *first = E::from_f32(a.mul_add(*cos, -(b * sin)));
            *second = E::from_f32(b.mul_add(*cos, a * sin));
        }
    }
}

/// `out[i] = x[rows[i]]`.
///
/// # Errors
/// A row that `x` does not have.
pub fn gather_rows(x: &CpuTensor, rows: &[u32], out: &mut CpuTensor) -> Result<(), KernelError> {
    if let Some(row) = rows.iter().find(|row| **row as usize >= x.rows()) {
        return Err(KernelError::shape("gather rows", format!("row {row} of {}", x.rows())));
    }
    let row_bytes = x.row_bytes();
    for (out, row) in out.bytes_mut().chunks_exact_mut(row_bytes.max(1)).zip(rows) {
        out.copy_from_slice(x.row(*row as usize));
    }
    Ok(())
}
