//! The cases: operations with fixed shapes and with random shapes from a seed.

use std::fmt;

use actbench_kernels::cuda::registry;
use actbench_kernels::{Activation, AttentionShape, DType, PoolMethod, ScoreRule};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::folded_operation::{self, Folded};

/// The storage types.
pub const DTYPES: [DType; 3] = [DType::F32, DType::F16, DType::Bf16];

/// A GEMM with weights, by its epilogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gemm {
    /// Stores the result.
    Linear,
    /// Adds the result to the output.
    Residual,
    /// Stores the activation of the result.
    Activated(Activation),
    /// Joins gate and up projection by an activation.
    Gated(Activation),
}

impl Gemm {
    /// Every epilogue with every activation.
    const ALL: [Gemm; 8] = [
        Gemm::Linear,
        Gemm::Residual,
        Gemm::Activated(Activation::Silu),
        Gemm::Activated(Activation::Gelu),
        Gemm::Activated(Activation::GeluTanh),
        Gemm::Gated(Activation::Silu),
        Gemm::Gated(Activation::Gelu),
        Gemm::Gated(Activation::GeluTanh),
    ];

    /// Whether it has gate and up projection.
    pub fn is_gated(self) -> bool {
        matches!(self, Gemm::Gated(_))
    }
}

impl fmt::Display for Gemm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Gemm::Linear => f.write_str("linear"),
            Gemm::Residual => f.write_str("linear residual"),
            Gemm::Activated(activation) => write!(f, "linear {}", activation.name()),
            Gemm::Gated(activation) => write!(f, "linear gated {}", activation.name()),
        }
    }
}

/// A norm, by its input and output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Norm {
    /// RMSNorm of rows.
    Rms,
    /// RMSNorm of rows, added to the output.
    RmsResidual,
    /// LayerNorm of rows.
    Layer,
}

impl Norm {
    /// All norms of rows.
    const ALL: [Norm; 3] = [Norm::Rms, Norm::RmsResidual, Norm::Layer];

    /// The name in reports.
    fn name(self) -> &'static str {
        match self {
            Norm::Rms => "rms norm",
            Norm::RmsResidual => "rms norm residual",
            Norm::Layer => "layer norm",
        }
    }
}

/// Whether attention has a window and a soft cap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scores {
    /// Visible positions of a row; all where this is none.
    pub window: Option<usize>,
    /// A soft cap, in tenths.
    pub cap_tenths: Option<u16>,
}

impl Scores {
    /// The rule for heads of `head_dim` elements. Capped scores have another scale than the usual one.
    pub fn rule(self, head_dim: usize) -> ScoreRule {
        let usual = ScoreRule::of_head_dim(head_dim);
        let soft_cap = self.cap_tenths.map(|tenths| f32::from(tenths) / 10.0);
        let scale = if soft_cap.is_some() { 1.25 * usual.scale } else { usual.scale };
        ScoreRule { scale, window: self.window, soft_cap }
    }
}

impl fmt::Display for Scores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(window) = self.window {
            write!(f, ", window {window}")?;
        }
        match self.cap_tenths {
            Some(tenths) => write!(f, ", soft cap {}.{}", tenths / 10, tenths % 10),
            None => Ok(()),
        }
    }
}

/// Where the keys and values of a sequence are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyRows {
    /// In consecutive rows, as those of a whole sequence.
    Consecutive,
    /// In two ranges, the later positions first, as those of a node of a prefix tree.
    TwoRanges,
}

