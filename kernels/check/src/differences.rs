//! Comparison of a GPU with the emulator, which replaces it in tests.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use actbench_kernels::cuda::{Architecture, KernelSet};
use serde::Serialize;

use crate::case::{Case, Operation};
use crate::compare::compare;
use crate::progress::Progress;

/// The differences of one kernel.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct KernelDifference {
    /// Results that were compared.
    pub cases: usize,
    /// Results with different bits.
    pub with_other_bits: usize,
    /// Elements with different bits in all results.
    pub elements: usize,
    /// The largest difference, relative to the largest value of its case.
    pub worst: f64,
    /// The case and element of the largest difference.
    pub example: Option<String>,
}

/// The differences by the kernel's name.
type DifferencesByKernel = BTreeMap<String, KernelDifference>;

/// Compares a GPU with the emulator, in builds with the emulator. The emulator runs in a thread of its own, one launch at a
/// time.
#[derive(Debug, Default)]
pub struct EmulatorComparison {
    /// The queue and the thread; `None` if the device is the emulator or the build has none.
    worker: Option<(Sender<ComparisonJob>, JoinHandle<DifferencesByKernel>)>,
    /// Results in the queue.
    pending: Arc<AtomicUsize>,
}

/// A result to compare.
#[derive(Debug)]
struct ComparisonJob {
    case: Case,
    set: KernelSet,
    kernel: String,
    got: Vec<u8>,
}

/// The limit for results that the emulator computes: it performs some hundred million multiplications a second.
const MAX_MULTIPLICATIONS: usize = 8_000_000;

impl EmulatorComparison {
    /// Starts the emulator for a run on a GPU of this architecture. When `interrupted` is set, comparing stops.
    pub fn start(device: Option<Architecture>, interrupted: Arc<AtomicBool>) -> Self {
        let Some(device) = device.filter(|_| cfg!(feature = "emulator")) else { return EmulatorComparison::default() };
        let (sender, jobs) = channel::<ComparisonJob>();
        let pending = Arc::<AtomicUsize>::default();
        let remaining = pending.clone();
        let worker = std::thread::spawn(move || {
            let mut kernels = BTreeMap::new();
            for job in jobs {
                if !interrupted.load(Ordering::SeqCst) {
                    job.compare(device, &mut kernels);
                }
                remaining.fetch_sub(1, Ordering::SeqCst);
            }
            kernels
        });
        EmulatorComparison { worker: Some((sender, worker)), pending }
    }

    /// No comparison, for a run on the emulator itself.
    #[cfg(feature = "emulator")]
    pub fn none() -> Self {
        EmulatorComparison::default()
    }

    /// Compares `got`, which `kernel` computed, with the emulator's result of the same case, unless that would take long.
    pub fn compare(&mut self, case: &Case, set: KernelSet, kernel: &str, got: &[u8]) {
        let Some((sender, _)) = &self.worker else { return };
        if multiplications(case) > MAX_MULTIPLICATIONS {
            return;
        }
        self.pending.fetch_add(1, Ordering::SeqCst);
        let job = ComparisonJob { case: case.clone(), set, kernel: kernel.to_owned(), got: got.to_vec() };
        // It fails if the thread has panicked, which `finish` reports.
        let _ = sender.send(job);
    }

    /// Waits for the emulator and returns the differences; `None` if nothing was compared.
    pub fn finish(self, progress: &Progress) -> Option<DifferencesByKernel> {
        let (sender, worker) = self.worker?;
        drop(sender);
        while !worker.is_finished() {
            progress.print_occasionally(|| {
                format!("{} results wait for the emulator", self.pending.load(Ordering::SeqCst))
            });
            std::thread::sleep(POLL_INTERVAL);
        }
        Some(worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    }
}

/// The interval of checks whether the emulator has finished.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Multiplications of a GEMM or attention; elements for other operations.
fn multiplications(case: &Case) -> usize {
    match &case.operation {
        Operation::Gemm { m, k, n, .. } => m * k * n,
        Operation::Attention { shape, lens, .. } => lens.iter().map(|len| len * len * shape.query_width()).sum(),
        _ => case.rows() * case.columns(),
    }
}

impl ComparisonJob {
    fn compare(&self, device: Architecture, kernels: &mut DifferencesByKernel) {
        let case = &self.case;
        let Some(expected) = emulated(case, self.set, device) else { return };
        let difference = compare(&self.got, &expected, case.dtype, case.columns(), "the emulator");
        let entry = kernels.entry(self.kernel.clone()).or_default();
        entry.cases += 1;
        entry.with_other_bits += usize::from(difference.elements > 0);
        entry.elements += difference.elements;
        if difference.elements > 0 && (entry.example.is_none() || difference.worst > entry.worst) {
            entry.worst = difference.worst;
            entry.example = difference.location.map(|location| format!("{case}, seed {}: {location}", case.seed));
        }
    }
}

/// The emulator's result.
#[cfg(feature = "emulator")]
fn emulated(case: &Case, set: KernelSet, device: Architecture) -> Option<Vec<u8>> {
    use actbench_kernels::cuda::CudaBackend;
    use actbench_kernels::cuda::emulator::Emulator;

    use crate::inputs::Inputs;
    use crate::operation::compute_all;

    let emulator = Emulator::new(emulator_options(case.seed)).with_architecture(device);
    compute_all(&CudaBackend::new(emulator, set), &Inputs::new(case)).ok()
}

#[cfg(not(feature = "emulator"))]
fn emulated(_case: &Case, _set: KernelSet, _device: Architecture) -> Option<Vec<u8>> {
    None
}

/// The mode of the emulator in checks: random order of threads and times of copies.
#[cfg(feature = "emulator")]
pub fn emulator_options(seed: u64) -> actbench_kernels::cuda::emulator::EmulatorOptions {
    use actbench_kernels::cuda::emulator::{CopyTime, EmulatorOptions, ThreadOrder};

    EmulatorOptions { order: ThreadOrder::Random, copies: CopyTime::Mixed, seed }
}
