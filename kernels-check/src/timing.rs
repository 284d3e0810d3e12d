//! How fast each kernel is on a GPU: bytes and operations a second, beside a copy and beside the best product.

use std::sync::Arc;

use actbench_kernels::cuda::CudaBackend;
use actbench_kernels::cuda::driver::DriverDevice;
use actbench_kernels::{AttentionShape, DType, KernelError, PoolMethod};
use clap::ValueEnum;
use serde::Serialize;

use crate::case::{Case, Operation, Product};
use crate::check::SETS;
use crate::inputs::Inputs;
use crate::operation::{Prepared, Weights};
use crate::progress::Progress;

/// How often an operation is timed; the median counts. The first run, which meets memory never touched, is not among them.
const REPEATS: usize = 9;

/// How often one is timed that takes longer than [`LONG_MILLISECONDS`]: of such times few are as good as many.
const FEW_REPEATS: usize = 3;

/// What is a long time for one run.
const LONG_MILLISECONDS: f64 = 50.0;

/// Rows on which products and attention without tensor cores are timed: as fast in operations a second as on more of
/// them, and not for seconds.
pub const PLAIN_ROWS: usize = 256;

/// Bytes of the copy that kernels are compared with: far more than any cache holds.
const COPY_BYTES: usize = 256 << 20;

/// What is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Sizes {
    /// Nothing.
    None,
    /// Shapes of a moment, to see that timing works.
    Small,
    /// A layer of an 8B Llama model on 4096 rows.
    Large,
}

/// One timed kernel.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Timing {
    /// Its name.
    pub kernel: String,
    /// What it did.
    pub case: String,
    /// The median time of one run, by events on the device, with a cold cache.
    pub milliseconds: f64,
    /// 10^9 bytes a second that have to be read and written.
    pub gigabytes_per_second: f64,
    /// The same as a share of the copy's.
    pub share_of_copy: f64,
    /// 10^12 operations a second; a multiplication and an addition are two. Only of products and attention.
    pub teraflops: Option<f64>,
    /// The same as a share of the best product's in this run.
    pub share_of_best_product: Option<f64>,
}

/// All that was timed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Timings {
    /// 10^9 bytes a second of a copy within the device, both directions counted.
    pub copy_gigabytes_per_second: f64,
    /// The most operations a second of any product in this run, 10^12.
    pub best_product_teraflops: f64,
    /// In the order they were run.
    pub kernels: Vec<Timing>,
}

/// Times every operation by each kernel of its ladder that the device has, until `progress` says that it is enough.
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
    let copy = 2.0 * copy_bytes as f64 / (device.copy_milliseconds(copy_bytes, REPEATS)? * 1e6);
    let mut kernels: Vec<Timing> = Vec::new();
    'cases: for case in cases(rows, hidden) {
        let inputs = Inputs::new(&case);
        let weights = Weights::upload(&CudaBackend::new(device.clone(), SETS[0]), &inputs)?;
        for set in SETS {
            if progress.is_interrupted() {
                break 'cases;
            }
            let backend = CudaBackend::new(device.clone(), set);
            let before = kernels.last().map_or("", |last| last.kernel.as_str());
            // Where a set uses the kernel of the one before there is nothing new to time.
            if let Some(mut timing) = run(&device, &backend, &inputs, &weights, before)? {
                timing.share_of_copy = timing.gigabytes_per_second / copy;
                progress.tell(&format!("{}: {:.3} ms, {}", timing.kernel, timing.milliseconds, timing.case));
                kernels.push(timing);
            }
        }
    }
    let products = kernels.iter().filter(|timing| timing.kernel.starts_with("linear")).filter_map(|it| it.teraflops);
    let best = products.fold(0.0, f64::max);
    for timing in &mut kernels {
        timing.share_of_best_product = timing.teraflops.map(|teraflops| teraflops / best);
    }
    Ok(Some(Timings { copy_gigabytes_per_second: copy, best_product_teraflops: best, kernels }))
}

