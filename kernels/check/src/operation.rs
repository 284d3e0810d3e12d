//! Runs a case on a backend: uploads inputs, applies the operation, downloads the result.
//!
//! Any range of a case's rows can be computed without the other rows from the same inputs: the bits must be the same.

use std::ops::Range;

use actbench_kernels::backend::AttentionSegment;
use actbench_kernels::{
    AttentionLayout, AttentionShape, Backend, DType, HostTensor, KernelError, PoolGroups, PoolMethod, QkvPart,
    QkvProjection, Rotation, RouteRule, ScoreRule, WeightedRows,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::case::{Gemm, KeyRows, Norm, Operation};
use crate::folded::FoldedInputs;
use crate::inputs::{Inputs, random, random_magnitudes, upload};

/// The first row that a copy writes.
const COPY_OFFSET: usize = 2;

/// The factor of a scaled embedding, which no type represents: the root of 1152.
const EMBEDDING_FACTOR: f32 = 33.941_126;

/// Positions of the angles of a rotation.
const POSITIONS: u32 = 300;

/// The constant in the root of a norm.
const EPS: f32 = 1e-5;

/// The weights of a GEMM case on a device, empty for other cases: the same for all rows and sets of kernels.
pub struct Weights<B: Backend>(Option<(B::Linear, Option<B::Vector>)>);

impl<B: Backend> Weights<B> {
    /// Uploads them.
    ///
    /// # Errors
    /// Those of the backend.
    pub fn upload(backend: &B, inputs: &Inputs<'_>) -> Result<Self, KernelError> {
        let (case, dtype) = (inputs.case, inputs.case.dtype);
        let (gated, k, n, biased) = match &case.operation {
            Operation::Gemm { gemm, k, n, biased, .. } => (gemm.is_gated(), *k, *n, *biased),
            Operation::Qkv { k, biased, .. } => (false, *k, case.columns(), *biased),
            _ => return Ok(Weights(None)),
        };
        let matrix = |stream| {
            let drawn = |len| random(case.seed, stream, dtype, 1.0, len);
            inputs.rows(stream, dtype, [n, k], 0..n, drawn)
        };
        let weight = if gated {
            backend.prepare_gated(&matrix(2)?, &matrix(5)?, dtype)?
        } else {
            backend.prepare_linear(&[matrix(2)?], dtype)?
        };
        let biases = if gated { 2 * n } else { n };
        let bias = biased.then(|| backend.prepare_vector(&[inputs.vector(3, dtype, biases)?], dtype)).transpose()?;
        Ok(Weights(Some((weight, bias))))
    }
}

/// An operation with its inputs on the device.
pub struct PreparedCase<'w, B: Backend> {
    operands: Operands<'w, B>,
    out: B::Tensor,
    /// The second output, whose columns follow those of `out`, and the bytes of a row.
    second: Option<(B::Tensor, usize)>,
    /// Leading rows of `out` that do not belong to the result.
    skipped: usize,
    rows: usize,
    row_bytes: usize,
    element_bytes: usize,
    /// M, K and N of a GEMM, also of queries, keys and values.
    mkn: [usize; 3],
}

/// The minimum work of an operation, for its throughput.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Work {
    /// Bytes read and written, each counted once.
    pub bytes: f64,
    /// Multiplications and additions, for GEMMs and attention.
    pub operations: Option<f64>,
}

