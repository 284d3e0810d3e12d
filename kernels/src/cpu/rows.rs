//! Operations that treat each row separately: embedding, rotary positions, gathers.

use rayon::prelude::*;

use super::isa::{Isa, dispatch};
use super::tensor::{CpuTensor, Element, with_element};
use crate::error::KernelError;
use crate::host::HostTensor;

/// Rows of a task: enough work to outweigh the cost of scheduling it on another thread.
pub const TASK_ROWS: usize = 16;

/// `out[i] = scale * table[tokens[i]]`. A row is rounded to the dtype of `out`, as in a model stored in it, and then scaled and
/// rounded again.
///
/// # Errors
/// A token that is not in the table, or a gathered element that is not finite.
pub fn embed(isa: Isa, table: &HostTensor, tokens: &[u32], scale: f32, out: &mut CpuTensor) -> Result<(), KernelError> {
    let vocabulary = table.shape()[0];
    if let Some(token) = tokens.iter().find(|token| **token as usize >= vocabulary) {
        return Err(KernelError::shape("embed", format!("token {token} is not in the vocabulary of {vocabulary}")));
    }
    let dtype = out.dtype();
    for_table_rows("embed", table, tokens, out, |values, out| {
        with_element!(dtype, E => {
            let out: &mut [E] = bytemuck::cast_slice_mut(out);
            if scale == 1.0 { narrow_row::<E>(isa, values, out) } else { scale_row::<E>(isa, values, scale, out) }
        });
    })
}

/// `stream[i] = stream[i] + table[rows[i]]`. A row of the table is rounded to the dtype of `stream` before it is added.
///
/// # Errors
/// A row that is not in the table, or a gathered element that is not finite.
pub fn add_embedding(isa: Isa, table: &HostTensor, rows: &[u32], stream: &mut CpuTensor) -> Result<(), KernelError> {
    let dtype = stream.dtype();
    for_table_rows("add embedding", table, rows, stream, |values, stream| {
        with_element!(dtype, E => add_row::<E>(isa, values, bytemuck::cast_slice_mut(stream)));
    })
}

/// Calls `write(values, out row)` with the values of each of the `rows` of `table`, which must exist.
///
/// # Errors
/// A value that is not finite.
fn for_table_rows(
    op: &'static str,
    table: &HostTensor,
    rows: &[u32],
    out: &mut CpuTensor,
    write: impl Fn(&[f32], &mut [u8]) + Sync,
) -> Result<(), KernelError> {
    let columns = table.shape()[1];
    let (row_bytes, out_row_bytes) = (columns * table.dtype().size(), out.row_bytes());
    let non_finite = out
        .bytes_mut()
        .par_chunks_mut((out_row_bytes * TASK_ROWS).max(1))
        .zip(rows.par_chunks(TASK_ROWS))
        .find_map_first(|(chunk, rows)| {
            let mut values = vec![0.0f32; columns];
            for (out, row) in chunk.chunks_exact_mut(out_row_bytes).zip(rows) {
                let first = *row as usize * row_bytes;
                table.dtype().widen(&table.bytes()[first..first + row_bytes], &mut values);
                write(&values, out);
                if let Some(column) = values.iter().position(|value| !value.is_finite()) {
                    return Some((*row as usize * columns + column, values[column]));
                }
            }
            None
        });
    match non_finite {
        Some((index, value)) => Err(KernelError::NotFinite { op, index, value }),
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

dispatch!(fn scale_row<E: Element>(values: &[f32], scale: f32, out: &mut [E]) = scale_row_body);

#[inline(always)]
fn scale_row_body<E: Element>(values: &[f32], scale: f32, out: &mut [E]) {
    for (out, value) in out.iter_mut().zip(values) {
        *out = E::from_f32(E::from_f32(*value).to_f32() * scale);
    }
}

dispatch!(fn add_row<E: Element>(values: &[f32], stream: &mut [E]) = add_row_body);

#[inline(always)]
fn add_row_body<E: Element>(values: &[f32], stream: &mut [E]) {
    for (stream, value) in stream.iter_mut().zip(values) {
        *stream = E::from_f32(stream.to_f32() + E::from_f32(*value).to_f32());
    }
}

/// The columns of a row that are rotated.
#[derive(Clone, Copy)]
pub struct RopeHeads {
    /// Leading heads of the row.
    pub n_heads: usize,
    /// Columns of a head.
    pub head_dim: usize,
    /// Leading columns of a head that are rotated, an even number.
    pub rotary_dim: usize,
}

/// Cosines and sines of the angles of every position, `[positions, rotary_dim / 2]` each.
#[derive(Clone, Copy)]
pub struct RopeAngles<'a> {
    /// Cosine of each angle.
    pub cos: &'a [f32],
    /// Sine of each angle.
    pub sin: &'a [f32],
}

/// Rotates `heads` of every row of `x`, in place. Row `i` is at `positions[i]`.
pub fn rope(isa: Isa, x: &mut CpuTensor, heads: RopeHeads, positions: &[u32], angles: RopeAngles<'_>) {
    let (row_bytes, dtype, pairs) = (x.row_bytes(), x.dtype(), heads.rotary_dim / 2);
    x.bytes_mut().par_chunks_mut((row_bytes * TASK_ROWS).max(1)).zip(positions.par_chunks(TASK_ROWS)).for_each(
        |(rows, positions)| {
            for (row, position) in rows.chunks_exact_mut(row_bytes).zip(positions) {
                let first = *position as usize * pairs;
                let (cos, sin) = (&angles.cos[first..first + pairs], &angles.sin[first..first + pairs]);
                with_element!(dtype, E => {
                    let row: &mut [E] = bytemuck::cast_slice_mut(row);
                    rotate_heads::<E>(isa, &mut row[..heads.n_heads * heads.head_dim], heads.head_dim, cos, sin);
                });
            }
        },
    );
}

dispatch!(
    /// Column `j` of a head pairs with column `j + cos.len()`.
    fn rotate_heads<E: Element>(row: &mut [E], head_dim: usize, cos: &[f32], sin: &[f32]) = rotate_heads_body
);

#[inline(always)]
fn rotate_heads_body<E: Element>(row: &mut [E], head_dim: usize, cos: &[f32], sin: &[f32]) {
    for head in row.chunks_exact_mut(head_dim) {
        let (first, second) = head.split_at_mut(cos.len());
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