/// Each operation in a 2-byte type, and products in f32.
fn cases(rows: usize, hidden: usize) -> Vec<Case> {
    let (head_dim, wide) = (hidden / 32, hidden * 7 / 2);
    let shape = AttentionShape { n_heads: 32, n_kv_heads: 8, head_dim: head_dim.max(8) };
    let product = |product, inputs, outputs| Operation::Product { product, rows, inputs, outputs, biased: false };
    let case = |dtype, operation| Case { operation, dtype, seed: 0 };
    let mut cases = Vec::new();
    for dtype in [DType::Bf16, DType::F16] {
        for (kind, inputs, outputs) in
            [(Product::Linear, hidden, hidden), (Product::SwiGlu, hidden, wide), (Product::Residual, wide, hidden)]
        {
            cases.push(case(dtype, product(kind, inputs, outputs)));
        }
        cases.push(case(dtype, Operation::Attention { shape, lens: vec![rows / 4; 4] }));
    }
    cases.push(case(DType::F32, product(Product::Linear, hidden, hidden)));
    for operation in [
        Operation::RmsNorm { rows, columns: hidden },
        Operation::Rope { rows, head_dim: shape.head_dim },
        Operation::Gather { rows, columns: hidden },
        Operation::Pool { groups: rows / 4, columns: hidden, method: PoolMethod::Mean },
    ] {
        cases.push(case(DType::Bf16, operation));
    }
    cases
}

type Cuda = CudaBackend<Arc<DriverDevice>>;

/// Times the operation of `inputs`, unless its kernel is `before`.
fn run(
    device: &DriverDevice,
    backend: &Cuda,
    inputs: &Inputs<'_>,
    weights: &Weights<Cuda>,
    before: &str,
) -> Result<Option<Timing>, KernelError> {
    // The number of rows never decides on the kernel: a few tell which it is.
    let (all, few) = (inputs.case.rows(), PLAIN_ROWS.min(inputs.case.rows()));
    let mut prepared = Prepared::new(backend, inputs, weights, 0..few)?;
    let (kernel, _) = apply(device, backend, &mut prepared, 1)?;
    if kernel == before {
        return Ok(None);
    }
    let rows = timed_rows(&kernel, prepared.work().operations.is_some(), all);
    if rows != few {
        prepared = Prepared::new(backend, inputs, weights, 0..rows)?;
    }
    let (_, first) = apply(device, backend, &mut prepared, 1)?;
    let is_long = first.iter().any(|milliseconds| *milliseconds > LONG_MILLISECONDS);
    let (kernel, mut times) = apply(device, backend, &mut prepared, if is_long { FEW_REPEATS } else { REPEATS })?;
    times.sort_by(f64::total_cmp);
    let milliseconds = times.get(times.len() / 2).copied().unwrap_or(f64::NAN);
    let work = prepared.work();
    let case = inputs.case;
    Ok(Some(Timing {
        kernel,
        case: if rows == all { case.to_string() } else { format!("{case}, {rows} rows of it") },
        milliseconds,
        gigabytes_per_second: work.bytes / (milliseconds * 1e6),
        share_of_copy: f64::NAN,
        teraflops: work.operations.map(|operations| operations / (milliseconds * 1e9)),
        share_of_best_product: None,
    }))
}

/// On how many of `all` rows `kernel` is timed.
fn timed_rows(kernel: &str, mostly_multiplies: bool, all: usize) -> usize {
    let on_tensor_cores = kernel.contains("_mma_") || kernel.contains("_wgmma_");
    if mostly_multiplies && !on_tensor_cores { PLAIN_ROWS.min(all) } else { all }
}

/// Runs an operation `repeats` times.
///
/// # Returns
/// Its kernel, and the milliseconds of each run.
fn apply(
    device: &DriverDevice,
    backend: &Cuda,
    prepared: &mut Prepared<'_, Cuda>,
    repeats: usize,
) -> Result<(String, Vec<f64>), KernelError> {
    device.start_timing()?;
    let applied = (0..repeats).try_for_each(|_| prepared.apply(backend));
    let launches = device.stop_timing()?;
    applied?;
    // A run may be several launches.
    let a_run = (launches.len() / repeats).max(1);
    let times = launches.chunks(a_run).map(|run| run.iter().map(|launch| launch.milliseconds).sum()).collect();
    Ok((launches.last().map(|launch| launch.kernel.clone()).unwrap_or_default(), times))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_and_attention_without_tensor_cores_are_timed_on_few_rows() {
        assert_eq!(timed_rows("linear_swiglu_bf16", true, 4096), PLAIN_ROWS);
        assert_eq!(timed_rows("attention_f32", true, 100), 100);
        assert_eq!(timed_rows("linear_mma_bf16", true, 4096), 4096);
        assert_eq!(timed_rows("linear_wgmma_f16", true, 4096), 4096);
        assert_eq!(timed_rows("rms_norm_bf16", false, 4096), 4096);
    }
}
