//! The cases: operations with fixed shapes and with random shapes from a seed.

use std::fmt;

use actbench_kernels::cuda::registry;
use actbench_kernels::{AttentionShape, DType, PoolMethod};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The storage types.
pub const DTYPES: [DType; 3] = [DType::F32, DType::F16, DType::Bf16];

/// A GEMM with weights, by its epilogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gemm {
    /// Stores the result.
    Linear,
    /// Adds the result to the output.
    Residual,
    /// Joins gate and up projection by SwiGLU.
    SwiGlu,
}

/// An operation with the shapes of its inputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// `[m, k]` times `[n, k]` transposed; `n` are the columns of the result.
    Gemm { gemm: Gemm, m: usize, k: usize, n: usize, biased: bool },
    /// RMSNorm of `[rows, columns]`.
    RmsNorm { rows: usize, columns: usize },
    /// Rotates the first two of three heads a row.
    Rope { rows: usize, head_dim: usize },
    /// Rows in random order, with repetitions.
    Gather { rows: usize, columns: usize },
    /// Copies consecutive rows into the middle of another tensor.
    Copy { rows: usize, columns: usize },
    /// Groups of 0 to 20 rows.
    Pool { groups: usize, columns: usize, method: PoolMethod },
    /// Whole sequences, each with its keys in two ranges, the later positions stored first.
    Attention { shape: AttentionShape, lens: Vec<usize> },
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
            | Operation::RmsNorm { rows, .. }
            | Operation::Rope { rows, .. }
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
            Operation::RmsNorm { columns, .. }
            | Operation::Gather { columns, .. }
            | Operation::Copy { columns, .. }
            | Operation::Pool { columns, .. }
            | Operation::Cast { columns, .. } => *columns,
            Operation::Rope { head_dim, .. } => 3 * head_dim,
            Operation::Attention { shape, .. } => shape.query_width(),
        }
    }

    /// The operation of its kernels.
    pub fn kernel_operation(&self) -> registry::Operation {
        match &self.operation {
            Operation::Gemm { gemm: Gemm::Linear, .. } => registry::Operation::Linear,
            Operation::Gemm { gemm: Gemm::Residual, .. } => registry::Operation::LinearResidual,
            Operation::Gemm { gemm: Gemm::SwiGlu, .. } => registry::Operation::LinearSwiGlu,
            Operation::RmsNorm { .. } => registry::Operation::RmsNorm,
            Operation::Rope { .. } => registry::Operation::Rope,
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
                let name = match gemm {
                    Gemm::Linear => "linear",
                    Gemm::Residual => "linear residual",
                    Gemm::SwiGlu => "linear swiglu",
                };
                let bias = if *biased { ", bias" } else { "" };
                write!(f, "{name} {} [{m}, {k}] x [{n}, {k}]{bias}", self.dtype)
            }
            Operation::RmsNorm { rows, columns } => write!(f, "rms norm {} [{rows}, {columns}]", self.dtype),
            Operation::Rope { rows, head_dim } => write!(f, "rope {} {rows} rows, heads of {head_dim}", self.dtype),
            Operation::Gather { rows, columns } => write!(f, "gather rows {} [{rows}, {columns}]", self.dtype),
            Operation::Copy { rows, columns } => write!(f, "copy rows {} [{rows}, {columns}]", self.dtype),
            Operation::Pool { groups, columns, method } => {
                write!(f, "{method} pool {} {groups} groups of {columns} columns", self.dtype)
            }
            Operation::Attention { shape: AttentionShape { n_heads, n_kv_heads, head_dim }, lens } => write!(
                f,
                "attention {} {n_heads} heads of {head_dim}, {n_kv_heads} KV heads, sequences of {lens:?}",
                self.dtype
            ),
            Operation::Cast { from, rows, columns } => write!(f, "cast {from} to {} [{rows}, {columns}]", self.dtype),
        }
    }
}

