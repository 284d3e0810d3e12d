//! The share of the register peak that GEMM reaches, for each instruction set of this processor: the projections of real
//! models at small M. The peak is that of a loop over registers only (`ops/peak.rs`). Both are measured interleaved, a
//! few milliseconds each, so that a changing clock rate or another program affects both.
//!
//! One thread is measured by the CPU time of the process, two or more by wall time. A share is the median over the turns.
//! Arguments are words that a line must contain, for example `avx512 f32 135m`; `threads=2` sets the number of threads.

use std::error::Error;
use std::hint::black_box;
use std::io::Write;
use std::time::{Duration, Instant};

use actbench_kernels::cpu::Isa;
use actbench_kernels::{Activation, Backend, CpuBackend, DType, HostTensor};

#[path = "../ops/peak.rs"]
mod peak;

/// `(name, K, N, kind)`: models of each width, their keys and values as one GEMM, and so are gated pairs.
const PROJECTIONS: [(&str, usize, usize, Kind); 22] = [
    ("135m-query", 576, 576, Kind::Store),
    ("135m-key-value", 576, 2 * 192, Kind::Store),
    ("135m-output", 576, 576, Kind::Residual),
    ("135m-gate-up", 576, 1536, Kind::Gated),
    ("135m-down", 1536, 576, Kind::Residual),
    ("gpt2-query-key-value", 768, 3 * 768, Kind::Store),
    ("gpt2-up", 768, 3072, Kind::Activated),
    ("qwen-0.5b-query", 896, 896, Kind::Store),
    ("qwen-0.5b-key-value", 896, 2 * 128, Kind::Store),
    ("qwen-0.5b-gate-up", 896, 4864, Kind::Gated),
    ("qwen-0.6b-query", 1024, 2048, Kind::Store),
    ("qwen-0.6b-key-value", 1024, 2 * 1024, Kind::Store),
    ("qwen-0.6b-gate-up", 1024, 3072, Kind::Gated),
    ("qwen-0.6b-down", 3072, 1024, Kind::Residual),
    ("qwen-1.5b-query", 1536, 1536, Kind::Store),
    ("qwen-1.5b-key-value", 1536, 2 * 256, Kind::Store),
    ("qwen-1.5b-gate-up", 1536, 8960, Kind::Gated),
    ("1b-query", 2048, 2048, Kind::Store),
    ("1b-key-value", 2048, 2 * 512, Kind::Store),
    ("1b-output", 2048, 2048, Kind::Residual),
    ("1b-gate-up", 2048, 8192, Kind::Gated),
    ("1b-down", 8192, 2048, Kind::Residual),
];

/// Tokens of a batch (M).
const ROWS: [usize; 4] = [8, 16, 64, 256];

/// Turns of a measurement.
const TURNS: usize = 11;

/// Length of a turn of GEMM. That of the peak is half of it.
const TURN: Duration = Duration::from_millis(3);

/// The epilogue of a projection.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Store,
    Residual,
    Activated,
    Gated,
}

/// Instruction set of the kernels, dtype of weights, dtype of activations, and multiply-adds per term of a sum, of the
/// instruction whose peak is the reference.
const CASES: [(Isa, DType, DType, u64); 9] = [
    (Isa::Amx, DType::Bf16, DType::Bf16, 1),
    (Isa::Amx, DType::Bf16, DType::F32, 3),
    (Isa::Avx512Bf16, DType::Bf16, DType::Bf16, 1),
    (Isa::Avx512, DType::F32, DType::F32, 1),
    (Isa::Avx512, DType::Bf16, DType::Bf16, 1),
    (Isa::Avx512, DType::F16, DType::F16, 1),
    (Isa::Avx2, DType::F32, DType::F32, 1),
    (Isa::Avx2, DType::Bf16, DType::Bf16, 1),
    (Isa::Avx2, DType::F16, DType::F16, 1),
];

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let threads = words.iter().find_map(|word| word.strip_prefix("threads=")).map_or(Ok(1), str::parse::<usize>)?;
    let words: Vec<&String> = words.iter().filter(|word| !word.starts_with("threads=")).collect();
    let mut out = std::io::stdout().lock();
    let columns: String = ROWS.iter().map(|rows| format!("{rows:>7}")).collect();
    writeln!(out, "{:<40}{columns}  GFLOP/s   % of the peak in the last column by M, {threads} threads", "")?;
    for (isa, stored, run, terms) in CASES {
        if isa > Isa::detect() {
            continue;
        }
        let backend = CpuBackend::with_isa(threads, isa)?;
        for (name, inputs, outputs, kind) in PROJECTIONS {
            let label = format!("{isa} {run} {name}");
            if !words
                .iter()
                .all(|word| label.split(' ').any(|part| part == *word || part.starts_with(&format!("{word}-"))))
            {
                continue;
            }
            write!(out, "{label:<40}")?;
            let mut peak = 0.0;
            // On a thread of the backend's pool, as otherwise each call would hand its work to the pool and sleep.
            let pool = backend.thread_pool();
            let measure = || shares(&backend, isa, (stored, run, terms), (inputs, outputs, kind), threads);
            for (share, gflops) in pool.install(measure)? {
                write!(out, "{:>7.1}", 100.0 * share)?;
                peak = gflops;
            }
            writeln!(out, "{peak:>9.0}")?;
        }
    }
    Ok(())
}

