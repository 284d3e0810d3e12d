//! Argument checks of the operations: a wrong shape becomes an error that states both sizes.

use crate::backend::{AttentionLayout, AttentionShape, PoolGroups, QkvProjection, ScoreRule};
use crate::dtype::DType;
use crate::error::KernelError;
use crate::folded_norm::square_blocks;
use crate::routes::{MAX_EXPERTS, RouteRule, WeightedRows};

/// The dtype and the shape of a two-dimensional tensor on any device.
pub(crate) trait TensorShape {
    fn dtype(&self) -> DType;
    fn rows(&self) -> usize;
    fn columns(&self) -> usize;
}

/// The dtype and the shape of prepared weights.
#[derive(Clone, Copy)]
pub(crate) struct WeightShape {
    /// The storage type.
    pub dtype: DType,
    /// Columns of the output: for gated weights, the rows of each of the two projections.
    pub out_features: usize,
    /// Columns of the input.
    pub in_features: usize,
    /// Whether the weights are a gate and an up projection.
    pub gated: bool,
}

/// An error unless `name` has `expected` elements.
pub(crate) fn width(op: &'static str, name: &str, got: usize, expected: usize) -> Result<(), KernelError> {
    if got == expected {
        return Ok(());
    }
    Err(KernelError::shape(op, format!("{name} has {got} elements where {expected} are needed")))
}

/// An error unless `x` and `out` have one dtype.
pub(crate) fn same_dtype(op: &'static str, x: &impl TensorShape, out: &impl TensorShape) -> Result<(), KernelError> {
    if x.dtype() == out.dtype() {
        return Ok(());
    }
    Err(KernelError::DType { op, expected: x.dtype(), got: out.dtype() })
}