/// Shapes at the edges: single elements, tails of every tile, every head width that a kernel exists for.
fn fixed_operations() -> Vec<Operation> {
    let mut operations = Vec::new();
    for gemm in [Gemm::Linear, Gemm::Residual, Gemm::SwiGlu] {
        for (m, k, n, biased) in
            [(1, 8, 1, true), (129, 72, 130, true), (5, 7, 33, false), (64, 328, 96, false), (3, 64, 264, true)]
        {
            operations.push(Operation::Gemm { gemm, m, k, n, biased });
        }
    }
    for columns in [1, 17, 130, 136] {
        operations.push(Operation::RmsNorm { rows: 4, columns });
        operations.push(Operation::Gather { rows: 9, columns });
        operations.push(Operation::Copy { rows: 3, columns });
        for method in PoolMethod::ALL {
            operations.push(Operation::Pool { groups: 5, columns, method });
        }
        for from in DTYPES {
            operations.push(Operation::Cast { from, rows: 3, columns });
        }
    }
    for head_dim in [2, 10, 64, 160] {
        operations.push(Operation::Rope { rows: 3, head_dim });
    }
    for (n_heads, n_kv_heads, head_dim) in
        [(2, 1, 16), (3, 1, 12), (1, 1, 64), (1, 1, 80), (1, 1, 96), (1, 1, 128), (1, 1, 256)]
    {
        let shape = AttentionShape { n_heads, n_kv_heads, head_dim };
        operations.push(Operation::Attention { shape, lens: vec![65, 1, 80] });
    }
    operations
}

/// A random shape of each operation, with dimensions of at most `max_dim`.
fn random_operations(rng: &mut ChaCha8Rng, max_dim: usize) -> Vec<Operation> {
    let mut operations = Vec::new();
    for gemm in [Gemm::Linear, Gemm::Residual, Gemm::SwiGlu] {
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
    operations.push(Operation::RmsNorm { rows: dim(20), columns: dim(4 * max_dim) });
    operations.push(Operation::Rope { rows: dim(max_dim), head_dim: 2 * dim(128) });
    operations.push(Operation::Gather { rows: dim(max_dim), columns: dim(max_dim) });
    operations.push(Operation::Copy { rows: dim(max_dim), columns: dim(max_dim) });
    let method = PoolMethod::ALL[dim(4) - 1];
    operations.push(Operation::Pool { groups: dim(20), columns: dim(2 * max_dim), method });
    operations.push(Operation::Cast { from: DTYPES[dim(3) - 1], rows: dim(max_dim), columns: dim(max_dim) });
    let n_kv_heads = dim(2);
    let head_dim = if dim(4) > 1 { 8 * dim(32) } else { dim(256) };
    let shape = AttentionShape { n_heads: n_kv_heads * dim(4), n_kv_heads, head_dim };
    let lens = (0..dim(3)).map(|_| dim(max_dim)).collect();
    operations.push(Operation::Attention { shape, lens });
    operations
}

/// A layer of a 1B and of an 8B Llama model.
fn model_operations() -> Vec<Operation> {
    let mut operations = Vec::new();
    for (rows, hidden, wide, n_heads, head_dim) in [(300, 2048, 8192, 32, 64), (130, 4096, 14336, 32, 128)] {
        let gemm = |gemm, k, n| Operation::Gemm { gemm, m: rows, k, n, biased: false };
        operations.push(gemm(Gemm::Linear, hidden, hidden + 2 * 8 * head_dim));
        operations.push(gemm(Gemm::SwiGlu, hidden, wide));
        operations.push(gemm(Gemm::Residual, wide, hidden));
        operations.push(Operation::RmsNorm { rows, columns: hidden });
        let shape = AttentionShape { n_heads, n_kv_heads: 8, head_dim };
        operations.push(Operation::Attention { shape, lens: vec![rows / 3, rows] });
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
        let first = cases.len() as u64;
        cases.extend(operations.into_iter().enumerate().map(|(number, operation)| Case {
            operation,
            dtype,
            seed: seed.wrapping_add(first + number as u64),
        }));
    }
    cases
}
