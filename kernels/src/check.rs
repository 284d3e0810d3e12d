//! Argument checks of the operations, so that a wrong shape is an error with both sizes and never a wrong result.

use crate::backend::{AttentionLayout, AttentionShape, PoolGroups};
use crate::dtype::DType;
use crate::error::KernelError;

/// What a check asks of a tensor, whatever device holds it.
pub(crate) trait Matrix {
    /// The storage type.
    fn dtype(&self) -> DType;
    /// The number of rows.
    fn rows(&self) -> usize;
    /// The number of columns.
    fn columns(&self) -> usize;
}

/// What a check asks of prepared weights.
#[derive(Clone, Copy)]
pub(crate) struct WeightShape {
    /// The storage type.
    pub dtype: DType,
    /// Outputs of the product, each of a pair's projections where gated.
    pub out_features: usize,
    /// Inputs of the product.
    pub in_features: usize,
    /// Whether the outputs are pairs of a gate and an up projection.
    pub gated: bool,
}

pub(crate) fn width(op: &'static str, name: &str, got: usize, expected: usize) -> Result<(), KernelError> {
    if got == expected {
        return Ok(());
    }
    Err(KernelError::shape(op, format!("{name} has {got} elements where {expected} are needed")))
}

pub(crate) fn same_dtype(op: &'static str, x: &impl Matrix, out: &impl Matrix) -> Result<(), KernelError> {
    if x.dtype() == out.dtype() {
        return Ok(());
    }
    Err(KernelError::DType { op, expected: x.dtype(), got: out.dtype() })
}

/// At least `rows` rows of exactly `columns` columns.
pub(crate) fn fits(
    op: &'static str,
    name: &str,
    tensor: &impl Matrix,
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

/// `bytes` bytes are whole rows of `tensor`, and no more than it has.
pub(crate) fn uploaded(bytes: usize, tensor: &impl Matrix) -> Result<(), KernelError> {
    let row_bytes = tensor.columns() * tensor.dtype().size();
    if bytes == 0 || (row_bytes > 0 && bytes.is_multiple_of(row_bytes) && bytes / row_bytes <= tensor.rows()) {
        return Ok(());
    }
    let what = format!("{bytes} bytes for {} rows of {row_bytes}", tensor.rows());
    Err(KernelError::shape("upload", what))
}

/// `x W^T` into `out`, with a bias of `biases` values an output.
pub(crate) fn product(
    op: &'static str,
    x: &impl Matrix,
    weight: WeightShape,
    gated: bool,
    bias: Option<usize>,
    biases: usize,
    out: &impl Matrix,
) -> Result<(), KernelError> {
    if weight.gated != gated {
        return Err(KernelError::shape(op, "the weights were prepared for the other kind of product"));
    }
    same_dtype(op, x, out)?;
    if weight.dtype != x.dtype() {
        return Err(KernelError::DType { op, expected: weight.dtype, got: x.dtype() });
    }
    width(op, "a row of x", x.columns(), weight.in_features)?;
    if let Some(len) = bias {
        width(op, "bias", len, biases * weight.out_features)?;
    }
    fits(op, "out", out, x.rows(), weight.out_features)
}

pub(crate) fn rope(
    x: &impl Matrix,
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

pub(crate) fn attention(
    query: &impl Matrix,
    keys_values: &impl Matrix,
    layout: &AttentionLayout,
    shape: AttentionShape,
    out: &impl Matrix,
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

pub(crate) fn pool(x: &impl Matrix, groups: &PoolGroups, out: &impl Matrix) -> Result<(), KernelError> {
    same_dtype("pool", x, out)?;
    fits("pool", "out", out, groups.len(), x.columns())?;
    match groups.max_row().filter(|row| *row as usize >= x.rows()) {
        Some(row) => Err(KernelError::shape("pool", format!("row {row} of {}", x.rows()))),
        None => Ok(()),
    }
}

pub(crate) fn copy_rows(
    x: &impl Matrix,
    from: usize,
    count: usize,
    out: &impl Matrix,
    to: usize,
) -> Result<(), KernelError> {
    same_dtype("copy rows", x, out)?;
    fits("copy rows", "x", x, from.saturating_add(count), out.columns())?;
    fits("copy rows", "out", out, to.saturating_add(count), x.columns())
}

/// Each of `rows` is a row of a table of `n_rows`.
pub(crate) fn picked(op: &'static str, rows: &[u32], n_rows: usize) -> Result<(), KernelError> {
    match rows.iter().find(|row| **row as usize >= n_rows) {
        Some(row) => Err(KernelError::shape(op, format!("row {row} of {n_rows}"))),
        None => Ok(()),
    }
}
