//! Argument checks of the operations, so that a wrong shape is an error with both sizes and never a wrong result.

use super::gemm::PackedWeights;
use super::tensor::CpuTensor;
use crate::backend::{AttentionLayout, AttentionShape};
use crate::error::KernelError;

pub(super) fn width(op: &'static str, name: &str, got: usize, expected: usize) -> Result<(), KernelError> {
    if got == expected {
        return Ok(());
    }
    Err(KernelError::shape(op, format!("{name} has {got} elements where {expected} are needed")))
}

pub(super) fn same_dtype(op: &'static str, x: &CpuTensor, out: &CpuTensor) -> Result<(), KernelError> {
    if x.dtype() == out.dtype() {
        return Ok(());
    }
    Err(KernelError::DType { op, expected: x.dtype(), got: out.dtype() })
}

/// At least `rows` rows of exactly `columns` columns.
pub(super) fn fits(
    op: &'static str,
    name: &str,
    tensor: &CpuTensor,
    rows: usize,
    columns: usize,
) -> Result<(), KernelError> {
    if tensor.rows() >= rows && tensor.columns() == columns {
        return Ok(());
    }
    Err(KernelError::shape(
        op,
        format!("{name} is {} x {} where {rows} x {columns} are needed", tensor.rows(), tensor.columns()),
    ))
}

/// `x W^T` into `out`, with a bias of `biases` values an output.
pub(super) fn product(
    op: &'static str,
    x: &CpuTensor,
    weight: &PackedWeights,
    gated: bool,
    bias: Option<usize>,
    biases: usize,
    out: &CpuTensor,
) -> Result<(), KernelError> {
    if weight.is_gated() != gated {
        return Err(KernelError::shape(op, "the weights were prepared for the other kind of product"));
    }
    same_dtype(op, x, out)?;
    if weight.dtype() != x.dtype() {
        return Err(KernelError::DType { op, expected: weight.dtype(), got: x.dtype() });
    }
    width(op, "a row of x", x.columns(), weight.in_features())?;
    if let Some(len) = bias {
        width(op, "bias", len, biases * weight.out_features())?;
    }
    fits(op, "out", out, x.rows(), weight.out_features())
}

pub(super) fn rope(
    x: &CpuTensor,
    n_heads: usize,
    head_dim: usize,
    positions: &[u32],
    cos: usize,
    sin: usize,
) -> Result<(), KernelError> {
    const OP: &str = "rope";
    if head_dim == 0 || !head_dim.is_multiple_of(2) || n_heads * head_dim > x.columns() || positions.len() > x.rows() {
        return Err(KernelError::shape(
            OP,
            format!("{} x {}, {n_heads} heads of {head_dim}, {} positions", x.rows(), x.columns(), positions.len()),
        ));
    }
    let needed = positions.iter().max().map_or(0, |position| (*position as usize + 1) * (head_dim / 2));
    if cos < needed || sin < needed {
        return Err(KernelError::shape(OP, format!("angles hold {cos} and {sin} values where {needed} are needed")));
    }
    Ok(())
}

pub(super) fn attention(
    query: &CpuTensor,
    keys_values: &CpuTensor,
    layout: &AttentionLayout,
    shape: AttentionShape,
    out: &CpuTensor,
) -> Result<(), KernelError> {
    const OP: &str = "attention";
    same_dtype(OP, query, keys_values)?;
    same_dtype(OP, query, out)?;
    if shape.n_kv_heads == 0 || !shape.n_heads.is_multiple_of(shape.n_kv_heads) || shape.head_dim == 0 {
        return Err(KernelError::shape(OP, format!("{shape:?}: key/value heads must divide query heads")));
    }
    width(OP, "a row of query", query.columns(), shape.query_width())?;
    width(OP, "a row of keys and values", keys_values.columns(), 2 * shape.kv_width())?;
    width(OP, "a row of out", out.columns(), shape.query_width())?;
    let mut taken = vec![false; query.rows()];
    for segment in &layout.segments {
        let end = segment.query_row.saturating_add(segment.len);
        if end > query.rows() || end > out.rows() {
            return Err(KernelError::shape(OP, format!("query rows up to {end} of {}", query.rows())));
        }
        // Two segments on one row would be two threads writing one piece of memory.
        for row in &mut taken[segment.query_row..end] {
            if std::mem::replace(row, true) {
                return Err(KernelError::shape(OP, "two segments name the same query row"));
            }
        }
        let mut positions = 0usize;
        for &(first, len) in &segment.keys {
            if first.saturating_add(len) > keys_values.rows() {
                return Err(KernelError::shape(OP, format!("key rows {first} + {len} of {}", keys_values.rows())));
            }
            positions += len;
        }
        if positions < segment.start_position + segment.len {
            return Err(KernelError::shape(
                OP,
                format!("{positions} keys for positions up to {}", segment.start_position + segment.len),
            ));
        }
    }
    Ok(())
}