enum Operands<'w, B: Backend> {
    Gemm {
        gemm: Gemm,
        x: B::Tensor,
        weight: &'w B::Linear,
        bias: Option<&'w B::Vector>,
    },
    Folded(Box<FoldedInputs>),
    Qkv {
        shape: AttentionShape,
        rotary_dim: usize,
        x: B::Tensor,
        weight: &'w B::Linear,
        bias: Option<&'w B::Vector>,
        positions: Vec<u32>,
        cos: B::Vector,
        sin: B::Vector,
    },
    Norm {
        norm: Norm,
        x: B::Tensor,
        scale: B::Vector,
        bias: B::Vector,
    },
    NormHeads {
        heads: usize,
        scale: B::Vector,
    },
    Rope {
        head_dim: usize,
        rotary_dim: usize,
        positions: Vec<u32>,
        cos: B::Vector,
        sin: B::Vector,
    },
    EmbedScaled {
        table: B::Embedding,
        tokens: Vec<u32>,
    },
    AddEmbedding {
        table: B::Embedding,
        rows: Vec<u32>,
    },
    Route {
        logits: B::Tensor,
        n_experts: usize,
        rule: RouteRule,
        dtype: DType,
    },
    WeightedRows {
        x: B::Tensor,
        per_row: usize,
        rows: Vec<u32>,
        weights: Vec<f32>,
    },
    Gather {
        x: B::Tensor,
        rows: Vec<u32>,
    },
    Copy {
        x: B::Tensor,
        from: usize,
        count: usize,
    },
    Pool {
        x: B::Tensor,
        groups: PoolGroups,
        method: PoolMethod,
    },
    Attention {
        query: B::Tensor,
        keys_values: B::Tensor,
        layout: AttentionLayout,
        shape: AttentionShape,
        scores: ScoreRule,
    },
    Cast {
        table: HostTensor,
        dtype: DType,
        tokens: Vec<u32>,
    },
}

/// The bytes of rows `range` of the result of a case, computed without the other rows.
///
/// # Errors
/// Those of the backend.
pub fn compute<B: Backend>(
    backend: &B,
    inputs: &Inputs<'_>,
    weights: &Weights<B>,
    range: Range<usize>,
) -> Result<Vec<u8>, KernelError> {
    let mut prepared = PreparedCase::new(backend, inputs, weights, range)?;
    prepared.apply(backend)?;
    prepared.result(backend)
}

/// The bytes of the whole result of a case.
///
/// # Errors
/// Those of the backend.
pub fn compute_all<B: Backend>(backend: &B, inputs: &Inputs<'_>) -> Result<Vec<u8>, KernelError> {
    compute(backend, inputs, &Weights::upload(backend, inputs)?, 0..inputs.case.rows())
}

