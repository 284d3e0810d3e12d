//! Throughput of each kernel on a GPU: bytes and operations a second, relative to a copy and to the best GEMM.

use std::sync::Arc;

use actbench_kernels::cuda::CudaBackend;
use actbench_kernels::cuda::driver::DriverDevice;
use actbench_kernels::cuda::registry::{self, Kernel};
use actbench_kernels::{Activation, AttentionShape, DType, KernelError, PoolMethod};
use clap::ValueEnum;
use serde::Serialize;

use crate::case::{Case, Gemm, KeyRows, Norm, Operation, Scores};
use crate::check::SETS;
use crate::inputs::Inputs;
use crate::operation::{PreparedCase, Weights};
use crate::progress::Progress;

/// Timed runs of an operation, after one warm-up run; the median is reported.
const REPETITIONS: usize = 9;

/// Timed runs of an operation longer than [`LONG_MILLISECONDS`].
const LONG_REPETITIONS: usize = 3;

/// The duration from which an operation is repeated less often.
const LONG_MILLISECONDS: f64 = 50.0;

/// Rows for timing GEMMs and attention without tensor cores: more rows take seconds and have the same throughput.
pub const PLAIN_KERNEL_ROWS: usize = 256;

/// Bytes of the reference copy, larger than any cache.
const COPY_BYTES: usize = 256 << 20;

/// The sizes to time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Sizes {
    /// No timing
    None,
    /// Tiny shapes, to test the timing itself
    Small,
    /// A layer of an 8B Llama model on 4096 rows
    Large,
}

/// One timed kernel.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Timing {
    /// The kernel's name.
    pub kernel: String,
    /// The case.
    pub case: String,
    /// The median time of one run, by events on the device, with a cold cache.
    pub milliseconds: f64,
    /// Minimum bytes read and written, in 10^9 a second.
    pub gigabytes_per_second: f64,
    /// The fraction of the copy's throughput.
    pub share_of_copy: f64,
    /// 10^12 operations a second, for GEMMs and attention; a multiply-add is two operations.
    pub teraflops: Option<f64>,
    /// The fraction of the best GEMM's throughput in this run.
    pub share_of_best_product: Option<f64>,
}

/// All timings.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Timings {
    /// 10^9 bytes a second of a copy within the device, both directions counted.
    pub copy_gigabytes_per_second: f64,
    /// The highest throughput of a GEMM in this run, 10^12 operations a second.
    pub best_product_teraflops: f64,
    /// The kernels in the order of the runs.
    pub kernels: Vec<Timing>,
}

/// Times every operation with each of its kernels that the device supports, until `progress` is interrupted.
///
/// # Errors
/// Those of the device.
pub fn time(device: DriverDevice, sizes: Sizes, progress: &Progress) -> Result<Option<Timings>, KernelError> {
    let (rows, hidden, copy_bytes) = match sizes {
        Sizes::None => return Ok(None),
        Sizes::Small => (16, 128, 1 << 20),
        Sizes::Large => (4096, 4096, COPY_BYTES),
    };
    let device = Arc::new(device);
    let copy = 2.0 * copy_bytes as f64 / (device.copy_milliseconds(copy_bytes, REPETITIONS)? * 1e6);
    let mut kernels: Vec<Timing> = Vec::new();
    'cases: for case in cases(rows, hidden) {
        let inputs = Inputs::new(&case);
        let weights = Weights::upload(&CudaBackend::new(device.clone(), SETS[0]), &inputs)?;
        for set in SETS {
            if progress.is_interrupted() {
                break 'cases;
            }
            let backend = CudaBackend::new(device.clone(), set);
            let previous = kernels.last().map_or("", |last| last.kernel.as_str());
            // A set may use the kernel of the previous set, which is not timed again.
            if let Some(mut timing) = run(&device, &backend, &inputs, &weights, previous)? {
                timing.share_of_copy = timing.gigabytes_per_second / copy;
                progress.print(&format!("{}: {:.3} ms, {}", timing.kernel, timing.milliseconds, timing.case));
                kernels.push(timing);
            }
        }
    }
    let is_gemm = |timing: &&Timing| registry::named(&timing.kernel).is_some_and(|kernel| kernel.operation.is_gemm());
    let best = kernels.iter().filter(is_gemm).filter_map(|timing| timing.teraflops).fold(0.0, f64::max);
    for timing in &mut kernels {
        timing.share_of_best_product = timing.teraflops.map(|teraflops| teraflops / best);
    }
    Ok(Some(Timings { copy_gigabytes_per_second: copy, best_product_teraflops: best, kernels }))
}

