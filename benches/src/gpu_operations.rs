//! The operations that are measured on a device: shapes, minimum work, and several sets of random inputs per operation.

use actbench_kernels::backend::AttentionSegment;
use actbench_kernels::{
    Activation, AttentionLayout, AttentionShape, Backend, DType, KernelError, PoolGroups, PoolMethod, ScoreRule,
};

use crate::{random_host, random_tensor};

/// The shapes of all operations.
#[derive(Clone, Copy, Debug)]
pub struct GpuShapes {
    /// Tokens of a batch.
    pub rows: usize,
    /// The width of the residual stream.
    pub hidden: usize,
    /// The width of the gated MLP.
    pub wide: usize,
    /// The heads of the attention.
    pub heads: AttentionShape,
    /// Tokens of a sequence.
    pub sequence: usize,
    /// The model of the forward passes, a preset of the fixtures.
    pub preset: &'static str,
    /// The maximum number of blocks to run.
    pub blocks: usize,
    /// Tokens of each forward pass, and of a sequence in it.
    pub forward: &'static [(usize, usize)],
    /// Bytes of the copies between host and device.
    pub copy_bytes: &'static [usize],
    /// A smaller model that runs short batches through all its blocks.
    pub short_preset: Option<&'static str>,
    /// Tokens of a short batch.
    pub short_rows: usize,
}

impl GpuShapes {
    /// Llama-3.2-1B: one layer on 2048 tokens; forward passes of one short dialogue and of full batches.
    pub const LARGE: GpuShapes = GpuShapes {
        rows: 2048,
        hidden: 2048,
        wide: 8192,
        heads: AttentionShape { n_heads: 32, n_kv_heads: 8, head_dim: 64 },
        sequence: 256,
        preset: "llama-3.2-1b",
        blocks: 16,
        forward: &[(128, 128), (512, 256), (2048, 256), (8192, 256), (32_768, 256), (8192, 2048)],
        copy_bytes: &[1 << 20, 8 << 20, 64 << 20],
        short_preset: Some("smollm2-135m"),
        short_rows: 64,
    };
    /// Shapes for the emulator.
    pub const SMALL: GpuShapes = GpuShapes {
        rows: 16,
        hidden: 64,
        wide: 128,
        heads: AttentionShape { n_heads: 2, n_kv_heads: 1, head_dim: 32 },
        sequence: 8,
        preset: "tiny",
        blocks: 1,
        forward: &[(16, 8)],
        copy_bytes: &[1 << 10],
        short_preset: None,
        short_rows: 8,
    };
}

/// One launch with its own inputs.
pub type MeasuredLaunch<B> = Box<dyn FnMut(&B) -> Result<(), KernelError>>;

type MakeLaunch<B> = Box<dyn FnMut(&B, u64) -> Result<MeasuredLaunch<B>, KernelError>>;

/// An operation of one shape.
pub struct GpuOperation<B: Backend> {
    /// The name with dtype and shape.
    pub name: String,
    /// The minimum memory traffic, in bytes.
    pub bytes: u64,
    /// Floating-point operations, for compute-bound operations.
    pub flops: Option<u64>,
    make: MakeLaunch<B>,
}

impl<B: Backend> GpuOperation<B> {
    /// Creates `count` launches with separate inputs and memory.
    ///
    /// # Errors
    /// An allocation fails.
    pub fn sets(&mut self, backend: &B, count: usize) -> Result<Vec<MeasuredLaunch<B>>, KernelError> {
        (0..count as u64).map(|seed| (self.make)(backend, 1000 * seed)).collect()
    }
}

/// The epilogue of a GEMM.
#[derive(Clone, Copy)]
enum GemmEpilogue {
    Store,
    Residual,
    Gated,
}

/// All operations of a forward pass and of pooling. For the plain kernels, which are a reference, only GEMM and
/// attention.
pub fn operations<B: Backend>(shapes: GpuShapes, plain: bool) -> Vec<GpuOperation<B>> {
    let GpuShapes { rows, hidden, wide, heads, sequence, .. } = shapes;
    let bf16 = DType::Bf16;
    let mut operations = vec![
        gemm(GemmEpilogue::Store, bf16, [rows, hidden, hidden]),
        attention(bf16, heads, rows / sequence, sequence),
    ];
    if plain {
        return operations;
    }
    operations.extend([
        gemm(GemmEpilogue::Gated, bf16, [rows, hidden, wide]),
        gemm(GemmEpilogue::Residual, bf16, [rows, wide, hidden]),
        gemm(GemmEpilogue::Store, DType::F16, [rows, hidden, hidden]),
        gemm(GemmEpilogue::Store, DType::F32, [rows, hidden, hidden]),
        attention(DType::F16, heads, rows / sequence, sequence),
        rms_norm(bf16, rows, hidden),
        rope(bf16, rows, heads, sequence),
        gather(bf16, rows, hidden),
    ]);
    operations.extend(PoolMethod::ALL.map(|method| pool(bf16, rows / sequence, sequence, hidden, method)));
    operations
}

