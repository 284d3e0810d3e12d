//! bf16 GEMM at the shapes of SmolLM2-135M and Llama-3.2-1B on two interleaved instruction sets: GFLOP/s, their
//! ratio, and the percentage of the peak that loops over registers reach in the same run.
//!
//! `cargo run --release -p actbench-kernels --example gemm -- [before] [after] [threads]`. The defaults are the best
//! instruction set with only fused multiply-adds, the best of the machine, and one thread.

use std::time::{Duration, Instant};

use actbench_kernels::cpu::Isa;
use actbench_kernels::{Activation, Backend, CpuBackend, DType};

#[path = "../benches/ops/peak.rs"]
mod peak;
#[path = "../benches/common/setup.rs"]
mod setup;

use setup::{random_host, random_tensor, skip_on_error};

/// `(name, K, N, gated)` of the projections.
const PROJECTIONS: [(&str, usize, usize, bool); 8] = [
    ("135m query", 576, 576, false),
    ("135m key-value", 576, 384, false),
    ("135m gate-up", 576, 1536, true),
    ("135m down", 1536, 576, false),
    ("1b query", 2048, 2048, false),
    ("1b key-value", 2048, 1024, false),
    ("1b gate-up", 2048, 8192, true),
    ("1b down", 8192, 2048, false),
];

/// Tokens (M).
const ROWS: [usize; 4] = [8, 64, 256, 1024];

/// Interleaved repetitions. The minimum time counts, because other processes use the machine too.
const REPETITIONS: usize = 40;

/// The minimum measured time, shorter than a time slice of the scheduler.
const WINDOW: Duration = Duration::from_micros(400);

/// The time of one call of `work`, repeated to fill a window.
fn timed(work: &mut dyn FnMut()) -> f64 {
    let mut calls = 1;
    loop {
        let start = Instant::now();
        (0..calls).for_each(|_| work());
        let taken = start.elapsed();
        if taken >= WINDOW {
            return taken.as_secs_f64() / calls as f64;
        }
        calls *= 2;
    }
}

/// The best GFLOP/s of the register loop on `threads` threads.
fn peak_rate(isa: Isa, threads: usize) -> f64 {
    let thread_rate = |_: usize| {
        let start = Instant::now();
        let flops = peak::spin(isa, 150_000).unwrap_or(0);
        flops as f64 / start.elapsed().as_secs_f64() / 1e9
    };
    (0..100)
        .map(|_| {
            std::thread::scope(|scope| {
                let handles: Vec<_> = (0..threads).map(|index| scope.spawn(move || thread_rate(index))).collect();
                handles.into_iter().filter_map(|handle| handle.join().ok()).sum::<f64>()
            })
        })
        .fold(0.0, f64::max)
}

fn measure(before: Isa, after: Isa, threads: usize) -> Result<(), Box<dyn std::error::Error>> {
    let backends = [CpuBackend::with_isa(threads, before)?, CpuBackend::with_isa(threads, after)?];
    let peaks = [peak_rate(before, threads), peak_rate(after, threads)];
    println!("{} compared with {}", backends[0].describe(), backends[1].describe());
    println!("peak {:.0} and {:.0} GFLOP/s", peaks[0], peaks[1]);
    println!("{:<16}{:>6}{:>10}{:>10}{:>8}{:>8}", "", "rows", "before", "after", "ratio", "peak");
    let filter = std::env::args().nth(4).unwrap_or_default();
    for (name, inputs, outputs, gated) in PROJECTIONS.into_iter().filter(|row| row.0.contains(&filter)) {
        for rows in ROWS {
            let mut times = [f64::INFINITY; 2];
            let mut works = Vec::new();
            for backend in &backends {
                let matrix = random_host(1, DType::Bf16, &[outputs, inputs])?;
                let weight = if gated {
                    backend.prepare_gated(&matrix, &matrix, DType::Bf16)?
                } else {
                    backend.prepare_linear(&[matrix], DType::Bf16)?
                };
                let x = random_tensor(backend, 2, DType::Bf16, rows, inputs)?;
                let out = backend.alloc(DType::Bf16, rows, outputs)?;
                works.push((backend, weight, x, out));
            }
            for _ in 0..REPETITIONS {
                for ((backend, weight, x, out), time) in works.iter_mut().zip(&mut times) {
                    let taken = timed(&mut || {
                        skip_on_error(if gated {
                            backend.linear_gated(x, weight, None, Activation::Silu, out)
                        } else {
                            backend.linear(x, weight, None, out)
                        });
                    });
                    *time = time.min(taken);
                }
            }
            let flops = (2 * rows * inputs * outputs * if gated { 2 } else { 1 }) as f64;
            let [before, after] = times.map(|time| flops / time / 1e9);
            println!(
                "{name:<16}{rows:>6}{before:>10.0}{after:>10.0}{:>8.2}{:>7.0}%",
                after / before,
                100.0 * after / peaks[1]
            );
        }
    }
    Ok(())
}

fn main() {
    let argument = |index: usize| std::env::args().nth(index);
    let named = |index: usize, otherwise: Isa| {
        Isa::ALL.into_iter().find(|isa| Some(isa.to_string()) == argument(index)).unwrap_or(otherwise)
    };
    let threads = argument(3).and_then(|threads| threads.parse().ok()).unwrap_or(1);
    skip_on_error(measure(named(1, Isa::Avx512.min(Isa::detect())), named(2, Isa::detect()), threads));
}