/// The share of the peak, and the peak in GFLOP/s, for each of [`ROWS`].
fn shares(
    backend: &CpuBackend,
    isa: Isa,
    (stored, run, terms): (DType, DType, u64),
    (inputs, outputs, kind): (usize, usize, Kind),
    threads: usize,
) -> Result<Vec<(f64, f64)>, Box<dyn Error + Send + Sync>> {
    let matrix = HostTensor::from_f32(stored, vec![outputs, inputs], &random_values(1, outputs * inputs))?;
    let n_matrices = if kind == Kind::Gated { 2 } else { 1 };
    let weight = match kind {
        Kind::Gated => backend.prepare_gated(&matrix, &matrix, run)?,
        _ => backend.prepare_linear(&[matrix], run)?,
    };
    ROWS.into_iter()
        .map(|rows| {
            let mut x = backend.alloc(run, rows, inputs)?;
            backend.upload(&run.from_f32_slice(&random_values(2, rows * inputs)), &mut x)?;
            let mut out = backend.alloc(run, rows, outputs)?;
            backend.upload(&vec![0; rows * outputs * run.size()], &mut out)?;
            let flops = (n_matrices * 2 * rows * inputs * outputs) as u64 * terms;
            let mut multiply = || match kind {
                Kind::Store => backend.linear(black_box(&x), &weight, None, &mut out),
                Kind::Residual => backend.linear_residual(black_box(&x), &weight, None, &mut out),
                Kind::Activated => {
                    backend.linear_activated(black_box(&x), &weight, None, Activation::GeluTanh, &mut out)
                }
                Kind::Gated => backend.linear_gated(black_box(&x), &weight, None, Activation::Silu, &mut out),
            };
            let mut turns = Vec::with_capacity(TURNS);
            for _ in 0..TURNS {
                multiply()?;
                let (start, began) = (now(threads), Instant::now());
                let mut calls = 0;
                while calls == 0 || began.elapsed() < TURN {
                    multiply()?;
                    calls += 1;
                }
                let rate = (calls * flops) as f64 / (now(threads) - start).as_secs_f64();
                let (start, began) = (now(1), Instant::now());
                let mut peak_flops = 0;
                while began.elapsed() < TURN / 2 {
                    peak_flops += peak::spin(isa, black_box(5_000)).ok_or("no peak for this instruction set")?;
                }
                let peak = threads as f64 * peak_flops as f64 / (now(1) - start).as_secs_f64();
                turns.push((rate / peak, peak / 1e9));
            }
            turns.sort_by(|one, other| one.0.total_cmp(&other.0));
            Ok(turns[TURNS / 2])
        })
        .collect()
}

/// CPU time of the process for one thread, else wall time, in which threads that wait count.
#[cfg(target_os = "linux")]
fn now(threads: usize) -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let clock = if threads == 1 { libc::CLOCK_PROCESS_CPUTIME_ID } else { libc::CLOCK_MONOTONIC };
    // SAFETY: `time` is writable for the call.
    let status = unsafe { libc::clock_gettime(clock, &raw mut time) };
    assert_eq!(status, 0, "the clock exists");
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

/// Wall time since the first call.
#[cfg(not(target_os = "linux"))]
fn now(_threads: usize) -> Duration {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}

/// Values in -1..1 from a linear congruential generator. None is zero, because some processors compute faster with zeros.
fn random_values(seed: u32, len: usize) -> Vec<f32> {
    let mut state = seed;
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (f64::from(state >> 8 | 1) / f64::from(1 << 23) - 1.0) as f32
        })
        .collect()
}