fn gemm<B: Backend>(epilogue: GemmEpilogue, dtype: DType, [rows, inputs, outputs]: [usize; 3]) -> GpuOperation<B> {
    let (name, matrices, read) = match epilogue {
        GemmEpilogue::Store => ("linear", 1, 0),
        GemmEpilogue::Residual => ("linear + residual", 1, 1),
        GemmEpilogue::Gated => ("linear + swiglu", 2, 0),
    };
    let weights = matrices * inputs * outputs;
    let elements = weights + rows * inputs + (1 + read) * rows * outputs;
    GpuOperation {
        name: format!("{name} {dtype} {rows} x {inputs} to {outputs}"),
        bytes: (elements * dtype.size()) as u64,
        flops: Some(2 * (rows * weights) as u64),
        make: Box::new(move |backend, seed| {
            let matrix = |seed| random_host(seed, dtype, &[outputs, inputs]);
            let weight = match epilogue {
                GemmEpilogue::Gated => backend.prepare_gated(&matrix(seed)?, &matrix(seed + 1)?, dtype)?,
                _ => backend.prepare_linear(&[matrix(seed)?], dtype)?,
            };
            let x = random_tensor(backend, seed + 2, dtype, rows, inputs)?;
            let mut out = random_tensor(backend, seed + 3, dtype, rows, outputs)?;
            Ok(Box::new(move |backend: &B| match epilogue {
                GemmEpilogue::Store => backend.linear(&x, &weight, None, &mut out),
                GemmEpilogue::Residual => backend.linear_residual(&x, &weight, None, &mut out),
                GemmEpilogue::Gated => backend.linear_gated(&x, &weight, None, Activation::Silu, &mut out),
            }) as MeasuredLaunch<B>)
        }),
    }
}

fn attention<B: Backend>(dtype: DType, shape: AttentionShape, sequences: usize, len: usize) -> GpuOperation<B> {
    let AttentionShape { n_heads, n_kv_heads, head_dim } = shape;
    let rows = sequences * len;
    let pairs = sequences * len * (len + 1) / 2;
    GpuOperation {
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
            Ok(Box::new(move |backend: &B| {
                backend.attention(
                    &query,
                    &keys_values,
                    &layout,
                    shape,
                    ScoreRule::of_head_dim(shape.head_dim),
                    &mut out,
                )
            }) as MeasuredLaunch<B>)
        }),
    }
}

fn rms_norm<B: Backend>(dtype: DType, rows: usize, columns: usize) -> GpuOperation<B> {
    GpuOperation {
        name: format!("rms norm {dtype} {rows} x {columns}"),
        bytes: (2 * rows * columns * dtype.size()) as u64,
        flops: None,
        make: Box::new(move |backend, seed| {
            let x = random_tensor(backend, seed, dtype, rows, columns)?;
            let scale = backend.prepare_vector(&[random_host(seed + 1, DType::F32, &[columns])?], dtype)?;
            let mut out = backend.alloc(dtype, rows, columns)?;
            Ok(Box::new(move |backend: &B| backend.rms_norm(&x, &scale, 1e-5, &mut out)) as MeasuredLaunch<B>)
        }),
    }
}

fn rope<B: Backend>(dtype: DType, rows: usize, shape: AttentionShape, len: usize) -> GpuOperation<B> {
    let AttentionShape { n_heads, head_dim, .. } = shape;
    GpuOperation {
        name: format!("rope {dtype} {rows} x {n_heads} heads of {head_dim}"),
        bytes: (2 * rows * n_heads * head_dim * dtype.size()) as u64,
        flops: None,
        make: Box::new(move |backend, seed| {
            let mut x = random_tensor(backend, seed, dtype, rows, n_heads * head_dim)?;
            let angles = |seed| random_host(seed, DType::F32, &[len * head_dim / 2]);
            let cos = backend.prepare_vector(&[angles(seed + 1)?], DType::F32)?;
            let sin = backend.prepare_vector(&[angles(seed + 2)?], DType::F32)?;
            let positions: Vec<u32> = (0..rows).map(|row| (row % len) as u32).collect();
            Ok(Box::new(move |backend: &B| backend.rope(&mut x, n_heads, head_dim, head_dim, &positions, &cos, &sin))
                as MeasuredLaunch<B>)
        }),
    }
}

fn gather<B: Backend>(dtype: DType, rows: usize, columns: usize) -> GpuOperation<B> {
    GpuOperation {
        name: format!("gather rows {dtype} {rows} x {columns}"),
        bytes: (2 * rows * columns * dtype.size()) as u64,
        flops: None,
        make: Box::new(move |backend, seed| {
            let x = random_tensor(backend, seed, dtype, rows, columns)?;
            let mut out = backend.alloc(dtype, rows, columns)?;
            // A stride that visits every row once, so that a warp does not read adjacent rows.
            let picked: Vec<u32> = (0..rows).map(|row| (row * 4097 % rows) as u32).collect();
            Ok(Box::new(move |backend: &B| backend.gather_rows(&x, &picked, &mut out)) as MeasuredLaunch<B>)
        }),
    }
}

fn pool<B: Backend>(dtype: DType, groups: usize, len: usize, columns: usize, method: PoolMethod) -> GpuOperation<B> {
    let read = if method == PoolMethod::Last { groups } else { groups * len };
    GpuOperation {
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
            Ok(Box::new(move |backend: &B| backend.pool(&x, &listed, method, &mut out)) as MeasuredLaunch<B>)
        }),
    }
}
