//! The peak rates of the machine or of a device: a large matmul and a large copy, measured in the same run.

use std::time::{Duration, Instant};

use actbench_kernels::cuda::{CudaBackend, DeviceClock, KernelSet};
use actbench_kernels::{Backend, CpuBackend, DType, HostTensor};
use rayon::prelude::*;

use crate::case::RunConfig;
use crate::error::Result;
use crate::measure::clocks::{ClockProbe, GpuClocks};

/// M, K and N of the matmul that measures the peak compute rate: large enough that tails, threads and packing cost
/// nothing, small enough to stay in the caches.
const MATMUL_SHAPE: [usize; 3] = [1024, 1024, 2048];
/// Bytes of the copy that measures the peak memory rate: more than any cache holds.
const COPY_BYTES: usize = 256 << 20;

/// The peak rates of the machine, measured in the same run as the operations compared with them.
#[derive(Clone, Debug, PartialEq)]
pub struct Ceilings {
    /// Floating-point operations per second of a matmul with weights.
    pub flops: f64,
    /// Bytes per second, read and written, of a plain copy larger than the caches.
    pub bytes: f64,
    /// Duration of each of the two measurements.
    pub duration: Duration,
    /// Whether the rates are means over the duration. A GPU lowers its clocks within a second of full load, so that its fastest
    /// call is faster than any work can stay. On the CPU, where other programs disturb single calls, the fastest call counts.
    pub sustained: bool,
    /// Clocks and power during the matmul; none on the CPU, and where NVML reports none.
    pub matmul_clocks: Option<GpuClocks>,
    /// Clocks and power during the copy.
    pub copy_clocks: Option<GpuClocks>,
}

impl Ceilings {
    /// Measures both rates on the CPU with the threads and the dtype of `config`: the fastest call within `duration`, each.
    ///
    /// # Errors
    /// Too little memory, or threads that cannot be started.
    pub fn measure(config: &RunConfig, duration: Duration) -> Result<Self> {
        let backend = CpuBackend::new(config.n_threads())?;
        // Weights stored as bf16 have a matmul of their own, also in runs of f32.
        let rate = |stored| matmul_rate(&backend, stored, config.dtype, duration);
        let rates = [rate(config.dtype)?, rate(DType::Bf16)?];
        let (flops, bytes) = (rates[0].max(rates[1]), copy_rate(&backend, duration));
        Ok(Ceilings { flops, bytes, duration, sustained: false, matmul_clocks: None, copy_clocks: None })
    }

    /// Measures both rates on a device by its own clock, with the matmul kernels of the model: the mean over `duration`, after a
    /// third of it as warm-up. `clocks` is read meanwhile.
    ///
    /// # Errors
    /// Too little device memory, or a failure of the device.
    pub fn measure_on<D: DeviceClock + Clone>(
        device: &D,
        run: DType,
        duration: Duration,
        clocks: Option<&ClockProbe>,
    ) -> Result<Self> {
        let size = usize::from(device.is_emulated());
        let backend = CudaBackend::new(device.clone(), KernelSet::Fast);
        let [rows, inputs, outputs] = DEVICE_MATMUL_SHAPES[size];
        let (weight, x, mut out) = operands(&backend, DEVICE_MATMUL_SHAPES[size], run, run)?;
        let (seconds, matmul_clocks) =
            sustained_on(device, duration, clocks, || Ok(backend.linear(&x, &weight, None, &mut out)?))?;
        let flops = 2.0 * (rows * inputs * outputs) as f64 / seconds;
        drop((weight, x, out));
        let bytes = DEVICE_COPY_BYTES[size];
        let (mut from, mut to) = (device.alloc(bytes)?, device.alloc(bytes)?);
        device.overwrite(&mut from)?;
        let (seconds, copy_clocks) = sustained_on(device, duration, clocks, || Ok(device.copy(&from, &mut to)?))?;
        let bytes = 2.0 * bytes as f64 / seconds;
        Ok(Ceilings { flops, bytes, duration, sustained: true, matmul_clocks, copy_clocks })
    }
}