/// Each operation in a 2-byte type, and GEMMs in f32.
fn cases(rows: usize, hidden: usize) -> Vec<Case> {
    let (head_dim, wide) = (hidden / 32, hidden * 7 / 2);
    let shape = AttentionShape { n_heads: 32, n_kv_heads: 8, head_dim: head_dim.max(8) };
    let gemm = |gemm, k, n| Operation::Gemm { gemm, m: rows, k, n, biased: false };
    let attention = |shape, len: usize, scores, key_rows| {
        // At least one key, of the tiny shapes.
        let len = len.max(1);
        Operation::Attention { shape, lens: vec![len; rows / len], scores, key_rows }
    };
    let case = |dtype, operation| Case { operation, dtype, seed: 0 };
    let mut cases = Vec::new();
    for dtype in [DType::Bf16, DType::F16] {
        for (kind, k, n) in [
            (Gemm::Linear, hidden, hidden),
            (Gemm::Gated(Activation::Silu), hidden, wide),
            (Gemm::Residual, wide, hidden),
        ] {
            cases.push(case(dtype, gemm(kind, k, n)));
        }
        cases.push(case(dtype, attention(shape, rows / 4, Scores::default(), KeyRows::Consecutive)));
        // The narrowest heads that all kernels rotate.
        let qkv = AttentionShape { head_dim: head_dim.max(16), ..shape };
        let rotary_dim = qkv.head_dim;
        cases.push(case(dtype, Operation::Qkv { rows, k: hidden, shape: qkv, rotary_dim, biased: false }));
    }
    // Lengths of short texts and of long ones, with the heads of a 1B and of an 8B Llama model.
    for (head_dim, lens) in [(shape.head_dim / 2, &[60, 256, 512, 1024][..]), (shape.head_dim, &[60, 256, 512])] {
        let shape = AttentionShape { head_dim: head_dim.max(8), ..shape };
        for len in lens {
            cases.push(case(DType::Bf16, attention(shape, len * rows / 4096, Scores::default(), KeyRows::Consecutive)));
        }
    }
    // The keys of prefix trees.
    cases.push(case(DType::Bf16, attention(shape, rows / 4, Scores::default(), KeyRows::TwoRanges)));
    // The other epilogues, and attention of Gemma 2: a window of half a sequence, and a soft cap of 50.
    for (kind, k, n) in
        [(Gemm::Activated(Activation::Gelu), hidden, 4 * hidden), (Gemm::Gated(Activation::GeluTanh), hidden, wide)]
    {
        cases.push(case(DType::Bf16, gemm(kind, k, n)));
    }
    for scores in [Scores { window: Some(rows / 8), cap_tenths: None }, Scores { window: None, cap_tenths: Some(500) }]
    {
        cases.push(case(DType::Bf16, attention(shape, rows / 4, scores, KeyRows::Consecutive)));
    }
    cases.push(case(DType::F32, gemm(Gemm::Linear, hidden, hidden)));
    for operation in [
        Operation::Norm { norm: Norm::Rms, rows, columns: hidden },
        Operation::Norm { norm: Norm::RmsResidual, rows, columns: hidden },
        Operation::Norm { norm: Norm::Layer, rows, columns: hidden },
        Operation::NormHeads { rows, heads: 31, head_dim: shape.head_dim },
        Operation::Rope { rows, head_dim: shape.head_dim, rotary_dim: shape.head_dim },
        Operation::EmbedScaled { rows, columns: hidden },
        Operation::AddEmbedding { rows, columns: hidden },
        Operation::WeightedRows { rows, columns: hidden, per_row: 8 },
        Operation::Route { rows, experts: 128, top_k: 8 },
        Operation::Gather { rows, columns: hidden },
        Operation::Pool { groups: rows / 4, columns: hidden, method: PoolMethod::Mean },
    ] {
        cases.push(case(DType::Bf16, operation));
    }
    cases
}