impl<'w, B: Backend> PreparedCase<'w, B> {
    /// Uploads the inputs of rows `range`, except the weights.
    ///
    /// # Errors
    /// Those of the backend, or missing weights.
    pub fn new(
        backend: &B,
        inputs: &Inputs<'_>,
        weights: &'w Weights<B>,
        range: Range<usize>,
    ) -> Result<Self, KernelError> {
        let case = inputs.case;
        let (dtype, rows, columns) = (case.dtype, range.len(), case.columns());
        // A tensor of rows `range` of `all` rows.
        let rows_of = |stream: u64, all: usize, columns: usize, largest: f32, range: Range<usize>| {
            let drawn = |len| random(case.seed, stream, dtype, largest, len);
            upload(backend, &inputs.rows(stream, dtype, [all, columns], range, drawn)?)
        };
        let part = |stream: u64, columns: usize| rows_of(stream, case.rows(), columns, 1.0, range.clone());
        let whole = |stream: u64, all: usize, columns: usize| rows_of(stream, all, columns, 1.0, 0..all);
        let vector = |stream: u64, dtype: DType, len: usize| {
            backend.prepare_vector(&[inputs.vector(stream, dtype, len)?], dtype)
        };
        let (mut skipped, mut second) = (0, None);
        // Positions of all rows, and the angles of `pairs` columns.
        let positions = |all: usize| -> Vec<u32> {
            let mut rng = ChaCha8Rng::seed_from_u64(case.seed);
            let positions: Vec<u32> = (0..all).map(|_| rng.random_range(0..POSITIONS)).collect();
            positions.get(range.clone()).unwrap_or_default().to_vec()
        };
        let angles = |stream, pairs| vector(stream, DType::F32, POSITIONS as usize * pairs);
        let (operands, out) = match &case.operation {
            Operation::Gemm { gemm, k, n, .. } => {
                let Some((weight, bias)) = &weights.0 else {
                    return Err(KernelError::shape("inputs", format!("{case} without weights")));
                };
                let operands = Operands::Gemm { gemm: *gemm, x: part(1, *k)?, weight, bias: bias.as_ref() };
                // The residual adds to these values; the others overwrite them.
                (operands, part(4, *n)?)
            }
            Operation::Folded { folded, rows: all, k, n } => {
                let folded = FoldedInputs::new(inputs, *folded, [*all, *k, *n], range.clone())?;
                (Operands::Folded(Box::new(folded)), backend.alloc(dtype, rows, columns)?)
            }
            Operation::Qkv { rows: all, k, shape, rotary_dim, .. } => {
                let Some((weight, bias)) = &weights.0 else {
                    return Err(KernelError::shape("inputs", format!("{case} without weights")));
                };
                let (kv_width, pairs) = (2 * shape.kv_width(), rotary_dim / 2);
                second = Some((backend.alloc(dtype, rows, kv_width)?, kv_width * dtype.size()));
                let operands = Operands::Qkv {
                    shape: *shape,
                    rotary_dim: *rotary_dim,
                    x: part(1, *k)?,
                    weight,
                    bias: bias.as_ref(),
                    positions: positions(*all),
                    cos: angles(6, pairs)?,
                    sin: angles(7, pairs)?,
                };
                (operands, backend.alloc(dtype, rows, shape.query_width())?)
            }
            Operation::Norm { norm, .. } => {
                let (scale, bias) = (vector(2, dtype, columns)?, vector(3, dtype, columns)?);
                // The residual adds to these values; the others overwrite them.
                (Operands::Norm { norm: *norm, x: part(1, columns)?, scale, bias }, part(4, columns)?)
            }
            Operation::NormHeads { heads, head_dim, .. } => {
                (Operands::NormHeads { heads: *heads, scale: vector(2, dtype, *head_dim)? }, part(1, columns)?)
            }
            Operation::EmbedScaled { rows: all, .. } | Operation::AddEmbedding { rows: all, .. } => {
                let mut rng = ChaCha8Rng::seed_from_u64(case.seed);
                let picked: Vec<u32> = (0..*all).map(|_| rng.random_range(0..*all as u32)).collect();
                let drawn = |len| random(case.seed, 1, dtype, 1.0, len);
                let table =
                    backend.prepare_embedding(&inputs.rows(1, dtype, [*all, columns], 0..*all, drawn)?, dtype)?;
                let rows = picked.get(range.clone()).unwrap_or_default().to_vec();
                let operands = match &case.operation {
                    Operation::EmbedScaled { .. } => Operands::EmbedScaled { table, tokens: rows },
                    _ => Operands::AddEmbedding { table, rows },
                };
                (operands, part(4, columns)?)
            }
            Operation::Rope { rows: all, head_dim, rotary_dim } => {
                let (head_dim, rotary_dim, positions) = (*head_dim, *rotary_dim, positions(*all));
                let (cos, sin) = (angles(2, rotary_dim / 2)?, angles(3, rotary_dim / 2)?);
                let operands = Operands::Rope { head_dim, rotary_dim, positions, cos, sin };
                (operands, part(1, columns)?)
            }
            Operation::Route { experts, top_k, .. } => {
                // Far from uniform, so that few experts are equal after rounding.
                let logits = rows_of(1, case.rows(), *experts, 8.0, range.clone())?;
                let rule = RouteRule { top_k: *top_k, renormalize: true, rounded: false };
                (Operands::Route { logits, n_experts: *experts, rule, dtype }, backend.alloc(dtype, rows, columns)?)
            }
            Operation::WeightedRows { rows: all, per_row, .. } => {
                let mut rng = ChaCha8Rng::seed_from_u64(case.seed);
                let picked: Vec<u32> = (0..all * per_row).map(|_| rng.random_range(0..*all as u32)).collect();
                let weights = inputs.vector(2, DType::F32, picked.len())?.to_f32_vec();
                let own = range.start * per_row..range.end * per_row;
                let operands = Operands::WeightedRows {
                    x: whole(1, *all, columns)?,
                    per_row: *per_row,
                    rows: picked.get(own.clone()).unwrap_or_default().to_vec(),
                    weights: weights.get(own).unwrap_or_default().to_vec(),
                };
                // The sums are added to these values.
                (operands, part(4, columns)?)
            }
            Operation::Gather { rows: all, .. } => {
                let mut rng = ChaCha8Rng::seed_from_u64(case.seed);
                let picked: Vec<u32> = (0..*all).map(|_| rng.random_range(0..*all as u32)).collect();
                let x = whole(1, *all, columns)?;
                let rows = picked.get(range.clone()).unwrap_or_default().to_vec();
                (Operands::Gather { x, rows }, backend.alloc(dtype, range.len(), columns)?)
            }
            Operation::Copy { rows: all, .. } => {
                skipped = COPY_OFFSET;
                let x = whole(1, *all, columns)?;
                let out = backend.alloc(dtype, skipped + rows, columns)?;
                (Operands::Copy { x, from: range.start, count: rows }, out)
            }
            Operation::Pool { groups: all, method, .. } => {
                // Groups have ten rows on average, and the rows of large cases exceed the cache.
                let x_rows = 10 * (*all as u32).max(4);
                let mut rng = ChaCha8Rng::seed_from_u64(case.seed);
                let mut groups = PoolGroups::new();
                for group in 0..*all {
                    // The second group is empty.
                    let len = if group == 1 { 0 } else { rng.random_range(0..=20) };
                    let members: Vec<u32> = (0..len).map(|_| rng.random_range(0..x_rows)).collect();
                    if range.contains(&group) {
                        groups.push(members);
                    }
                }
                let x = whole(1, x_rows as usize, columns)?;
                (Operands::Pool { x, groups, method: *method }, backend.alloc(dtype, rows, columns)?)
            }
            Operation::Attention { shape, lens, scores, key_rows } => {
                let operands = Operands::Attention {
                    // Larger queries, so that the softmax is far from uniform.
                    query: rows_of(1, case.rows(), columns, 4.0, range.clone())?,
                    keys_values: whole(2, case.rows(), 2 * shape.kv_width())?,
                    layout: layout(lens, *key_rows, &range),
                    shape: *shape,
                    scores: scores.rule(shape.head_dim),
                };
                (operands, backend.alloc(dtype, rows, columns)?)
            }
            Operation::Cast { from, rows: all, .. } => {
                let drawn = |len| random_magnitudes(case.seed, *from, dtype, len);
                let table = inputs.rows(0, *from, [*all, columns], range.clone(), drawn)?;
                let tokens = (0..rows as u32).collect();
                (Operands::Cast { table, dtype, tokens }, backend.alloc(dtype, rows, columns)?)
            }
        };
        let mkn = match &case.operation {
            Operation::Gemm { k, n, .. } => [rows, *k, *n],
            Operation::Qkv { k, .. } => [rows, *k, columns],
            _ => [0; 3],
        };
        let element_bytes = dtype.size();
        Ok(PreparedCase {
            operands,
            out,
            second,
            skipped,
            rows,
            row_bytes: columns * element_bytes,
            element_bytes,
            mkn,
        })
    }

