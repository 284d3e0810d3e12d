//! The backend operations at the shapes of real models. The throughput is floating-point operations (elements) for
//! GEMM and attention, and bytes read and written for the others.

use std::hint::black_box;

use actbench_kernels::backend::AttentionSegment;
use actbench_kernels::cpu::Isa;
use actbench_kernels::{
    Activation, AttentionLayout, AttentionShape, Backend, CpuBackend, DType, KernelError, PoolGroups, PoolMethod,
    ScoreRule,
};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

mod peak;
#[path = "../common/settings.rs"]
mod settings;
#[path = "../common/setup.rs"]
mod setup;

use settings::short;
use setup::{random_host, random_tensor, skip_on_error};

/// `(name, K, N, gated)` of the projections of SmolLM2-135M and Llama-3.2-1B. Keys and values are one GEMM, and so
/// are gated pairs.
const PROJECTIONS: [(&str, usize, usize, bool); 8] = [
    ("135m-query", 576, 576, false),
    ("135m-key-value", 576, 2 * 192, false),
    ("135m-gate-up", 576, 1536, true),
    ("135m-down", 1536, 576, false),
    ("1b-query", 2048, 2048, false),
    ("1b-key-value", 2048, 2 * 512, false),
    ("1b-gate-up", 2048, 8192, true),
    ("1b-down", 8192, 2048, false),
];

/// Tokens of a batch (M): from one short dialogue to the maximum of a run.
const ROWS: [usize; 4] = [8, 64, 256, 2048];

/// The CPU backend on all cores.
fn cpu() -> Result<CpuBackend, KernelError> {
    CpuBackend::new(std::thread::available_parallelism().map_or(1, usize::from))
}

/// GEMM in bf16 on the backend's instruction set, and in `f32`, where all sufficiently wide sets run the same kernel.
fn linear(criterion: &mut Criterion) -> Result<(), KernelError> {
    let backend = cpu()?;
    let mut group = criterion.benchmark_group("linear");
    for (dtype, sizes) in [(DType::Bf16, &ROWS[..]), (DType::F32, &ROWS[2..3])] {
        for (name, inputs, outputs, gated) in PROJECTIONS {
            let matrix = random_host(1, dtype, &[outputs, inputs])?;
            let weight = if gated {
                backend.prepare_gated(&matrix, &matrix, dtype)?
            } else {
                backend.prepare_linear(&[matrix], dtype)?
            };
            for rows in sizes {
                let x = random_tensor(&backend, 2, dtype, *rows, inputs)?;
                let mut out = backend.alloc(dtype, *rows, outputs)?;
                let n_matrices = if gated { 2 } else { 1 };
                group.throughput(Throughput::Elements((n_matrices * 2 * rows * inputs * outputs) as u64));
                group.bench_function(BenchmarkId::new(format!("{dtype}/{name}"), rows), |bencher| {
                    bencher.iter(|| {
                        if gated {
                            backend.linear_gated(black_box(&x), &weight, None, Activation::Silu, &mut out)
                        } else {
                            backend.linear(black_box(&x), &weight, None, &mut out)
                        }
                    });
                });
            }
        }
    }
    group.finish();
    Ok(())
}

/// Gated GEMMs in bf16 by activation: its time is the difference between their rates.
fn activations(criterion: &mut Criterion) -> Result<(), KernelError> {
    let backend = cpu()?;
    let rows = 256;
    let mut group = criterion.benchmark_group("linear_gated");
    for (name, inputs, outputs, _) in PROJECTIONS.into_iter().filter(|(_, _, _, gated)| *gated) {
        let matrix = random_host(1, DType::Bf16, &[outputs, inputs])?;
        let weight = backend.prepare_gated(&matrix, &matrix, DType::Bf16)?;
        let x = random_tensor(&backend, 2, DType::Bf16, rows, inputs)?;
        let mut out = backend.alloc(DType::Bf16, rows, outputs)?;
        group.throughput(Throughput::Elements((2 * 2 * rows * inputs * outputs) as u64));
        for activation in Activation::ALL {
            group.bench_function(BenchmarkId::new(activation.name(), name), |bencher| {
                bencher.iter(|| backend.linear_gated(black_box(&x), &weight, None, activation, &mut out));
            });
        }
    }
    group.finish();
    Ok(())
}

/// The peak rate of GEMM: the fastest bf16 instruction of each instruction set, on registers only and on one thread.
/// Multiplied by the number of threads it is the peak of `linear`.
fn peaks(criterion: &mut Criterion) -> Result<(), KernelError> {
    /// Loop iterations, about 0.1 ms.
    const ITERATIONS: u64 = 100_000;
    let mut group = criterion.benchmark_group("peak");
    for isa in Isa::ALL {
        if let Some(operations) = peak::spin(isa, ITERATIONS) {
            group.throughput(Throughput::Elements(operations));
            group.bench_function(isa.to_string(), |bencher| bencher.iter(|| peak::spin(isa, black_box(ITERATIONS))));
        }
    }
    group.finish();
    Ok(())
}