/// An operation with the shapes of its inputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// `[m, k]` times `[n, k]` transposed; `n` are the columns of the result.
    Gemm { gemm: Gemm, m: usize, k: usize, n: usize, biased: bool },
    /// An operation of folded norms, of a GEMM of `rows` rows, `k` inputs and `n` outputs.
    Folded { folded: Folded, rows: usize, k: usize, n: usize },
    /// Queries, keys and values of `[rows, k]`, with queries and keys rotated if `rotary_dim` is not 0.
    Qkv { rows: usize, k: usize, shape: AttentionShape, rotary_dim: usize, biased: bool },
    /// A norm of `[rows, columns]`.
    Norm { norm: Norm, rows: usize, columns: usize },
    /// RMSNorm of the first `heads` heads of a row, which has one more.
    NormHeads { rows: usize, heads: usize, head_dim: usize },
    /// Rotates the first `rotary_dim` columns of the first two of three heads a row.
    Rope { rows: usize, head_dim: usize, rotary_dim: usize },
    /// Rows of an embedding table in random order, times a factor.
    EmbedScaled { rows: usize, columns: usize },
    /// Rows of an embedding table in random order, added to the output.
    AddEmbedding { rows: usize, columns: usize },
    /// The `top_k` of `experts` experts of each row of logits, and their weights, side by side.
    Route { rows: usize, experts: usize, top_k: usize },
    /// Weighted sums of so many rows in random order, added to the output.
    WeightedRows { rows: usize, columns: usize, per_row: usize },
    /// Rows in random order, with repetitions.
    Gather { rows: usize, columns: usize },
    /// Copies consecutive rows into the middle of another tensor.
    Copy { rows: usize, columns: usize },
    /// Groups of 0 to 20 rows.
    Pool { groups: usize, columns: usize, method: PoolMethod },
    /// Whole sequences.
    Attention { shape: AttentionShape, lens: Vec<usize>, scores: Scores, key_rows: KeyRows },
    /// Converts weights of type `from` to the type of the case.
    Cast { from: DType, rows: usize, columns: usize },
}

/// An operation with its element type and the seed of its values. Displayed without the seed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    pub operation: Operation,
    pub dtype: DType,
    pub seed: u64,
}

impl Case {
    /// Rows of the result.
    pub fn rows(&self) -> usize {
        match &self.operation {
            Operation::Gemm { m: rows, .. }
            | Operation::Folded { rows, .. }
            | Operation::Qkv { rows, .. }
            | Operation::Norm { rows, .. }
            | Operation::NormHeads { rows, .. }
            | Operation::Rope { rows, .. }
            | Operation::EmbedScaled { rows, .. }
            | Operation::AddEmbedding { rows, .. }
            | Operation::Route { rows, .. }
            | Operation::WeightedRows { rows, .. }
            | Operation::Gather { rows, .. }
            | Operation::Copy { rows, .. }
            | Operation::Cast { rows, .. } => *rows,
            Operation::Pool { groups, .. } => *groups,
            Operation::Attention { lens, .. } => lens.iter().sum(),
        }
    }

    /// Columns of the result.
    pub fn columns(&self) -> usize {
        match &self.operation {
            Operation::Gemm { n, .. } => *n,
            Operation::Folded { folded, k, n, .. } => folded.columns(*k, *n),
            Operation::Qkv { shape, .. } => shape.query_width() + 2 * shape.kv_width(),
            Operation::Norm { columns, .. }
            | Operation::EmbedScaled { columns, .. }
            | Operation::AddEmbedding { columns, .. }
            | Operation::WeightedRows { columns, .. }
            | Operation::Gather { columns, .. }
            | Operation::Copy { columns, .. }
            | Operation::Pool { columns, .. }
            | Operation::Cast { columns, .. } => *columns,
            Operation::NormHeads { heads, head_dim, .. } => (heads + 1) * head_dim,
            Operation::Rope { head_dim, .. } => 3 * head_dim,
            Operation::Route { top_k, .. } => 2 * top_k,
            Operation::Attention { shape, .. } => shape.query_width(),
        }
    }

