//! What is checked: operations with their shapes, the fixed ones and those drawn from a seed.

use std::fmt;

use actbench_kernels::{AttentionShape, DType, PoolMethod};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The storage types.
pub const DTYPES: [DType; 3] = [DType::F32, DType::F16, DType::Bf16];

/// A product with weights, by what happens to its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Product {
    /// Stored.
    Linear,
    /// Added to the stream.
    Residual,
    /// A gate and an up projection.
    SwiGlu,
}

/// An operation with the shapes of its inputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// `[rows, inputs]` times `[outputs, inputs]` transposed.
    Product { product: Product, rows: usize, inputs: usize, outputs: usize, biased: bool },
    /// Of `[rows, columns]`.
    RmsNorm { rows: usize, columns: usize },
    /// The first two of three heads a row.
    Rope { rows: usize, head_dim: usize },
    /// Rows in another order, some of them twice.
    Gather { rows: usize, columns: usize },
    /// Consecutive rows into the middle of another tensor.
    Copy { rows: usize, columns: usize },
    /// Groups of 0 to 20 rows each.
    Pool { groups: usize, columns: usize, method: PoolMethod },
    /// Whole sequences, each with its keys in two runs, the later positions stored first.
    Attention { shape: AttentionShape, lens: Vec<usize> },
    /// Weights of type `from` converted to the case's.
    Cast { from: DType, rows: usize, columns: usize },
}

/// An operation with the type it runs in and the seed of its values. Printed without the seed.
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
            Operation::Product { rows, .. }
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
            Operation::Product { outputs, .. } => *outputs,
            Operation::RmsNorm { columns, .. }
            | Operation::Gather { columns, .. }
            | Operation::Copy { columns, .. }
            | Operation::Pool { columns, .. }
            | Operation::Cast { columns, .. } => *columns,
            Operation::Rope { head_dim, .. } => 3 * head_dim,
            Operation::Attention { shape, .. } => shape.query_width(),
        }
    }

    /// What the names of the operation's kernels begin with.
    pub fn kernels(&self) -> &'static str {
        match &self.operation {
            Operation::Product { product: Product::Linear, .. } => "linear_",
            Operation::Product { product: Product::Residual, .. } => "linear_residual_",
            Operation::Product { product: Product::SwiGlu, .. } => "linear_swiglu_",
            Operation::RmsNorm { .. } => "rms_norm_",
            Operation::Rope { .. } => "rope_",
            Operation::Gather { .. } | Operation::Copy { .. } => "gather_rows_",
            Operation::Pool { .. } => "pool_",
            Operation::Attention { .. } => "attention_",
            Operation::Cast { .. } => "cast_",
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.operation {
            Operation::Product { product, rows, inputs, outputs, biased } => {
                let name = match product {
                    Product::Linear => "linear",
                    Product::Residual => "linear residual",
                    Product::SwiGlu => "linear swiglu",
                };
                let bias = if *biased { ", bias" } else { "" };
                write!(f, "{name} {} [{rows}, {inputs}] x [{outputs}, {inputs}]{bias}", self.dtype)
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
                "attention {} {n_heads} heads of {head_dim}, {n_kv_heads} of keys, sequences of {lens:?}",
                self.dtype
            ),
            Operation::Cast { from, rows, columns } => write!(f, "cast {from} to {} [{rows}, {columns}]", self.dtype),
        }
    }
}

/// Shapes at the edges: one of everything, tails of every tile, every width of head that a kernel exists for.
fn fixed() -> Vec<Operation> {
    let mut operations = Vec::new();
    for product in [Product::Linear, Product::Residual, Product::SwiGlu] {
        for (rows, inputs, outputs, biased) in
            [(1, 8, 1, true), (129, 72, 130, true), (5, 7, 33, false), (64, 328, 96, false), (3, 64, 264, true)]
        {
            operations.push(Operation::Product { product, rows, inputs, outputs, biased });
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

/// Shapes of each operation drawn from `rng`, with sides of at most `side`.
fn drawn(rng: &mut ChaCha8Rng, side: usize) -> Vec<Operation> {
    let mut operations = Vec::new();
    for product in [Product::Linear, Product::Residual, Product::SwiGlu] {
        // Mostly widths that tensor cores take.
        let whole = rng.random_range(0..4) > 0;
        let inputs = rng.random_range(1..=side / 8) * 8;
        operations.push(Operation::Product {
            product,
            rows: rng.random_range(1..=side),
            inputs: if whole { inputs } else { inputs - rng.random_range(1..8) },
            outputs: rng.random_range(1..=side),
            biased: rng.random_range(0..2) == 0,
        });
    }
    let mut extent = |most: usize| rng.random_range(1..=most);
    operations.push(Operation::RmsNorm { rows: extent(20), columns: extent(4 * side) });
    operations.push(Operation::Rope { rows: extent(side), head_dim: 2 * extent(128) });
    operations.push(Operation::Gather { rows: extent(side), columns: extent(side) });
    operations.push(Operation::Copy { rows: extent(side), columns: extent(side) });
    let method = PoolMethod::ALL[extent(4) - 1];
    operations.push(Operation::Pool { groups: extent(20), columns: extent(2 * side), method });
    operations.push(Operation::Cast { from: DTYPES[extent(3) - 1], rows: extent(side), columns: extent(side) });
    let n_kv_heads = extent(2);
    let head_dim = if extent(4) > 1 { 8 * extent(32) } else { extent(256) };
    let shape = AttentionShape { n_heads: n_kv_heads * extent(4), n_kv_heads, head_dim };
    let lens = (0..extent(3)).map(|_| extent(side)).collect();
    operations.push(Operation::Attention { shape, lens });
    operations
}

/// A layer of a 1B Llama model and one of an 8B: what the kernels are for.
fn of_models() -> Vec<Operation> {
    let mut operations = Vec::new();
    for (rows, hidden, wide, n_heads, head_dim) in [(300, 2048, 8192, 32, 64), (130, 4096, 14336, 32, 128)] {
        let product = |product, inputs, outputs| Operation::Product { product, rows, inputs, outputs, biased: false };
        operations.push(product(Product::Linear, hidden, hidden + 2 * 8 * head_dim));
        operations.push(product(Product::SwiGlu, hidden, wide));
        operations.push(product(Product::Residual, wide, hidden));
        operations.push(Operation::RmsNorm { rows, columns: hidden });
        let shape = AttentionShape { n_heads, n_kv_heads: 8, head_dim };
        operations.push(Operation::Attention { shape, lens: vec![rows / 3, rows] });
    }
    operations
}

/// How many shapes of which size are checked.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// Random shapes of each operation and type.
    pub shapes: usize,
    /// The longest side of a random shape.
    pub side: usize,
    /// Whether the shapes of real models are among them.
    pub of_models: bool,
}

/// Everything that is checked, in a fixed order.
pub fn cases(seed: u64, extent: Extent) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for (index, dtype) in DTYPES.into_iter().enumerate() {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(index as u64);
        let mut operations = fixed();
        for _ in 0..extent.shapes {
            operations.extend(drawn(&mut rng, extent.side));
        }
        if extent.of_models && dtype != DType::F32 {
            operations.extend(of_models());
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