/// Repeats `call` for `time`, at least once after a warm-up, and returns the shortest duration, the one least disturbed by
/// other processes.
fn shortest<E>(time: Duration, mut call: impl FnMut() -> Result<(), E>) -> Result<Duration, E> {
    call()?;
    let (begin, mut shortest) = (Instant::now(), Duration::MAX);
    loop {
        let start = Instant::now();
        call()?;
        shortest = shortest.min(start.elapsed());
        if begin.elapsed() >= time {
            return Ok(shortest);
        }
    }
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
fn matmul_rate(backend: &CpuBackend, stored: DType, run: DType, time: Duration) -> Result<f64> {
    let [rows, inputs, outputs] = MATMUL_SHAPE;
    let (weight, x, mut out) = operands(backend, MATMUL_SHAPE, stored, run)?;
    let duration = shortest(time, || backend.linear(&x, &weight, None, &mut out))?;
    Ok(2.0 * (rows * inputs * outputs) as f64 / duration.as_secs_f64())
}

fn copy_rate(backend: &CpuBackend, time: Duration) -> f64 {
    let (from, mut to) = (vec![1u8; COPY_BYTES], vec![0u8; COPY_BYTES]);
    let threads = backend.thread_pool().current_num_threads();
    let chunk = COPY_BYTES.div_ceil(threads);
    let copied: Result<Duration, std::convert::Infallible> = shortest(time, || {
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
/// Seconds of calls that are issued before the host waits for them: long enough that the wait does not count, and short enough
/// for a sample of the clocks in each.
const GROUP_S: f64 = 0.05;
/// Calls of a group at most: the driver's queue of launches has about as many places.
const MAX_GROUP: f64 = 1000.0;

/// The mean duration of a call in seconds by the clock of the device, and the median of the clocks meanwhile.
fn sustained_on<D: DeviceClock>(
    device: &D,
    time: Duration,
    clocks: Option<&ClockProbe>,
    mut call: impl FnMut() -> Result<()>,
) -> Result<(f64, Option<GpuClocks>)> {
    call()?;
    let start = device.record_event()?;
    call()?;
    let one = device.elapsed_ms(&start, &device.record_event()?)? / 1e3;
    // The conversion saturates, also for a call that the clock cannot resolve.
    let group = (GROUP_S / one).clamp(1.0, MAX_GROUP) as usize;
    let mut samples = Vec::new();
    let mut mean_over = |time: Duration| -> Result<f64> {
        samples.clear();
        let (begin, first) = (Instant::now(), device.record_event()?);
        let mut calls = 0;
        loop {
            (0..group).try_for_each(|_| call())?;
            calls += group;
            let last = device.record_event()?;
            // While the group runs. Clocks that cannot be read do not fail the measurement.
            samples.extend(clocks.and_then(|clocks| clocks.read().ok()));
            let elapsed_ms = device.elapsed_ms(&first, &last)?;
            if begin.elapsed() >= time {
                return Ok(elapsed_ms / 1e3 / calls as f64);
            }
        }
    };
    mean_over(time / 3)?;
    let seconds = mean_over(time)?;
    Ok((seconds, GpuClocks::median_of(&samples)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shortest_call_counts_and_time_zero_calls_once() {
        let mut calls = 0;
        let time = shortest(Duration::ZERO, || -> Result<(), std::convert::Infallible> {
            calls += 1;
            Ok(())
        });
        assert!(time.unwrap() < Duration::MAX && calls == 2, "{calls}: a warm-up and a measured call");
    }

    #[cfg(feature = "emulator")]
    #[test]
    fn device_ceiling_is_mean_after_warm_up() {
        use actbench_kernels::cuda::emulator::{CopyTime, Emulator, EmulatorOptions, ThreadOrder};
        let options = EmulatorOptions { order: ThreadOrder::Forward, copies: CopyTime::Early, seed: 0 };
        let mut calls = 0;
        // Longer than a group of calls may take, so each group is one call.
        let pause = Duration::from_millis(60);
        let (seconds, clocks) = sustained_on(&Emulator::new(options), Duration::ZERO, None, || {
            calls += 1;
            std::thread::sleep(pause);
            Ok(())
        })
        .unwrap();
        // The first call, the one that sizes the groups, the warm-up, the measurement.
        assert_eq!((calls, clocks), (4, None));
        assert!(seconds >= pause.as_secs_f64(), "{seconds}");
    }
}