fn attention(criterion: &mut Criterion) -> Result<(), KernelError> {
    let backend = cpu()?;
    let mut group = criterion.benchmark_group("attention");
    for (name, shape) in [
        ("135m", AttentionShape { n_heads: 9, n_kv_heads: 3, head_dim: 64 }),
        ("1b", AttentionShape { n_heads: 32, n_kv_heads: 8, head_dim: 64 }),
    ] {
        // Whole dialogues, long texts, and leaves of a prefix tree: a few tokens each after a shared prefix.
        for (len, shared) in [(41, 0), (512, 0), (12, 29)] {
            let sequences = 2048 / len;
            let rows = sequences * len;
            let query = random_tensor(&backend, 1, DType::Bf16, rows, shape.query_width())?;
            let keys_values = random_tensor(&backend, 2, DType::Bf16, rows + shared, 2 * shape.kv_width())?;
            let mut out = backend.alloc(DType::Bf16, rows, shape.query_width())?;
            let segments = (0..sequences)
                .map(|index| AttentionSegment {
                    query_row: index * len,
                    start_position: shared,
                    len,
                    keys: vec![(rows, shared), (index * len, len)],
                })
                .collect();
            let layout = AttentionLayout { segments };
            let usual = ScoreRule::of_head_dim(shape.head_dim);
            // The window of Gemma 3 is 512 positions and more: a quarter of the text is the case in which it matters.
            let windowed = ScoreRule { window: Some(len / 4), ..usual };
            let rules =
                [("", usual), (", window", windowed), (", soft cap", ScoreRule { soft_cap: Some(50.0), ..usual })];
            for (suffix, rule) in rules.into_iter().filter(|(suffix, _)| suffix.is_empty() || len == 512) {
                let pairs: usize = layout.segments.iter().map(|segment| segment.visible_keys(rule.window)).sum();
                group.throughput(Throughput::Elements((4 * pairs * shape.query_width()) as u64));
                group.bench_function(BenchmarkId::new(name, format!("{len} behind {shared}{suffix}")), |bencher| {
                    bencher.iter(|| backend.attention(black_box(&query), &keys_values, &layout, shape, rule, &mut out));
                });
            }
        }
    }
    group.finish();
    Ok(())
}

fn pooling(criterion: &mut Criterion) -> Result<(), KernelError> {
    let backend = cpu()?;
    let mut group = criterion.benchmark_group("pooling");
    for (name, columns) in [("1b", 2048), ("8b", 4096)] {
        for dtype in [DType::Bf16, DType::F32] {
            let (rows, len) = (2048u32, 32u32);
            let x = random_tensor(&backend, 1, dtype, rows as usize, columns)?;
            let mut groups = PoolGroups::new();
            for first in (0..rows).step_by(len as usize) {
                groups.push(first..first + len);
            }
            let mut out = backend.alloc(dtype, groups.len(), columns)?;
            for method in PoolMethod::ALL {
                let read = if method == PoolMethod::Last { groups.len() } else { rows as usize };
                group.throughput(Throughput::Bytes((read * columns * dtype.size()) as u64));
                group.bench_function(BenchmarkId::new(format!("{name}/{dtype}"), method), |bencher| {
                    bencher.iter(|| backend.pool(black_box(&x), &groups, method, &mut out));
                });
            }
        }
    }
    group.finish();
    Ok(())
}

fn norms(criterion: &mut Criterion) -> Result<(), KernelError> {
    /// Columns of a head.
    const HEAD_DIM: usize = 64;
    let backend = cpu()?;
    for (name, columns) in [("135m", 576), ("1b", 2048)] {
        let x = random_tensor(&backend, 1, DType::Bf16, 2048, columns)?;
        let scale = backend.prepare_vector(&[random_host(2, DType::F32, &[columns])?], DType::F32)?;
        let bias = backend.prepare_vector(&[random_host(3, DType::F32, &[columns])?], DType::F32)?;
        let head_scale = backend.prepare_vector(&[random_host(4, DType::F32, &[HEAD_DIM])?], DType::F32)?;
        let mut out = backend.alloc(DType::Bf16, 2048, columns)?;
        let mut in_place = random_tensor(&backend, 1, DType::Bf16, 2048, columns)?;
        let bytes = Throughput::Bytes((2 * 2048 * columns * DType::Bf16.size()) as u64);
        let mut group = criterion.benchmark_group("rms_norm");
        group.throughput(bytes.clone()).bench_function(name, |bencher| {
            bencher.iter(|| backend.rms_norm(black_box(&x), &scale, 1e-5, &mut out));
        });
        group.finish();
        let mut group = criterion.benchmark_group("layer_norm");
        group.throughput(bytes.clone()).bench_function(name, |bencher| {
            bencher.iter(|| backend.layer_norm(black_box(&x), &scale, &bias, 1e-5, &mut out));
        });
        group.finish();
        let mut group = criterion.benchmark_group("rms_norm_heads");
        group.throughput(bytes).bench_function(name, |bencher| {
            bencher.iter(|| backend.rms_norm_heads(black_box(&mut in_place), columns / HEAD_DIM, &head_scale, 1e-5));
        });
        group.finish();
    }
    Ok(())
}

fn all(criterion: &mut Criterion) {
    for bench in [peaks, linear, activations, attention, pooling, norms] {
        skip_on_error(bench(criterion));
    }
}

criterion_group! {
    name = benches;
    config = short();
    targets = all
}
criterion_main!(benches);