/// An error unless `tensor` has at least `rows` rows of exactly `columns` columns.
pub(crate) fn fits(
    op: &'static str,
    name: &str,
    tensor: &impl TensorShape,
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

/// An error unless `bytes` bytes are a whole number of rows of `tensor`, at most as many as it has.
pub(crate) fn upload(bytes: usize, tensor: &impl TensorShape) -> Result<(), KernelError> {
    let row_bytes = tensor.columns() * tensor.dtype().size();
    if bytes == 0 || (row_bytes > 0 && bytes.is_multiple_of(row_bytes) && bytes / row_bytes <= tensor.rows()) {
        return Ok(());
    }
    let what = format!("{bytes} bytes for {} rows of {row_bytes}", tensor.rows());
    Err(KernelError::shape("upload", what))
}

/// Checks the arguments of a matmul `out = x W^T`: `x` `[rows, in_features]`, `out` at least `[rows, out_features]`,
/// and a bias of `biases_per_output * out_features` elements.
pub(crate) fn matmul(
    op: &'static str,
    x: &impl TensorShape,
    weight: WeightShape,
    gated: bool,
    bias: Option<usize>,
    biases_per_output: usize,
    out: &impl TensorShape,
) -> Result<(), KernelError> {
    if weight.gated != gated {
        return Err(KernelError::shape(op, if gated { "the weights are not gated" } else { "the weights are gated" }));
    }
    same_dtype(op, x, out)?;
    if weight.dtype != x.dtype() {
        return Err(KernelError::DType { op, expected: weight.dtype, got: x.dtype() });
    }
    width(op, "a row of x", x.columns(), weight.in_features)?;
    if let Some(len) = bias {
        width(op, "bias", len, biases_per_output * weight.out_features)?;
    }
    fits(op, "out", out, x.rows(), weight.out_features)
}

/// An error unless `squares` has the sums of squares of `rows` rows of `columns` columns.
pub(crate) fn squares(
    op: &'static str,
    squares: &impl TensorShape,
    rows: usize,
    columns: usize,
) -> Result<(), KernelError> {
    if squares.dtype() != DType::F32 {
        return Err(KernelError::DType { op, expected: DType::F32, got: squares.dtype() });
    }
    fits(op, "squares", squares, rows, square_blocks(columns))
}

/// An error unless the factor of an embedding is finite.
pub(crate) fn embedding_scale(scale: f32) -> Result<(), KernelError> {
    if scale.is_finite() {
        return Ok(());
    }
    Err(KernelError::shape("embed", format!("a scale of {scale}")))
}

/// Checks the arguments of an addition of table rows: `rows` below `table_rows`, and rows of `columns` columns.
pub(crate) fn add_embedding(
    rows: &[u32],
    (table_rows, columns): (usize, usize),
    stream: &impl TensorShape,
) -> Result<(), KernelError> {
    const OP: &str = "add embedding";
    fits(OP, "stream", stream, rows.len(), columns)?;
    row_indices(OP, rows, table_rows)
}

/// Checks the arguments of a norm of rows: `out` with the rows of `x`, and a scale, and a bias where there is one, of a row's
/// width.
pub(crate) fn norm(
    op: &'static str,
    x: &impl TensorShape,
    scale: usize,
    bias: Option<usize>,
    out: &impl TensorShape,
) -> Result<(), KernelError> {
    same_dtype(op, x, out)?;
    fits(op, "out", out, x.rows(), x.columns())?;
    width(op, "scale", scale, x.columns())?;
    bias.map_or(Ok(()), |bias| width(op, "bias", bias, x.columns()))
}

/// Checks the arguments of a norm of heads: rows that consist of heads of `head_dim` columns, at least `n_heads`.
pub(crate) fn norm_heads(x: &impl TensorShape, n_heads: usize, head_dim: usize) -> Result<(), KernelError> {
    const OP: &str = "rms norm of heads";
    if head_dim == 0 || !x.columns().is_multiple_of(head_dim) {
        return Err(KernelError::shape(OP, format!("a row of {} is not whole heads of {head_dim}", x.columns())));
    }
    if n_heads > x.columns() / head_dim {
        return Err(KernelError::shape(OP, format!("{n_heads} heads of {head_dim} in a row of {}", x.columns())));
    }
    Ok(())
}

/// Checks that a rule can be applied to `logits`.
pub(crate) fn route(logits: &impl TensorShape, rule: RouteRule) -> Result<(), KernelError> {
    let n_experts = logits.columns();
    if n_experts > MAX_EXPERTS {
        return Err(KernelError::shape("route", format!("{n_experts} experts: at most {MAX_EXPERTS} are supported")));
    }
    if rule.top_k == 0 || rule.top_k > n_experts {
        return Err(KernelError::shape("route", format!("{} of {n_experts} experts", rule.top_k)));
    }
    Ok(())
}

/// Checks the arguments of an addition of weighted rows: whole results, and rows that `x` and `stream` have.
pub(crate) fn weighted_rows(
    x: &impl TensorShape,
    sums: WeightedRows<'_>,
    stream: &impl TensorShape,
) -> Result<(), KernelError> {
    const OP: &str = "add weighted rows";
    let WeightedRows { per_row, rows, weights } = sums;
    same_dtype(OP, x, stream)?;
    width(OP, "weights", weights.len(), rows.len())?;
    if per_row == 0 || !rows.len().is_multiple_of(per_row) {
        return Err(KernelError::shape(OP, format!("{} rows, {per_row} for each result", rows.len())));
    }
    fits(OP, "stream", stream, sums.n_results(), x.columns())?;
    row_indices(OP, rows, x.rows())
}

/// Checks the arguments of a rotation: `cos` and `sin` elements of `rotary_dim / 2` angles a position.
pub(crate) fn rope(
    x: &impl TensorShape,
    n_heads: usize,
    head_dim: usize,
    rotary_dim: usize,
    positions: &[u32],
    cos: usize,
    sin: usize,
) -> Result<(), KernelError> {
    const OP: &str = "rope";
    if n_heads.saturating_mul(head_dim) > x.columns() || positions.len() > x.rows() {
        return Err(KernelError::shape(
            OP,
            format!("{} x {}, {n_heads} heads of {head_dim}, {} positions", x.rows(), x.columns(), positions.len()),
        ));
    }
    angles(OP, head_dim, rotary_dim, positions, cos, sin)
}

/// Checks the number of rotated columns of a head, and that `cos` and `sin` elements reach to the largest position.
fn angles(
    op: &'static str,
    head_dim: usize,
    rotary_dim: usize,
    positions: &[u32],
    cos: usize,
    sin: usize,
) -> Result<(), KernelError> {
    if rotary_dim == 0 || !rotary_dim.is_multiple_of(2) || rotary_dim > head_dim {
        return Err(KernelError::shape(
            op,
            format!(
                "{rotary_dim} rotated columns of heads of {head_dim}: an even number from 2 to the head's is needed"
            ),
        ));
    }
    let needed = positions.iter().max().map_or(0, |position| (*position as usize + 1) * (rotary_dim / 2));
    if cos < needed || sin < needed {
        return Err(KernelError::shape(op, format!("angles hold {cos} and {sin} values where {needed} are needed")));
    }
    Ok(())
}

/// Checks the arguments of a fused projection, with a bias of `bias` elements; `len` gives that of a vector.
pub(crate) fn project_qkv<V>(
    x: &impl TensorShape,
    weight: WeightShape,
    bias: Option<usize>,
    projection: &QkvProjection<'_, V>,
    len: impl Fn(&V) -> usize,
    query: &impl TensorShape,
    key_value: &impl TensorShape,
) -> Result<(), KernelError> {
    const OP: &str = "project qkv";
    let QkvProjection { shape, part, rotation } = projection;
    if weight.gated {
        return Err(KernelError::shape(OP, "the weights are gated"));
    }
    if weight.dtype != x.dtype() {
        return Err(KernelError::DType { op: OP, expected: weight.dtype, got: x.dtype() });
    }
    let (query_width, kv_width) = (shape.query_width(), 2 * shape.kv_width());
    width(OP, "a row of x", x.columns(), weight.in_features)?;
    width(OP, "a row of queries, keys and values", query_width + kv_width, weight.out_features)?;
    if let Some(len) = bias {
        width(OP, "bias", len, weight.out_features)?;
    }
    if part.has_query() {
        same_dtype(OP, x, query)?;
        fits(OP, "query", query, x.rows(), query_width)?;
    }
    if part.has_key_value() {
        same_dtype(OP, x, key_value)?;
        fits(OP, "key_value", key_value, x.rows(), kv_width)?;
    }
    let Some(rotation) = rotation else { return Ok(()) };
    width(OP, "positions", rotation.positions.len(), x.rows())?;
    let (cos, sin) = (len(rotation.cos), len(rotation.sin));
    angles(OP, shape.head_dim, rotation.rotary_dim, rotation.positions, cos, sin)
}

/// Checks that a rule of scores has finite numbers, a window that is not empty and a positive cap.
fn score_rule(op: &'static str, scores: ScoreRule) -> Result<(), KernelError> {
    if !scores.scale.is_finite() {
        return Err(KernelError::shape(op, format!("a scale of {}", scores.scale)));
    }
    if scores.window == Some(0) {
        return Err(KernelError::shape(op, "a window of 0 positions: at least 1 is needed"));
    }
    match scores.soft_cap.filter(|cap| !cap.is_finite() || *cap <= 0.0) {
        Some(cap) => Err(KernelError::shape(op, format!("a soft cap of {cap}: a positive number is needed"))),
        None => Ok(()),
    }
}

/// Checks that the rows of `layout` exist, that no query row is in two segments, and the rule of scores.
pub(crate) fn attention(
    query: &impl TensorShape,
    keys_values: &impl TensorShape,
    layout: &AttentionLayout,
    shape: AttentionShape,
    scores: ScoreRule,
    out: &impl TensorShape,
) -> Result<(), KernelError> {
    const OP: &str = "attention";
    score_rule(OP, scores)?;
    same_dtype(OP, query, keys_values)?;
    same_dtype(OP, query, out)?;
    if shape.n_kv_heads == 0 || !shape.n_heads.is_multiple_of(shape.n_kv_heads) || shape.head_dim == 0 {
        return Err(KernelError::shape(OP, format!("{shape:?}: key/value heads must divide query heads")));
    }
    width(OP, "a row of query", query.columns(), shape.query_width())?;
    width(OP, "a row of keys and values", keys_values.columns(), 2 * shape.kv_width())?;
    width(OP, "a row of out", out.columns(), shape.query_width())?;
    let mut assigned = vec![false; query.rows()];
    for segment in &layout.segments {
        let end = segment.query_row.saturating_add(segment.len);
        if end > query.rows() || end > out.rows() {
            return Err(KernelError::shape(OP, format!("query rows up to {end} of {}", query.rows())));
        }
        // Two segments with the same row would be two threads that write the same memory.
        for row in &mut assigned[segment.query_row..end] {
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

/// An error unless `x` has the rows of `groups` and `out` has a row a group.
pub(crate) fn pool(x: &impl TensorShape, groups: &PoolGroups, out: &impl TensorShape) -> Result<(), KernelError> {
    same_dtype("pool", x, out)?;
    fits("pool", "out", out, groups.len(), x.columns())?;
    match groups.max_row().filter(|row| *row as usize >= x.rows()) {
        Some(row) => Err(KernelError::shape("pool", format!("row {row} of {}", x.rows()))),
        None => Ok(()),
    }
}

/// An error unless `x` has rows `from..from + count` and `out` has rows `to..to + count`, of equal width.
pub(crate) fn copy_rows(
    x: &impl TensorShape,
    from: usize,
    count: usize,
    out: &impl TensorShape,
    to: usize,
) -> Result<(), KernelError> {
    same_dtype("copy rows", x, out)?;
    fits("copy rows", "x", x, from.saturating_add(count), out.columns())?;
    fits("copy rows", "out", out, to.saturating_add(count), x.columns())
}

/// An error unless each of `rows` is below `n_rows`.
pub(crate) fn row_indices(op: &'static str, rows: &[u32], n_rows: usize) -> Result<(), KernelError> {
    match rows.iter().find(|row| **row as usize >= n_rows) {
        Some(row) => Err(KernelError::shape(op, format!("row {row} of {n_rows}"))),
        None => Ok(()),
    }
}
