//! The operations that are measured on a device: shapes, the least work of each, and sets of random inputs to take turns.

use actbench_kernels::backend::AttentionSegment;
use actbench_kernels::{AttentionLayout, AttentionShape, Backend, DType, KernelError, PoolGroups, PoolMethod};

use crate::{random_host, random_tensor};

/// How large everything is.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Rows of a batch.
    pub rows: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width inside of the gated product.
    pub wide: usize,
    /// Of the attention.
    pub heads: AttentionShape,
    /// Tokens of a sequence.
    pub sequence: usize,
    /// The model of the forward pass, a preset of the fixtures.
    pub preset: &'static str,
    /// Blocks of it that are run, at most.
    pub blocks: usize,
    /// Rows of the forward passes.
    pub forward_rows: &'static [usize],
    /// A smaller model, which short batches are run on too; all its blocks.
    pub short_preset: Option<&'static str>,
    /// Tokens of a short batch.
    pub short_rows: usize,
}

impl Sizes {
    /// Llama-3.2-1B: a layer on 2048 rows; forward passes of one short dialogue and of a full batch.
    pub const LARGE: Sizes = Sizes {
        rows: 2048,
        hidden: 2048,
        wide: 8192,
        heads: AttentionShape { n_heads: 32, n_kv_heads: 8, head_dim: 64 },
        sequence: 256,
        preset: "llama-3.2-1b",
        blocks: 16,
        forward_rows: &[128, 2048, 8192],
        short_preset: Some("smollm2-135m"),
        short_rows: 64,
    };
    /// A moment in the emulator.
    pub const SMALL: Sizes = Sizes {
        rows: 16,
        hidden: 64,
        wide: 128,
        heads: AttentionShape { n_heads: 2, n_kv_heads: 1, head_dim: 32 },
        sequence: 8,
        preset: "tiny",
        blocks: 1,
        forward_rows: &[16],
        short_preset: None,
        short_rows: 8,
    };
}

/// One launch with inputs of its own.
pub type Launch<B> = Box<dyn FnMut(&B) -> Result<(), KernelError>>;

type Make<B> = Box<dyn FnMut(&B, u64) -> Result<Launch<B>, KernelError>>;

/// An operation of some shape.
pub struct Operation<B: Backend> {
    /// With its dtype and its shape.
    pub name: String,
    /// Bytes that must be read and written, each once.
    pub bytes: u64,
    /// Multiplications and additions, of operations that mostly do these.
    pub flops: Option<u64>,
    make: Make<B>,
}

impl<B: Backend> Operation<B> {
    /// So many launches, no two with the same inputs or the same memory.
    ///
    /// # Errors
    /// No memory.
    pub fn sets(&mut self, backend: &B, count: usize) -> Result<Vec<Launch<B>>, KernelError> {
        (0..count as u64).map(|seed| (self.make)(backend, 1000 * seed)).collect()
    }
}

/// What happens to a product.
#[derive(Clone, Copy)]
enum Product {
    Plain,
    Residual,
    Gated,
}

/// Every operation of a forward pass and of pooling; for plain kernels, which are there to compare with, products and
/// attention alone.
pub fn operations<B: Backend>(sizes: Sizes, plain: bool) -> Vec<Operation<B>> {
    let Sizes { rows, hidden, wide, heads, sequence, .. } = sizes;
    let bf16 = DType::Bf16;
    let mut operations =
        vec![product(Product::Plain, bf16, [rows, hidden, hidden]), attention(bf16, heads, rows / sequence, sequence)];
    if plain {
        return operations;
    }
    operations.extend([
        product(Product::Gated, bf16, [rows, hidden, wide]),
        product(Product::Residual, bf16, [rows, wide, hidden]),
        product(Product::Plain, DType::F16, [rows, hidden, hidden]),
        product(Product::Plain, DType::F32, [rows, hidden, hidden]),
        attention(DType::F16, heads, rows / sequence, sequence),
        rms_norm(bf16, rows, hidden),
        rope(bf16, rows, heads, sequence),
        gather(bf16, rows, hidden),
    ]);
    operations.extend(PoolMethod::ALL.map(|method| pool(bf16, rows / sequence, sequence, hidden, method)));
    operations
}

fn product<B: Backend>(kind: Product, dtype: DType, [rows, inputs, outputs]: [usize; 3]) -> Operation<B> {
    let (name, matrices, read) = match kind {
        Product::Plain => ("linear", 1, 0),
        Product::Residual => ("linear + residual", 1, 1),
        Product::Gated => ("linear + swiglu", 2, 0),
    };
    let weights = matrices * inputs * outputs;
    let elements = weights + rows * inputs + (1 + read) * rows * outputs;
    Operation {
        name: format!("{name} {dtype} {rows} x {inputs} to {outputs}"),
        bytes: (elements * dtype.size()) as u64,
        flops: Some(2 * (rows * weights) as u64),
        make: Box::new(move |backend, seed| {
            let matrix = |seed| random_host(seed, dtype, &[outputs, inputs]);
            let weight = match kind {
                Product::Gated => backend.prepare_gated(&matrix(seed)?, &matrix(seed + 1)?, dtype)?,
                _ => backend.prepare_linear(&[matrix(seed)?], dtype)?,
            };
            let x = random_tensor(backend, seed + 2, dtype, rows, inputs)?;
            let mut out = random_tensor(backend, seed + 3, dtype, rows, outputs)?;
            Ok(Box::new(move |backend: &B| match kind {
                Product::Plain => backend.linear(&x, &weight, None, &mut out),
                Product::Residual => backend.linear_residual(&x, &weight, None, &mut out),
                Product::Gated => backend.linear_swiglu(&x, &weight, None, &mut out),
            }) as Launch<B>)
        }),
    }
}