    /// Runs the operation. Operations in place change their result when run again.
    ///
    /// # Errors
    /// Those of the backend.
    pub fn apply(&mut self, backend: &B) -> Result<(), KernelError> {
        let out = &mut self.out;
        match &self.operands {
            Operands::Gemm { gemm, x, weight, bias } => match gemm {
                Gemm::Linear => backend.linear(x, weight, *bias, out),
                Gemm::Residual => backend.linear_residual(x, weight, *bias, out),
                Gemm::Activated(activation) => backend.linear_activated(x, weight, *bias, *activation, out),
                Gemm::Gated(activation) => backend.linear_gated(x, weight, *bias, *activation, out),
            },
            Operands::Folded(folded) => folded.apply(backend, out),
            Operands::Qkv { shape, rotary_dim, x, weight, bias, positions, cos, sin } => {
                let Some((key_value, _)) = &mut self.second else {
                    return Err(KernelError::shape("inputs", "no second output"));
                };
                let rotation = Rotation { rotary_dim: *rotary_dim, positions, cos, sin };
                let rotation = (*rotary_dim > 0).then_some(rotation);
                let projection = QkvProjection { shape: *shape, part: QkvPart::All, rotation };
                backend.project_qkv(x, None, weight, *bias, &projection, out, key_value)
            }
            Operands::Norm { norm: Norm::Rms, x, scale, .. } => backend.rms_norm(x, scale, EPS, out),
            Operands::Norm { norm: Norm::RmsResidual, x, scale, .. } => backend.rms_norm_residual(x, scale, EPS, out),
            Operands::Norm { norm: Norm::Layer, x, scale, bias } => backend.layer_norm(x, scale, bias, EPS, out),
            Operands::NormHeads { heads, scale } => backend.rms_norm_heads(out, *heads, scale, EPS),
            Operands::EmbedScaled { table, tokens } => backend.embed(table, tokens, EMBEDDING_FACTOR, out),
            Operands::AddEmbedding { table, rows } => backend.add_embedding(table, rows, out),
            Operands::Rope { head_dim, rotary_dim, positions, cos, sin } => {
                backend.rope(out, 2, *head_dim, *rotary_dim, positions, cos, sin)
            }
            Operands::Route { logits, rule, dtype, .. } => {
                let routes = backend.route(logits, *rule)?;
                let rows = routes.experts().chunks(rule.top_k).zip(routes.weights().chunks(rule.top_k));
                let values: Vec<f32> = rows
                    .flat_map(|(experts, weights)| {
                        experts.iter().map(|expert| *expert as f32).chain(weights.iter().copied())
                    })
                    .collect();
                backend.upload(&dtype.from_f32_slice(&values), out)
            }
            Operands::WeightedRows { x, per_row, rows, weights } => {
                backend.add_weighted_rows(x, WeightedRows { per_row: *per_row, rows, weights }, out)
            }
            Operands::Gather { x, rows } => backend.gather_rows(x, rows, out),
            Operands::Copy { x, from, count } => backend.copy_rows(x, *from, *count, out, COPY_OFFSET),
            Operands::Pool { x, groups, method } => backend.pool(x, groups, *method, out),
            Operands::Attention { query, keys_values, layout, shape, scores } => {
                backend.attention(query, keys_values, layout, *shape, *scores, out)
            }
            Operands::Cast { table, dtype, tokens } => {
                let table = backend.prepare_embedding(table, *dtype)?;
                backend.embed(&table, tokens, 1.0, out)
            }
        }
    }