    /// The operation of its kernels.
    pub fn kernel_operation(&self) -> registry::Operation {
        match &self.operation {
            Operation::Gemm { gemm: Gemm::Linear | Gemm::Activated(_), .. } => registry::Operation::Linear,
            Operation::Gemm { gemm: Gemm::Residual, .. } => registry::Operation::LinearResidual,
            Operation::Gemm { gemm: Gemm::Gated(_), .. } => registry::Operation::LinearGated,
            Operation::Folded { folded, .. } => match folded {
                Folded::ResidualSquares => registry::Operation::LinearResidual,
                Folded::Projection => registry::Operation::Linear,
                Folded::GatedProjection => registry::Operation::LinearGated,
                Folded::Weights => registry::Operation::FoldNorm,
                Folded::SquareSums => registry::Operation::SquareSums,
            },
            Operation::Qkv { .. } => registry::Operation::LinearQkv,
            Operation::Norm { norm: Norm::Rms, .. } => registry::Operation::RmsNorm,
            Operation::Norm { norm: Norm::RmsResidual, .. } => registry::Operation::RmsNormResidual,
            Operation::Norm { norm: Norm::Layer, .. } => registry::Operation::LayerNorm,
            Operation::NormHeads { .. } => registry::Operation::RmsNormHeads,
            Operation::EmbedScaled { .. } => registry::Operation::EmbedScaled,
            Operation::AddEmbedding { .. } => registry::Operation::AddEmbedding,
            Operation::Rope { .. } => registry::Operation::Rope,
            Operation::Route { .. } => registry::Operation::Route,
            Operation::WeightedRows { .. } => registry::Operation::AddWeightedRows,
            Operation::Gather { .. } | Operation::Copy { .. } => registry::Operation::GatherRows,
            Operation::Pool { .. } => registry::Operation::Pool,
            Operation::Attention { .. } => registry::Operation::Attention,
            Operation::Cast { from, .. } => registry::Operation::Cast { from: *from },
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.operation {
            Operation::Gemm { gemm, m, k, n, biased } => {
                let bias = if *biased { ", bias" } else { "" };
                write!(f, "{gemm} {} [{m}, {k}] x [{n}, {k}]{bias}", self.dtype)
            }
            Operation::Folded { folded, rows, k, n } => {
                write!(f, "{} {} [{rows}, {k}] x [{n}, {k}]", folded.name(), self.dtype)
            }
            Operation::Qkv { rows, k, shape: AttentionShape { n_heads, n_kv_heads, head_dim }, rotary_dim, biased } => {
                let bias = if *biased { ", bias" } else { "" };
                let heads = format!("{n_heads} heads of {head_dim}, {n_kv_heads} KV heads, {rotary_dim} rotated");
                write!(f, "qkv {} [{rows}, {k}], {heads}{bias}", self.dtype)
            }
            Operation::Norm { norm, rows, columns } => {
                write!(f, "{} {} [{rows}, {columns}]", norm.name(), self.dtype)
            }
            Operation::NormHeads { rows, heads, head_dim } => {
                write!(f, "rms norm of heads {} {rows} rows, {heads} heads of {head_dim}", self.dtype)
            }
            Operation::Rope { rows, head_dim, rotary_dim } => {
                write!(f, "rope {} {rows} rows, heads of {head_dim}", self.dtype)?;
                if rotary_dim == head_dim { Ok(()) } else { write!(f, ", {rotary_dim} rotated") }
            }
            Operation::EmbedScaled { rows, columns } => write!(f, "embed scaled {} [{rows}, {columns}]", self.dtype),
            Operation::AddEmbedding { rows, columns } => write!(f, "add embedding {} [{rows}, {columns}]", self.dtype),
            Operation::Route { rows, experts, top_k } => {
                write!(f, "route {} {rows} rows, {top_k} of {experts} experts", self.dtype)
            }
            Operation::WeightedRows { rows, columns, per_row } => {
                write!(f, "add weighted rows {} [{rows}, {columns}], sums of {per_row}", self.dtype)
            }
            Operation::Gather { rows, columns } => write!(f, "gather rows {} [{rows}, {columns}]", self.dtype),
            Operation::Copy { rows, columns } => write!(f, "copy rows {} [{rows}, {columns}]", self.dtype),
            Operation::Pool { groups, columns, method } => {
                write!(f, "{method} pool {} {groups} groups of {columns} columns", self.dtype)
            }
            Operation::Attention { shape, lens, scores, key_rows } => {
                let AttentionShape { n_heads, n_kv_heads, head_dim } = shape;
                let ranges = if *key_rows == KeyRows::TwoRanges { ", keys in two ranges" } else { "" };
                write!(
                    f,
                    "attention {} {n_heads} heads of {head_dim}, {n_kv_heads} KV heads, sequences of {lens:?}{scores}{ranges}",
                    self.dtype
                )
            }
            Operation::Cast { from, rows, columns } => write!(f, "cast {from} to {} [{rows}, {columns}]", self.dtype),
        }
    }
}

/// Shapes at the edges: single elements, tails of every tile, every head width that a kernel exists for.
fn fixed_operations() -> Vec<Operation> {
    let mut operations = Vec::new();
    for gemm in Gemm::ALL {
        // Tails of both tiles, the plain kernel, and stores of eight columns.
        for (m, k, n, biased) in [(129, 72, 130, true), (5, 7, 33, false), (3, 64, 264, true)] {
            operations.push(Operation::Gemm { gemm, m, k, n, biased });
        }
    }
    for gemm in [Gemm::Linear, Gemm::Residual, Gemm::Gated(Activation::Silu)] {
        for (m, k, n, biased) in [(1, 8, 1, true), (64, 328, 96, false)] {
            operations.push(Operation::Gemm { gemm, m, k, n, biased });
        }
    }
    // Heads over the ends of tiles, the plain kernel, a part of each head, and no rotation.
    for (rows, k, heads, rotary_dim, biased) in [
        (67, 72, (9, 3, 64), 64, true),
        (5, 7, (3, 1, 10), 4, false),
        (3, 64, (2, 1, 80), 32, true),
        (4, 8, (1, 1, 24), 0, true),
    ] {
        let (n_heads, n_kv_heads, head_dim) = heads;
        let shape = AttentionShape { n_heads, n_kv_heads, head_dim };
        operations.push(Operation::Qkv { rows, k, shape, rotary_dim, biased });
    }
    for columns in [1, 17, 130, 136] {
        operations.extend(Norm::ALL.map(|norm| Operation::Norm { norm, rows: 4, columns }));
        operations.push(Operation::NormHeads { rows: 5, heads: 3, head_dim: columns });
        operations.push(Operation::EmbedScaled { rows: 6, columns });
        operations.push(Operation::AddEmbedding { rows: 6, columns });
        operations.push(Operation::WeightedRows { rows: 6, columns, per_row: 3 });
        operations.push(Operation::Route { rows: 5, experts: columns, top_k: columns.min(4) });
        operations.push(Operation::Gather { rows: 9, columns });
        operations.push(Operation::Copy { rows: 3, columns });
        for method in PoolMethod::ALL {
            operations.push(Operation::Pool { groups: 5, columns, method });
        }
        for from in DTYPES {
            operations.push(Operation::Cast { from, rows: 3, columns });
        }
    }
    for (head_dim, rotary_dim) in [(2, 2), (10, 10), (64, 64), (160, 160), (10, 4), (96, 48), (80, 32)] {
        operations.push(Operation::Rope { rows: 3, head_dim, rotary_dim });
    }
    for (n_heads, n_kv_heads, head_dim) in
        [(2, 1, 16), (3, 1, 12), (1, 1, 64), (1, 1, 80), (1, 1, 96), (1, 1, 128), (1, 1, 256)]
    {
        let shape = AttentionShape { n_heads, n_kv_heads, head_dim };
        let key_rows = KeyRows::TwoRanges;
        operations.push(Operation::Attention { shape, lens: vec![65, 1, 80], scores: Scores::default(), key_rows });
    }
    // Groups of heads that fill the 64 rows of a tile and that do not, up to one of more heads than rows.
    for (n_heads, n_kv_heads, lens) in
        [(4, 2, [70, 2]), (5, 1, [30, 1]), (14, 2, [20, 3]), (8, 1, [66, 1]), (71, 1, [3, 1])]
    {
        let shape = AttentionShape { n_heads, n_kv_heads, head_dim: 24 };
        let (lens, scores) = (lens.to_vec(), Scores::default());
        operations.push(Operation::Attention { shape, lens, scores, key_rows: KeyRows::Consecutive });
    }
    // The widths of heads that a kernel of their own exists for: groups, several tiles, and more blocks of keys than stages.
    for (n_heads, n_kv_heads, head_dim, lens) in
        [(2, 2, 64, [270, 3]), (7, 1, 64, [40, 1]), (3, 1, 128, [90, 2]), (1, 1, 128, [270, 1])]
    {
        for key_rows in [KeyRows::Consecutive, KeyRows::TwoRanges] {
            let shape = AttentionShape { n_heads, n_kv_heads, head_dim };
            let (lens, scores) = (lens.to_vec(), Scores::default());
            operations.push(Operation::Attention { shape, lens, scores, key_rows });
        }
    }
    for head_dim in [64, 128] {
        let shape = AttentionShape { n_heads: 3, n_kv_heads: 1, head_dim };
        let scores = Scores { window: Some(70), cap_tenths: Some(30) };
        operations.push(Operation::Attention { shape, lens: vec![150, 9], scores, key_rows: KeyRows::TwoRanges });
    }
    // Windows within a block of 64 keys, of a block, over its end and beyond every row, and soft caps.
    for (window, cap_tenths) in [
        (Some(1), None),
        (Some(9), None),
        (Some(64), None),
        (Some(70), None),
        (Some(500), None),
        (None, Some(500)),
        (Some(66), Some(15)),
    ] {
        let shape = AttentionShape { n_heads: 2, n_kv_heads: 1, head_dim: 24 };
        let (lens, scores) = (vec![65, 1, 150], Scores { window, cap_tenths });
        operations.push(Operation::Attention { shape, lens, scores, key_rows: KeyRows::TwoRanges });
    }
    for head_dim in [128, 256] {
        let shape = AttentionShape { n_heads: 1, n_kv_heads: 1, head_dim };
        let scores = Scores { window: Some(70), cap_tenths: Some(30) };
        operations.push(Operation::Attention { shape, lens: vec![150], scores, key_rows: KeyRows::Consecutive });
    }
    operations
}

/// A random shape of each operation, with dimensions of at most `max_dim`.
fn random_operations(rng: &mut ChaCha8Rng, max_dim: usize) -> Vec<Operation> {
    let mut operations = Vec::new();
    let activation = Activation::ALL[rng.random_range(0..Activation::ALL.len())];
    for gemm in [Gemm::Linear, Gemm::Residual, Gemm::Activated(activation), Gemm::Gated(activation)] {
        // Mostly widths that tensor cores take.
        let is_multiple = rng.random_range(0..4) > 0;
        let k = rng.random_range(1..=max_dim / 8) * 8;
        operations.push(Operation::Gemm {
            gemm,
            m: rng.random_range(1..=max_dim),
            k: if is_multiple { k } else { k - rng.random_range(1..8) },
            n: rng.random_range(1..=max_dim),
            biased: rng.random_range(0..2) == 0,
        });
    }
    let mut dim = |max: usize| rng.random_range(1..=max);
    operations.extend(Norm::ALL.map(|norm| Operation::Norm { norm, rows: dim(20), columns: dim(4 * max_dim) }));
    operations.push(Operation::NormHeads { rows: dim(20), heads: dim(8), head_dim: dim(max_dim) });
    operations.push(Operation::EmbedScaled { rows: dim(max_dim), columns: dim(max_dim) });
    operations.push(Operation::AddEmbedding { rows: dim(max_dim), columns: dim(max_dim) });
    operations.push(Operation::WeightedRows { rows: dim(max_dim), columns: dim(max_dim), per_row: dim(8) });
    // Types of 16 bits do not represent every larger index.
    let experts = dim(256);
    operations.push(Operation::Route { rows: dim(max_dim), experts, top_k: dim(experts.min(8)) });
    let half = dim(128);
    operations.push(Operation::Rope { rows: dim(max_dim), head_dim: 2 * half, rotary_dim: 2 * dim(half) });
    operations.push(Operation::Gather { rows: dim(max_dim), columns: dim(max_dim) });
    operations.push(Operation::Copy { rows: dim(max_dim), columns: dim(max_dim) });
    let method = PoolMethod::ALL[dim(4) - 1];
    operations.push(Operation::Pool { groups: dim(20), columns: dim(2 * max_dim), method });
    operations.push(Operation::Cast { from: DTYPES[dim(3) - 1], rows: dim(max_dim), columns: dim(max_dim) });
    let n_kv_heads = dim(2);
    let head_dim = 16 * dim(8);
    let shape = AttentionShape { n_heads: n_kv_heads * dim(3), n_kv_heads, head_dim };
    let rotary_dim = if dim(2) > 1 { head_dim } else { 2 * (dim(head_dim / 2 + 1) - 1) };
    let k = 8 * dim(max_dim.div_ceil(8));
    operations.push(Operation::Qkv { rows: dim(max_dim), k, shape, rotary_dim, biased: dim(2) > 1 });
    let head_dim = if dim(4) > 1 { 8 * dim(32) } else { dim(256) };
    let shape = AttentionShape { n_heads: n_kv_heads * dim(4), n_kv_heads, head_dim };
    let lens = (0..dim(3)).map(|_| dim(max_dim)).collect();
    // Also windows longer than every sequence.
    let window = (dim(2) > 1).then(|| dim(max_dim + 20));
    let cap_tenths = (dim(2) > 1).then(|| 5 + dim(500) as u16);
    let key_rows = if dim(2) > 1 { KeyRows::TwoRanges } else { KeyRows::Consecutive };
    operations.push(Operation::Attention { shape, lens, scores: Scores { window, cap_tenths }, key_rows });
    operations
}

/// Folded norms: tails of both tiles and of the last block of columns, and outputs that `wgmma` takes or does not.
fn folded_operations() -> Vec<Operation> {
    let sizes = [
        (Folded::ResidualSquares, 129, 72, 328),
        (Folded::ResidualSquares, 3, 64, 130),
        (Folded::Projection, 129, 136, 264),
        (Folded::Projection, 5, 72, 130),
        (Folded::GatedProjection, 67, 136, 136),
        (Folded::GatedProjection, 3, 64, 33),
        (Folded::Weights, 136, 136, 9),
        (Folded::SquareSums, 5, 1100, 1),
        (Folded::SquareSums, 4, 48, 1),
    ];
    sizes.into_iter().map(|(folded, rows, k, n)| Operation::Folded { folded, rows, k, n }).collect()
}

/// A layer of a 1B and of an 8B Llama model.
fn model_operations() -> Vec<Operation> {
    let mut operations = Vec::new();
    for (rows, hidden, wide, n_heads, head_dim) in [(300, 2048, 8192, 32, 64), (130, 4096, 14336, 32, 128)] {
        let gemm = |gemm, k, n| Operation::Gemm { gemm, m: rows, k, n, biased: false };
        let shape = AttentionShape { n_heads, n_kv_heads: 8, head_dim };
        operations.push(Operation::Qkv { rows, k: hidden, shape, rotary_dim: head_dim, biased: false });
        operations.push(gemm(Gemm::Gated(Activation::Silu), hidden, wide));
        operations.push(gemm(Gemm::Residual, wide, hidden));
        operations.push(Operation::Norm { norm: Norm::Rms, rows, columns: hidden });
        let shape = AttentionShape { n_heads, n_kv_heads: 8, head_dim };
        let (lens, scores) = (vec![rows / 3, rows], Scores::default());
        operations.push(Operation::Attention { shape, lens, scores, key_rows: KeyRows::Consecutive });
    }
    operations
}

/// The number and size of the cases.
#[derive(Clone, Copy, Debug)]
pub struct CaseSelection {
    /// Random shapes of each operation and type.
    pub shapes: usize,
    /// The largest dimension of a random shape.
    pub max_dim: usize,
    /// Whether to include the shapes of real models.
    pub model_shapes: bool,
}

/// All cases, in a fixed order.
pub fn cases(seed: u64, selection: CaseSelection) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for (index, dtype) in DTYPES.into_iter().enumerate() {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(index as u64);
        let mut operations = fixed_operations();
        for _ in 0..selection.shapes {
            operations.extend(random_operations(&mut rng, selection.max_dim));
        }
        if selection.model_shapes && dtype != DType::F32 {
            operations.extend(model_operations());
        }
        if dtype == folded_operation::DTYPE {
            operations.extend(folded_operations());
        }
        let first = cases.len() as u64;
        cases.extend(operations.into_iter().enumerate().map(|(number, operation)| Case {
            operation,
            dtype,
            seed: seed.wrapping_add(first + number as u64),
        }));
    }
    cases
}
