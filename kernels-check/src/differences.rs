//! What a GPU computes otherwise than the emulator: the emulator stands for it in tests, and here is how well.

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

/// What one kernel computed otherwise.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct KernelDifference {
    /// Results that were compared.
    pub cases: usize,
    /// Of these, results with other bits.
    pub with_other_bits: usize,
    /// Elements with other bits in all of them.
    pub elements: usize,
    /// The largest difference, as a share of the largest value of its case.
    pub worst: f64,
    /// Where that was.
    pub example: Option<String>,
}

/// What was found, by the kernel's name.
type Found = BTreeMap<String, KernelDifference>;

/// Compares a GPU with the emulator, if this program has one. The emulator runs beside everything else, in a thread of
/// its own: it does one launch at a time, however many processors there are.
#[derive(Debug, Default)]
pub struct Differences {
    /// Where results go; none where the device is the emulator, or the program has none.
    emulator: Option<(Sender<Job>, JoinHandle<Found>)>,
    /// Results that it has not come to.
    waiting: Arc<AtomicUsize>,
}

/// A result to compare.
#[derive(Debug)]
struct Job {
    case: Case,
    set: KernelSet,
    kernel: String,
    got: Vec<u8>,
}

/// The most multiplications of a product that the emulator is given: it does some hundred millions a second.
const MOST_MULTIPLICATIONS: usize = 8_000_000;

impl Differences {
    /// For a run on a GPU of this architecture. Once `interrupted` is set, nothing is compared any more.
    pub fn of_a_gpu(device: Option<Architecture>, interrupted: Arc<AtomicBool>) -> Self {
        let Some(device) = device.filter(|_| cfg!(feature = "emulator")) else { return Differences::default() };
        let (sender, jobs) = channel::<Job>();
        let waiting = Arc::<AtomicUsize>::default();
        let left = waiting.clone();
        let emulator = std::thread::spawn(move || {
            let mut kernels = BTreeMap::new();
            for job in jobs {
                if !interrupted.load(Ordering::SeqCst) {
                    job.compare(device, &mut kernels);
                }
                left.fetch_sub(1, Ordering::SeqCst);
            }
            kernels
        });
        Differences { emulator: Some((sender, emulator)), waiting }
    }

    /// For a run on the emulator itself.
    #[cfg(feature = "emulator")]
    pub fn none() -> Self {
        Differences::default()
    }

    /// Compares `got`, which `kernel` computed, with the emulator's result of the same case, unless that would take long.
    pub fn compare(&mut self, case: &Case, set: KernelSet, kernel: &str, got: &[u8]) {
        let Some((sender, _)) = &self.emulator else { return };
        if multiplications(case) > MOST_MULTIPLICATIONS {
            return;
        }
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let job = Job { case: case.clone(), set, kernel: kernel.to_owned(), got: got.to_vec() };
        // It fails if the thread is gone, of which `found` tells.
        let _ = sender.send(job);
    }

    /// What was found, by the kernel's name, once the emulator is done; nothing where nothing was compared.
    pub fn found(self, progress: &Progress) -> Option<Found> {
        let (sender, emulator) = self.emulator?;
        drop(sender);
        while !emulator.is_finished() {
            progress
                .tell_now_and_then(|| format!("{} results wait for the emulator", self.waiting.load(Ordering::SeqCst)));
            std::thread::sleep(WAIT);
        }
        Some(emulator.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    }
}

/// Between two looks at whether the emulator is done.
const WAIT: Duration = Duration::from_millis(10);

/// Of a product or attention; elements of what only moves them.
fn multiplications(case: &Case) -> usize {
    match &case.operation {
        Operation::Product { rows, inputs, outputs, .. } => rows * inputs * outputs,
        Operation::Attention { shape, lens } => lens.iter().map(|len| len * len * shape.query_width()).sum(),
        _ => case.rows() * case.columns(),
    }
}

impl Job {
    fn compare(&self, device: Architecture, kernels: &mut Found) {
        let case = &self.case;
        let Some(expected) = emulated(case, self.set, device) else { return };
        let difference = compare(&self.got, &expected, case.dtype, case.columns(), "the emulator");
        let entry = kernels.entry(self.kernel.clone()).or_default();
        entry.cases += 1;
        entry.with_other_bits += usize::from(difference.elements > 0);
        entry.elements += difference.elements;
        if difference.elements > 0 && (entry.example.is_none() || difference.worst > entry.worst) {
            entry.worst = difference.worst;
            entry.example = difference.place.map(|place| format!("{case}, seed {}: {place}", case.seed));
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

    let emulator = Emulator::new(crate::run::emulator_options(case.seed)).standing_for(device);
    compute_all(&CudaBackend::new(emulator, set), &Inputs::new(case)).ok()
}

#[cfg(not(feature = "emulator"))]
fn emulated(_case: &Case, _set: KernelSet, _device: Architecture) -> Option<Vec<u8>> {
    None
}