type Cuda = CudaBackend<Arc<DriverDevice>>;

/// Times the operation of `inputs`, unless its kernel is `previous`.
fn run(
    device: &DriverDevice,
    backend: &Cuda,
    inputs: &Inputs<'_>,
    weights: &Weights<Cuda>,
    previous: &str,
) -> Result<Option<Timing>, KernelError> {
    // The kernel does not depend on the number of rows: a run on few rows determines it.
    let (all, few) = (inputs.case.rows(), PLAIN_KERNEL_ROWS.min(inputs.case.rows()));
    let mut prepared = PreparedCase::new(backend, inputs, weights, 0..few)?;
    let (kernel, _) = apply(device, backend, &mut prepared, 1)?;
    if kernel == previous {
        return Ok(None);
    }
    let rows = timed_rows(&kernel, prepared.work().operations.is_some(), all);
    if rows != few {
        prepared = PreparedCase::new(backend, inputs, weights, 0..rows)?;
    }
    let (_, first) = apply(device, backend, &mut prepared, 1)?;
    let is_long = first.iter().any(|milliseconds| *milliseconds > LONG_MILLISECONDS);
    let (kernel, mut times) =
        apply(device, backend, &mut prepared, if is_long { LONG_REPETITIONS } else { REPETITIONS })?;
    times.sort_by(f64::total_cmp);
    let milliseconds = times.get(times.len() / 2).copied().unwrap_or(f64::NAN);
    let work = prepared.work();
    let case = inputs.case;
    Ok(Some(Timing {
        kernel,
        case: if rows == all { case.to_string() } else { format!("{case}, first {rows} rows") },
        milliseconds,
        gigabytes_per_second: work.bytes / (milliseconds * 1e6),
        share_of_copy: f64::NAN,
        teraflops: work.operations.map(|operations| operations / (milliseconds * 1e9)),
        share_of_best_product: None,
    }))
}

/// The rows of `all` on which `kernel` is timed.
fn timed_rows(kernel: &str, is_compute_bound: bool, all: usize) -> usize {
    let uses_tensor_cores = registry::named(kernel).is_some_and(Kernel::uses_tensor_cores);
    if is_compute_bound && !uses_tensor_cores { PLAIN_KERNEL_ROWS.min(all) } else { all }
}

/// Runs an operation `repetitions` times. Returns its kernel and the milliseconds of each run.
fn apply(
    device: &DriverDevice,
    backend: &Cuda,
    prepared: &mut PreparedCase<'_, Cuda>,
    repetitions: usize,
) -> Result<(String, Vec<f64>), KernelError> {
    device.start_timing()?;
    let applied = (0..repetitions).try_for_each(|_| prepared.apply(backend));
    let launches = device.stop_timing()?;
    applied?;
    // A run may have several launches.
    let launches_per_run = (launches.len() / repetitions).max(1);
    let times =
        launches.chunks(launches_per_run).map(|run| run.iter().map(|launch| launch.milliseconds).sum()).collect();
    Ok((launches.last().map(|launch| launch.kernel.clone()).unwrap_or_default(), times))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_gemms_and_attention_use_few_rows() {
        assert_eq!(timed_rows("linear_gated_bf16", true, 4096), PLAIN_KERNEL_ROWS);
        assert_eq!(timed_rows("attention_f32", true, 100), 100);
        assert_eq!(timed_rows("linear_mma_bf16", true, 4096), 4096);
        assert_eq!(timed_rows("linear_wgmma_f16", true, 4096), 4096);
        assert_eq!(timed_rows("rms_norm_bf16", false, 4096), 4096);
    }
}
