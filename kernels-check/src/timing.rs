//! How fast each kernel is on a GPU: bytes and operations a second, beside a copy and beside the best product.

use std::sync::Arc;

use actbench_kernels::cuda::CudaBackend;
use actbench_kernels::cuda::driver::DriverDevice;
use actbench_kernels::{AttentionShape, DType, KernelError, PoolMethod};
use clap::ValueEnum;
use serde::Serialize;

use crate::case::{Case, Operation, Product};
use crate::check::SETS;
use crate::operation::Prepared;

/// How often an operation is timed; the median counts. The first run, which meets memory never touched, is not among them.
const REPEATS: usize = 9;

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

/// Times every operation by each kernel of its ladder that the device has.
///
/// # Errors
/// Those of the device.
pub fn time(device: DriverDevice, sizes: Sizes) -> Result<Option<Timings>, KernelError> {
    let (rows, hidden, copy_bytes) = match sizes {
        Sizes::None => return Ok(None),
        Sizes::Small => (16, 128, 1 << 20),
        Sizes::Large => (4096, 4096, COPY_BYTES),
    };
    let device = Arc::new(device);
    let copy = 2.0 * copy_bytes as f64 / (device.copy_milliseconds(copy_bytes, REPEATS)? * 1e6);
    let mut kernels = Vec::new();
    for case in cases(rows, hidden) {
        for set in SETS {
            let backend = CudaBackend::new(device.clone(), set);
            let mut timing = run(&device, &backend, &case)?;
            timing.share_of_copy = timing.gigabytes_per_second / copy;
            // Where a set uses the kernel of the one before there is nothing new to time.
            if kernels.last().is_none_or(|last: &Timing| last.kernel != timing.kernel) {
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

fn run(device: &DriverDevice, backend: &CudaBackend<Arc<DriverDevice>>, case: &Case) -> Result<Timing, KernelError> {
    let mut prepared = Prepared::new(backend, case, 0..case.rows())?;
    device.start_timing()?;
    let applied = (0..=REPEATS).try_for_each(|_| prepared.apply(backend));
    let launches = device.stop_timing()?;
    applied?;
    // A run may be several launches.
    let a_run = (launches.len() / (REPEATS + 1)).max(1);
    let mut times: Vec<f64> =
        launches.chunks(a_run).skip(1).map(|run| run.iter().map(|launch| launch.milliseconds).sum()).collect();
    times.sort_by(f64::total_cmp);
    let milliseconds = times.get(times.len() / 2).copied().unwrap_or(f64::NAN);
    let work = prepared.work();
    Ok(Timing {
        kernel: launches.last().map(|launch| launch.kernel.clone()).unwrap_or_default(),
        case: case.to_string(),
        milliseconds,
        gigabytes_per_second: work.bytes / (milliseconds * 1e6),
        share_of_copy: f64::NAN,
        teraflops: work.operations.map(|operations| operations / (milliseconds * 1e9)),
        share_of_best_product: None,
    })
}
