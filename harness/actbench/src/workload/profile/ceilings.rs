//! The peak rates of the machine or of a device: a large matmul and a large copy, measured in the same run.

use std::time::{Duration, Instant};

use actbench_kernels::cuda::{CudaBackend, DeviceClock, KernelSet};
use actbench_kernels::{Backend, CpuBackend, DType, HostTensor};
use rayon::prelude::*;

use crate::case::RunConfig;
use crate::error::Result;

/// Duration of each of the two measurements of peak rates, after a warm-up.
const MEASURE_TIME: Duration = Duration::from_millis(300);
/// M, K and N of the matmul that measures the peak compute rate: large enough that tails, threads and packing cost
/// nothing, small enough to stay in the caches.
const MATMUL_SHAPE: [usize; 3] = [1024, 1024, 2048];
/// Bytes of the copy that measures the peak memory rate: more than any cache holds.
const COPY_BYTES: usize = 256 << 20;

/// The peak rates of the machine, measured in the same run as the operations compared with them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ceilings {
    /// Floating-point operations per second of a matmul with weights.
    pub flops: f64,
    /// Bytes per second, read and written, of a plain copy larger than the caches.
    pub bytes: f64,
}

impl Ceilings {
    /// Measures both rates on the CPU with the threads and the dtype of `config`.
    ///
    /// # Errors
    /// Too little memory, or threads that cannot be started.
    pub fn measure(config: &RunConfig) -> Result<Self> {
        let backend = CpuBackend::new(config.n_threads())?;
        // Weights stored as bf16 have a matmul of their own, also in runs of f32.
        let rates =
            [matmul_rate(&backend, config.dtype, config.dtype)?, matmul_rate(&backend, DType::Bf16, config.dtype)?];
        Ok(Ceilings { flops: rates[0].max(rates[1]), bytes: copy_rate(&backend) })
    }

    /// Measures both rates on a device by its own clock, with the matmul kernels of the model.
    ///
    /// # Errors
    /// Too little device memory, or a failure of the device.
    pub fn measure_on<D: DeviceClock + Clone>(device: &D, run: DType) -> Result<Self> {
        let size = usize::from(device.is_emulated());
        let backend = CudaBackend::new(device.clone(), KernelSet::Fast);
        let [rows, inputs, outputs] = DEVICE_MATMUL_SHAPES[size];
        let (weight, x, mut out) = operands(&backend, DEVICE_MATMUL_SHAPES[size], run, run)?;
        let seconds = shortest_on(device, || Ok(backend.linear(&x, &weight, None, &mut out)?))?;
        let flops = 2.0 * (rows * inputs * outputs) as f64 / seconds;
        drop((weight, x, out));
        let bytes = DEVICE_COPY_BYTES[size];
        let (mut from, mut to) = (device.alloc(bytes)?, device.alloc(bytes)?);
        device.overwrite(&mut from)?;
        let seconds = shortest_on(device, || Ok(device.copy(&from, &mut to)?))?;
        Ok(Ceilings { flops, bytes: 2.0 * bytes as f64 / seconds })
    }
}

/// Repeats `call` for [`MEASURE_TIME`] and returns the shortest duration, the one least disturbed by other processes.
fn shortest<E>(mut call: impl FnMut() -> Result<(), E>) -> Result<Duration, E> {
    call()?;
    let (begin, mut shortest) = (Instant::now(), Duration::MAX);
    while begin.elapsed() < MEASURE_TIME {
        let start = Instant::now();
        call()?;
        shortest = shortest.min(start.elapsed());
    }
    Ok(shortest)
}

/// Weights, activations and the output tensor of a matmul of `[rows, inputs, outputs]` (M, K, N).
fn operands<B: Backend>(
    backend: &B,
    [rows, inputs, outputs]: [usize; 3],
    stored: DType,
    run: DType,
) -> Result<(B::Linear, B::Tensor, B::Tensor)> {
    // Not zeros, which some processors multiply faster.
    let values = |len: usize| (0..len).map(|index| ((index * 37 % 101) as f32 - 50.0) / 64.0).collect::<Vec<f32>>();
    let host = |rows: usize, columns: usize| HostTensor::from_f32(stored, vec![rows, columns], &values(rows * columns));
    let weight = backend.prepare_linear(&[host(outputs, inputs)?], run)?;
    let table = backend.prepare_embedding(&host(rows, inputs)?, run)?;
    let (mut x, out) = (backend.alloc(run, rows, inputs)?, backend.alloc(run, rows, outputs)?);
    backend.embed(&table, &(0..rows as u32).collect::<Vec<u32>>(), 1.0, &mut x)?;
    Ok((weight, x, out))
}

/// Floating-point operations per second of a matmul in `run` with weights stored as `stored`.
fn matmul_rate(backend: &CpuBackend, stored: DType, run: DType) -> Result<f64> {
    let [rows, inputs, outputs] = MATMUL_SHAPE;
    let (weight, x, mut out) = operands(backend, MATMUL_SHAPE, stored, run)?;
    let duration = shortest(|| backend.linear(&x, &weight, None, &mut out))?;
    Ok(2.0 * (rows * inputs * outputs) as f64 / duration.as_secs_f64())
}

fn copy_rate(backend: &CpuBackend) -> f64 {
    let (from, mut to) = (vec![1u8; COPY_BYTES], vec![0u8; COPY_BYTES]);
    let threads = backend.thread_pool().current_num_threads();
    let chunk = COPY_BYTES.div_ceil(threads);
    let copied: Result<Duration, std::convert::Infallible> = shortest(|| {
        backend.thread_pool().install(|| {
            to.par_chunks_mut(chunk).zip(from.par_chunks(chunk)).for_each(|(to, from)| to.copy_from_slice(from));
        });
        Ok(())
    });
    let Ok(duration) = copied;
    2.0 * COPY_BYTES as f64 / duration.as_secs_f64()
}

/// M, K and N of the matmul on a GPU, which fills it many times, and on the emulator.
const DEVICE_MATMUL_SHAPES: [[usize; 3]; 2] = [[4096, 4096, 4096], [64, 64, 64]];
/// Bytes of the copy on a GPU, more than its cache holds, and on the emulator.
const DEVICE_COPY_BYTES: [usize; 2] = [512 << 20, 1 << 20];
/// Repetitions of each measurement on a device; the shortest counts.
const DEVICE_REPEATS: usize = 7;

/// The shortest duration of `call` in seconds by the clock of the device, after a warm-up.
fn shortest_on<D: DeviceClock>(device: &D, mut call: impl FnMut() -> Result<()>) -> Result<f64> {
    call()?;
    let mut shortest = f64::INFINITY;
    for _ in 0..DEVICE_REPEATS {
        let start = device.record_event()?;
        call()?;
        shortest = shortest.min(device.elapsed_ms(&start, &device.record_event()?)? / 1e3);
    }
    Ok(shortest)
}