    /// The minimum work of one run.
    pub fn work(&self) -> Work {
        let result = (self.rows * self.row_bytes) as f64;
        let moved = |bytes: f64| Work { bytes, operations: None };
        match &self.operands {
            Operands::Gemm { gemm, .. } => {
                let [m, k, n] = self.mkn.map(|size| size as f64);
                let matrices = if gemm.is_gated() { 2.0 } else { 1.0 };
                let results = if *gemm == Gemm::Residual { 2.0 } else { 1.0 };
                let elements = m * k + matrices * n * k + results * m * n;
                Work { bytes: elements * self.element_bytes as f64, operations: Some(2.0 * matrices * m * k * n) }
            }
            Operands::Qkv { .. } => {
                let [m, k, n] = self.mkn.map(|size| size as f64);
                Work { bytes: (m * k + n * k + m * n) * self.element_bytes as f64, operations: Some(2.0 * m * k * n) }
            }
            // Two heads of three are read and written, each in part.
            Operands::Rope { head_dim, rotary_dim, .. } => {
                moved(2.0 * result * 2.0 / 3.0 * *rotary_dim as f64 / *head_dim as f64)
            }
            // All heads but one.
            Operands::NormHeads { heads, .. } => moved(2.0 * result * *heads as f64 / (heads + 1) as f64),
            Operands::Norm { norm: Norm::RmsResidual, .. } | Operands::AddEmbedding { .. } => moved(3.0 * result),
            Operands::Pool { groups, .. } => moved((groups.n_rows() + groups.len()) as f64 * self.row_bytes as f64),
            Operands::WeightedRows { per_row, .. } => moved((per_row + 2) as f64 * result),
            // An index and a weight of 4 bytes each for each choice.
            Operands::Route { n_experts, rule, .. } => {
                moved((self.rows * (n_experts * self.element_bytes + 8 * rule.top_k)) as f64)
            }
            Operands::Attention { layout, shape, scores, .. } => {
                let pairs: usize = layout.segments.iter().map(|segment| segment.visible_keys(scores.window)).sum();
                let keys: usize = layout.segments.iter().map(|segment| segment.start_position + segment.len).sum();
                let keys_values = (keys * 2 * shape.kv_width() * self.element_bytes) as f64;
                // A dot product with each visible key, and a fused multiply-add of each value.
                let operations = 4.0 * (pairs * shape.query_width()) as f64;
                Work { bytes: 2.0 * result + keys_values, operations: Some(operations) }
            }
            // Never timed: those of the GEMMs are, and the others are short.
            Operands::Folded(_)
            | Operands::Norm { .. }
            | Operands::EmbedScaled { .. }
            | Operands::Gather { .. }
            | Operands::Copy { .. }
            | Operands::Cast { .. } => moved(2.0 * result),
        }
    }

