//! Pooling of rows, accumulated in the order of their group wherever the rows are in the batch.

use rayon::prelude::*;

use super::isa::{Isa, dispatch};
use super::tensor::{CpuTensor, Element, with_element};
use crate::backend::{PoolGroups, PoolMethod};

/// `out[g] = pool(x[rows of group g])`, `x` `[rows, columns]`, `out` at least `[groups, columns]`.
pub fn pool(isa: Isa, x: &CpuTensor, groups: &PoolGroups, method: PoolMethod, out: &mut CpuTensor) {
    let (row_bytes, columns) = (x.row_bytes(), x.columns());
    with_element!(x.dtype(), E => {
        let source: &[E] = bytemuck::cast_slice(x.bytes());
        out.bytes_mut()[..groups.len() * row_bytes].par_chunks_mut(row_bytes.max(1)).enumerate().for_each(|(group, out)| {
            pool_rows::<E>(isa, source, columns, groups.rows_of(group), method, bytemuck::cast_slice_mut(out));
        });
    });
}

dispatch!(
    /// Pools the rows of one group of a `[rows, columns]` matrix, in the listed order.
    pub fn pool_rows<E: Element>(x: &[E], columns: usize, rows: &[u32], method: PoolMethod, out: &mut [E]) = pool_rows_body
);

#[inline(always)]
fn pool_rows_body<E: Element>(x: &[E], columns: usize, rows: &[u32], method: PoolMethod, out: &mut [E]) {
    let row = |row: u32| &x[row as usize * columns..(row as usize + 1) * columns];
    let Some((first, last)) = rows.first().zip(rows.last()) else {
        out.fill(E::from_f32(0.0));
        return;
    };
    if method == PoolMethod::Last {
        out.copy_from_slice(row(*last));
        return;
    }
    let mut values: Vec<f32> = row(*first).iter().map(|value| value.to_f32()).collect();
    for other in &rows[1..] {
        let other = row(*other);
        if method == PoolMethod::Max {
            for (value, other) in values.iter_mut().zip(other) {
                let other = other.to_f32();
                // A NaN on either side propagates: a larger value must not hide a broken activation.
                *value = if other > *value || other.is_nan() { other } else { *value };
            }
        } else {
            for (value, other) in values.iter_mut().zip(other) {
                *value += other.to_f32();
            }
        }
    }
    if method == PoolMethod::Mean {
        let count = rows.len() as f32;
        for value in &mut values {
            *value /= count;
        }
    }
    for (out, value) in out.iter_mut().zip(values) {
        *out = E::from_f32(value);
    }
}
