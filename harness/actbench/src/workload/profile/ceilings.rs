//! What the machine, or a device of it, does at best: a large product and a large copy, measured in the same run.

use std::time::{Duration, Instant};

use actbench_kernels::cuda::{CudaBackend, DeviceClock, KernelSet};
use actbench_kernels::{Backend, CpuBackend, DType, HostTensor};
use rayon::prelude::*;

use crate::error::Result;
use crate::workload::case::RunConfig;

/// How long each of the two probes of the machine's best measures, after a warm-up.
const PROBE_TIME: Duration = Duration::from_millis(300);
/// Rows, inputs and outputs of the product that stands for the most the machine computes: large enough that tails,
/// threads and packing cost nothing, small enough to stay in the caches.
const PROBE_PRODUCT: [usize; 3] = [1024, 1024, 2048];
/// Bytes copied at once by the probe of memory: past any cache.
const PROBE_BYTES: usize = 256 << 20;

/// What the machine does at best, measured in the same run as what is compared with it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ceilings {
    /// Floating-point operations a second of a product with weights.
    pub flops: f64,
    /// Bytes a second, read and written, of a plain copy past the caches.
    pub bytes: f64,
}

impl Ceilings {
    /// Measures both with the threads and the dtype of `config`.
    ///
    /// # Errors
    /// No memory for the probes, or no threads.
    pub fn measure(config: &RunConfig) -> Result<Self> {
        let backend = CpuBackend::new(config.n_threads())?;
        // Weights that bf16 holds have products of their own, also in runs of f32.
        let rates =
            [product_rate(&backend, config.dtype, config.dtype)?, product_rate(&backend, DType::Bf16, config.dtype)?];
        Ok(Ceilings { flops: rates[0].max(rates[1]), bytes: copy_rate(&backend) })
    }

    /// The same on a device, by its own clock. The product is by the kernels that the model runs on.
    ///
    /// # Errors
    /// No memory for the probes, or a failure of the device.
    pub fn measure_on<D: DeviceClock + Clone>(device: &D, run: DType) -> Result<Self> {
        let size = usize::from(device.is_emulated());
        let backend = CudaBackend::new(device.clone(), KernelSet::Fast);
        let [rows, inputs, outputs] = DEVICE_PRODUCTS[size];
        let (weight, x, mut out) = operands(&backend, DEVICE_PRODUCTS[size], run, run)?;
        let seconds = shortest_on(device, || Ok(backend.linear(&x, &weight, None, &mut out)?))?;
        let flops = 2.0 * (rows * inputs * outputs) as f64 / seconds;
        drop((weight, x, out));
        let bytes = DEVICE_BYTES[size];
        let (mut from, mut to) = (device.alloc(bytes)?, device.alloc(bytes)?);
        device.overwrite(&mut from)?;
        let seconds = shortest_on(device, || Ok(device.copy(&from, &mut to)?))?;
        Ok(Ceilings { flops, bytes: 2.0 * bytes as f64 / seconds })
    }
}

/// Repeats `call` for [`PROBE_TIME`] and gives the shortest duration, which other users of the machine disturb least.
fn shortest<E>(mut call: impl FnMut() -> Result<(), E>) -> Result<Duration, E> {
    call()?;
    let (begin, mut shortest) = (Instant::now(), Duration::MAX);
    while begin.elapsed() < PROBE_TIME {
        let start = Instant::now();
        call()?;
        shortest = shortest.min(start.elapsed());
    }
    Ok(shortest)
}

/// Weights, activations and room for the result of a product of `[rows, inputs, outputs]`.
fn operands<B: Backend>(
    backend: &B,
    [rows, inputs, outputs]: [usize; 3],
    stored: DType,
    run: DType,
) -> Result<(B::Linear, B::Tensor, B::Tensor)> {
    // Any values but zeros, which some processors multiply faster.
    let values = |len: usize| (0..len).map(|index| ((index * 37 % 101) as f32 - 50.0) / 64.0).collect::<Vec<f32>>();
    let host = |rows: usize, columns: usize| HostTensor::from_f32(stored, vec![rows, columns], &values(rows * columns));
    let weight = backend.prepare_linear(&[host(outputs, inputs)?], run)?;
    let table = backend.prepare_embedding(&host(rows, inputs)?, run)?;
    let (mut x, out) = (backend.alloc(run, rows, inputs)?, backend.alloc(run, rows, outputs)?);
    backend.embed(&table, &(0..rows as u32).collect::<Vec<u32>>(), &mut x)?;
    Ok((weight, x, out))
}

/// Floating-point operations a second of a product in `run` with weights that are stored as `stored`.
fn product_rate(backend: &CpuBackend, stored: DType, run: DType) -> Result<f64> {
    let [rows, inputs, outputs] = PROBE_PRODUCT;
    let (weight, x, mut out) = operands(backend, PROBE_PRODUCT, stored, run)?;
    let duration = shortest(|| backend.linear(&x, &weight, None, &mut out))?;
    Ok(2.0 * (rows * inputs * outputs) as f64 / duration.as_secs_f64())
}

fn copy_rate(backend: &CpuBackend) -> f64 {
    let (from, mut to) = (vec![1u8; PROBE_BYTES], vec![0u8; PROBE_BYTES]);
    let threads = backend.thread_pool().current_num_threads();
    let piece = PROBE_BYTES.div_ceil(threads);
    let copied: Result<Duration, std::convert::Infallible> = shortest(|| {
        backend.thread_pool().install(|| {
            to.par_chunks_mut(piece).zip(from.par_chunks(piece)).for_each(|(to, from)| to.copy_from_slice(from));
        });
        Ok(())
    });
    let Ok(duration) = copied;
    2.0 * PROBE_BYTES as f64 / duration.as_secs_f64()
}

/// Rows, inputs and outputs of the product on a GPU, which fills it many times over, and on what only stands for one.
const DEVICE_PRODUCTS: [[usize; 3]; 2] = [[4096, 4096, 4096], [64, 64, 64]];
/// Bytes of the copy on a GPU, past its cache, and on what only stands for one.
const DEVICE_BYTES: [usize; 2] = [512 << 20, 1 << 20];
/// Repetitions of either on a device; the shortest counts.
const DEVICE_REPEATS: usize = 7;

/// The shortest of some runs of `call` by the device's clock, in seconds, after one that meets cold memory.
fn shortest_on<D: DeviceClock>(device: &D, mut call: impl FnMut() -> Result<()>) -> Result<f64> {
    call()?;
    let mut shortest = f64::INFINITY;
    for _ in 0..DEVICE_REPEATS {
        let start = device.mark()?;
        call()?;
        shortest = shortest.min(device.milliseconds(&start, &device.mark()?)? / 1e3);
    }
    Ok(shortest)
}