    /// The bytes of the result.
    ///
    /// # Errors
    /// Those of the backend.
    pub fn result(&self, backend: &B) -> Result<Vec<u8>, KernelError> {
        let rows = self.skipped + self.rows;
        let (second_bytes, second) = match &self.second {
            None => (0, Vec::new()),
            Some((tensor, row_bytes)) => {
                let mut bytes = vec![0; rows * row_bytes];
                backend.download(tensor, rows, &mut bytes)?;
                (*row_bytes, bytes)
            }
        };
        let first_bytes = self.row_bytes - second_bytes;
        let mut first = vec![0; rows * first_bytes];
        backend.download(&self.out, rows, &mut first)?;
        if second_bytes == 0 {
            return Ok(first.split_off(self.skipped * self.row_bytes));
        }
        let both = first.chunks(first_bytes.max(1)).zip(second.chunks(second_bytes));
        Ok(both.flat_map(|(first, second)| [first, second].concat()).collect())
    }
}

/// The queries of `range` of sequences of `lens` positions, one after the other. With two ranges the last two thirds of a
/// sequence's keys lie before its first third.
fn layout(lens: &[usize], key_rows: KeyRows, range: &Range<usize>) -> AttentionLayout {
    let mut segments = Vec::new();
    let mut first = 0;
    for len in lens {
        let (start, end) = (range.start.max(first), range.end.min(first + len));
        if start < end {
            let cut = if key_rows == KeyRows::TwoRanges { len / 3 } else { 0 };
            let n_keys = end - first;
            let keys = vec![(first + len - cut, cut.min(n_keys)), (first, n_keys.saturating_sub(cut))];
            segments.push(AttentionSegment {
                query_row: start - range.start,
                start_position: start - first,
                len: end - start,
                keys,
            });
        }
        first += len;
    }
    AttentionLayout { segments }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::{Case, CaseSelection, Scores, cases};
    use actbench_kernels::{Activation, CpuBackend};

    fn work(operation: Operation) -> Work {
        let cpu = CpuBackend::new(1).unwrap();
        let case = Case { operation, dtype: DType::Bf16, seed: 0 };
        let inputs = Inputs::new(&case);
        let weights = Weights::upload(&cpu, &inputs).unwrap();
        PreparedCase::new(&cpu, &inputs, &weights, 0..case.rows()).unwrap().work()
    }

    #[test]
    fn rows_alone_have_the_bits_of_the_whole() {
        let cpu = CpuBackend::with_isa(1, actbench_kernels::cpu::Isa::Avx512).unwrap();
        for case in cases(5, CaseSelection { shapes: 2, max_dim: 40, model_shapes: false }) {
            let (rows, row_bytes) = (case.rows(), case.columns() * case.dtype.size());
            let whole = compute_all(&cpu, &Inputs::new(&case)).unwrap();
            assert_eq!(whole.len(), rows * row_bytes, "{case}");
            assert!(case.dtype.to_f32_vec(&whole).iter().all(|value| value.is_finite()), "{case}");
            let inputs = Inputs::new(&case);
            let weights = Weights::upload(&cpu, &inputs).unwrap();
            for range in [0..rows / 2, rows / 3..rows, rows - 1..rows] {
                let alone = compute(&cpu, &inputs, &weights, range.clone()).unwrap();
                assert!(alone == whole[range.start * row_bytes..range.end * row_bytes], "{case} {range:?}");
            }
        }
    }

    #[test]
    fn layout_gives_keys_up_to_the_position() {
        let segment = |query_row, start_position, len, keys: [(usize, usize); 2]| AttentionSegment {
            query_row,
            start_position,
            len,
            keys: keys.to_vec(),
        };
        // Sequences at rows 0..6 and 6..9, whose first thirds are stored last.
        let expected = [segment(0, 4, 2, [(4, 2), (0, 4)]), segment(2, 0, 2, [(8, 1), (6, 1)])];
        assert_eq!(layout(&[6, 3], KeyRows::TwoRanges, &(4..8)).segments, expected);
        let expected = [segment(0, 4, 2, [(6, 0), (0, 6)]), segment(2, 0, 2, [(9, 0), (6, 2)])];
        assert_eq!(layout(&[6, 3], KeyRows::Consecutive, &(4..8)).segments, expected);
    }

    #[test]
    fn work_matches_manual_counts() {
        let gemm = |gemm| Operation::Gemm { gemm, m: 3, k: 5, n: 7, biased: false };
        // x, weights and result of 2 bytes each; M * N * K multiplications and additions.
        let linear = Work { bytes: 2.0 * (15.0 + 35.0 + 21.0), operations: Some(2.0 * 105.0) };
        assert_eq!(work(gemm(Gemm::Linear)), linear);
        assert_eq!(work(gemm(Gemm::Residual)).bytes, linear.bytes + 2.0 * 21.0);
        let gated = Work { bytes: linear.bytes + 2.0 * 35.0, operations: Some(4.0 * 105.0) };
        assert_eq!(work(gemm(Gemm::Gated(Activation::Silu))), gated);
        assert_eq!(work(gemm(Gemm::Activated(Activation::Gelu))), linear);
        // Four queries of two heads, two keys and two values: eight columns.
        let shape = AttentionShape { n_heads: 2, n_kv_heads: 1, head_dim: 2 };
        let qkv = Work { bytes: 2.0 * (15.0 + 40.0 + 24.0), operations: Some(2.0 * 120.0) };
        assert_eq!(work(Operation::Qkv { rows: 3, k: 5, shape, rotary_dim: 2, biased: true }), qkv);
        let norm = |norm| work(Operation::Norm { norm, rows: 3, columns: 5 }).bytes;
        assert_eq!([Norm::Rms, Norm::RmsResidual, Norm::Layer].map(norm), [60.0, 90.0, 60.0]);
        // Two of three heads of 4 columns; a half of two of three heads of 8 columns.
        assert_eq!(work(Operation::NormHeads { rows: 3, heads: 2, head_dim: 4 }).bytes, 2.0 * 2.0 * 3.0 * 8.0);
        assert_eq!(work(Operation::Rope { rows: 3, head_dim: 8, rotary_dim: 4 }).bytes, 2.0 * 2.0 * 3.0 * 8.0);
        // Three rows of five, and the output read and written; logits of 2 bytes, and two choices.
        assert_eq!(work(Operation::WeightedRows { rows: 3, columns: 5, per_row: 3 }).bytes, 5.0 * 30.0);
        assert_eq!(work(Operation::Route { rows: 3, experts: 5, top_k: 2 }).bytes, 3.0 * (10.0 + 16.0));
        let shape = AttentionShape { n_heads: 2, n_kv_heads: 1, head_dim: 8 };
        // Positions attend to 1, 2 and 3 keys; queries, results, and keys and values of half the width.
        let attention = Work { bytes: 2.0 * (3.0 * 16.0 * 2.0) + 3.0 * 16.0 * 2.0, operations: Some(4.0 * 6.0 * 16.0) };
        let scores = Scores::default();
        let key_rows = KeyRows::Consecutive;
        assert_eq!(work(Operation::Attention { shape, lens: vec![3], scores, key_rows }), attention);
        // Of 1, 2 and 2 keys.
        let scores = Scores { window: Some(2), cap_tenths: None };
        let windowed = work(Operation::Attention { shape, lens: vec![3], scores, key_rows });
        assert_eq!(windowed.operations, Some(4.0 * 5.0 * 16.0));
    }
}