fn attention<B: Backend>(dtype: DType, shape: AttentionShape, sequences: usize, len: usize) -> Operation<B> {
    let AttentionShape { n_heads, n_kv_heads, head_dim } = shape;
    let rows = sequences * len;
    let pairs = sequences * len * (len + 1) / 2;
    Operation {
        name: format!("attention {dtype} {sequences} x {len}, {n_heads} of {n_kv_heads} heads of {head_dim}"),
        bytes: (2 * rows * (shape.query_width() + shape.kv_width()) * dtype.size()) as u64,
        flops: Some(4 * (pairs * shape.query_width()) as u64),
        make: Box::new(move |backend, seed| {
            let query = random_tensor(backend, seed, dtype, rows, shape.query_width())?;
            let keys_values = random_tensor(backend, seed + 1, dtype, rows, 2 * shape.kv_width())?;
            let mut out = backend.alloc(dtype, rows, shape.query_width())?;
            let segments = (0..sequences)
                .map(|index| AttentionSegment {
                    query_row: index * len,
                    start_position: 0,
                    len,
                    keys: vec![(index * len, len)],
                })
                .collect();
            let layout = AttentionLayout { segments };
            Ok(Box::new(move |backend: &B| backend.attention(&query, &keys_values, &layout, shape, &mut out))
                as Launch<B>)
        }),
    }
}

fn rms_norm<B: Backend>(dtype: DType, rows: usize, columns: usize) -> Operation<B> {
    Operation {
        name: format!("rms norm {dtype} {rows} x {columns}"),
        bytes: (2 * rows * columns * dtype.size()) as u64,
        flops: None,
        make: Box::new(move |backend, seed| {
            let x = random_tensor(backend, seed, dtype, rows, columns)?;
            let scale = backend.prepare_vector(&[random_host(seed + 1, DType::F32, &[columns])?], dtype)?;
            let mut out = backend.alloc(dtype, rows, columns)?;
            Ok(Box::new(move |backend: &B| backend.rms_norm(&x, &scale, 1e-5, &mut out)) as Launch<B>)
        }),
    }
}

fn rope<B: Backend>(dtype: DType, rows: usize, shape: AttentionShape, len: usize) -> Operation<B> {
    let AttentionShape { n_heads, head_dim, .. } = shape;
    Operation {
        name: format!("rope {dtype} {rows} x {n_heads} heads of {head_dim}"),
        bytes: (2 * rows * n_heads * head_dim * dtype.size()) as u64,
        flops: None,
        make: Box::new(move |backend, seed| {
            let mut x = random_tensor(backend, seed, dtype, rows, n_heads * head_dim)?;
            let angles = |seed| random_host(seed, DType::F32, &[len * head_dim / 2]);
            let cos = backend.prepare_vector(&[angles(seed + 1)?], DType::F32)?;
            let sin = backend.prepare_vector(&[angles(seed + 2)?], DType::F32)?;
            let positions: Vec<u32> = (0..rows).map(|row| (row % len) as u32).collect();
            Ok(Box::new(move |backend: &B| backend.rope(&mut x, n_heads, head_dim, &positions, &cos, &sin))
                as Launch<B>)
        }),
    }
}

fn gather<B: Backend>(dtype: DType, rows: usize, columns: usize) -> Operation<B> {
    Operation {
        name: format!("gather rows {dtype} {rows} x {columns}"),
        bytes: (2 * rows * columns * dtype.size()) as u64,
        flops: None,
        make: Box::new(move |backend, seed| {
            let x = random_tensor(backend, seed, dtype, rows, columns)?;
            let mut out = backend.alloc(dtype, rows, columns)?;
            // A stride that meets every row once: no two launches of a warp read neighbours.
            let picked: Vec<u32> = (0..rows).map(|row| (row * 4097 % rows) as u32).collect();
            Ok(Box::new(move |backend: &B| backend.gather_rows(&x, &picked, &mut out)) as Launch<B>)
        }),
    }
}

fn pool<B: Backend>(dtype: DType, groups: usize, len: usize, columns: usize, method: PoolMethod) -> Operation<B> {
    let read = if method == PoolMethod::Last { groups } else { groups * len };
    Operation {
        name: format!("{method} pool {dtype} {groups} x {len} rows of {columns}"),
        bytes: ((read + groups) * columns * dtype.size()) as u64,
        flops: None,
        make: Box::new(move |backend, seed| {
            let x = random_tensor(backend, seed, dtype, groups * len, columns)?;
            let mut out = backend.alloc(dtype, groups, columns)?;
            let mut listed = PoolGroups::new();
            for first in (0..groups * len).step_by(len) {
                listed.push(first as u32..(first + len) as u32);
            }
            Ok(Box::new(move |backend: &B| backend.pool(&x, &listed, method, &mut out)) as Launch<B>)
        }),
    }
}
