//! What a GPU computes otherwise than the emulator: the emulator stands for it in tests, and here is how well.

use std::collections::BTreeMap;

use actbench_kernels::cuda::{Architecture, KernelSet};
use serde::Serialize;

use crate::case::Case;
use crate::compare::compare;

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

/// Compares a GPU with the emulator, if this program has one.
#[derive(Debug, Default)]
pub struct Differences {
    /// Nothing to compare with: the device is the emulator, or the program has none.
    enabled: bool,
    /// What the emulator stands for: it should use the kernels that the GPU uses.
    device: Option<Architecture>,
    kernels: BTreeMap<String, KernelDifference>,
}

/// The most multiplications of a product that the emulator is given: it does some ten millions a second.
#[cfg(feature = "emulator")]
const MOST_MULTIPLICATIONS: usize = 8_000_000;

impl Differences {
    /// For a run on a GPU of this architecture.
    pub fn of_a_gpu(device: Option<Architecture>) -> Self {
        Differences { enabled: cfg!(feature = "emulator"), device, kernels: BTreeMap::new() }
    }

    /// For a run on the emulator itself.
    #[cfg(feature = "emulator")]
    pub fn none() -> Self {
        Differences::default()
    }

    /// Compares `got`, which `kernel` computed, with the emulator's result of the same case.
    pub fn compare(&mut self, case: &Case, set: KernelSet, kernel: &str, got: &[u8]) {
        if !self.enabled {
            return;
        }
        let Some(expected) = emulated(case, set, self.device) else { return };
        let difference = compare(got, &expected, case.dtype, case.columns(), "the emulator");
        let entry = self.kernels.entry(kernel.to_owned()).or_default();
        entry.cases += 1;
        entry.with_other_bits += usize::from(difference.elements > 0);
        entry.elements += difference.elements;
        if difference.elements > 0 && (entry.example.is_none() || difference.worst > entry.worst) {
            entry.worst = difference.worst;
            entry.example = difference.place.map(|place| format!("{case}, seed {}: {place}", case.seed));
        }
    }

    /// What was found, by the kernel's name; nothing where nothing was compared.
    pub fn found(self) -> Option<BTreeMap<String, KernelDifference>> {
        self.enabled.then_some(self.kernels)
    }
}

/// The emulator's result, unless it would take long.
#[cfg(feature = "emulator")]
fn emulated(case: &Case, set: KernelSet, device: Option<Architecture>) -> Option<Vec<u8>> {
    use actbench_kernels::cuda::CudaBackend;
    use actbench_kernels::cuda::emulator::Emulator;

    use crate::case::Operation;

    let work = match &case.operation {
        Operation::Product { rows, inputs, outputs, .. } => rows * inputs * outputs,
        Operation::Attention { shape, lens } => lens.iter().map(|len| len * len * shape.query_width()).sum(),
        _ => case.rows() * case.columns(),
    };
    let emulator = Emulator::new(crate::run::emulator_options(case.seed)).standing_for(device?);
    let backend = CudaBackend::new(emulator, set);
    (work <= MOST_MULTIPLICATIONS).then(|| crate::operation::compute(&backend, case, 0..case.rows()).ok()).flatten()
}

#[cfg(not(feature = "emulator"))]
fn emulated(_case: &Case, _set: KernelSet, _device: Option<Architecture>) -> Option<Vec<u8>> {
    None
}
