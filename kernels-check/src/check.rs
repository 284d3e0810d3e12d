//! Each case on the device by every set of kernels: against the CPU, against the plain ones, and rows alone.
//!
//! The device fills what a launch will write with NaN, so that an element left out is a difference.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use actbench_kernels::cuda::sources::{KernelSource, SOURCES};
use actbench_kernels::cuda::{CudaBackend, Device, KernelSet};
use actbench_kernels::{CpuBackend, HostTensor, KernelError};
use bytes::Bytes;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use crate::case::Case;
use crate::compare::{compare, tolerance};
use crate::differences::Differences;
use crate::inputs::{Inputs, all_finite, upload};
use crate::operation::{Weights, compute, compute_all};
use crate::progress::Progress;
use crate::recording::Recording;

/// Failures that are kept of one kernel: the first ones tell what is wrong.
const KEPT_FAILURES: usize = 3;

/// What was found of one kernel.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct KernelResult {
    /// Results that were compared.
    pub cases: usize,
    /// The largest difference from the CPU, as a share of the largest value of its case; null
    /// where a value is NaN.
    pub worst_error: f64,
    /// The largest that is allowed.
    pub tolerance: f64,
    /// Cases that have the bits of the CPU's result.
    pub with_the_bits_of_the_cpu: usize,
    /// Ranges of rows that were computed without the others, or the whole again, and had the same bits.
    pub rows_alone: usize,
    /// How many checks failed.
    pub failed: usize,
    /// The first failures, each with its case.
    pub failures: Vec<String>,
}

impl KernelResult {
    fn fail(&mut self, case: &Case, what: &str) {
        self.failed += 1;
        if self.failures.len() < KEPT_FAILURES {
            self.failures.push(format!("{case}, seed {}: {what}", case.seed));
        }
    }
}

/// What was found.
#[derive(Debug, Default, Serialize)]
pub struct Found {
    /// By the kernel's name.
    pub kernels: BTreeMap<String, KernelResult>,
    /// Kernels that no case launched.
    pub not_launched: Vec<String>,
    /// Cases that were run.
    pub cases: usize,
    /// Why the rest was not run: what the device was lost to.
    pub lost: Option<String>,
}

/// The sets of kernels, in the order of their ladder.
pub const SETS: [KernelSet; 3] = [KernelSet::Plain, KernelSet::Mma, KernelSet::Fast];

/// A device with every set of kernels, and what they are compared with.
pub struct Checker<'a, D: Device> {
    device: Arc<Recording<D>>,
    cpu: &'a CpuBackend,
    /// Whether plain kernels must have the CPU's bits: known of the emulator, expected of a GPU.
    exact: bool,
    found: Found,
    launched: BTreeSet<String>,
}

impl<'a, D: Device> Checker<'a, D> {
    /// Of `device`, which should be a checked one.
    pub fn new(device: Arc<D>, cpu: &'a CpuBackend, exact: bool) -> Self {
        let device = Arc::new(Recording::new(device));
        Checker { device, cpu, exact, found: Found::default(), launched: BTreeSet::new() }
    }

    /// Runs `cases`, until `progress` says that it is enough, and compares with the emulator where `differences` can.
    /// `lost` says what the device was lost to.
    pub fn run(
        mut self,
        cases: &[Case],
        differences: &mut Differences,
        progress: &Progress,
        lost: impl Fn() -> Option<String>,
    ) -> Found {
        let mut failed = 0;
        for case in cases {
            if progress.is_interrupted() {
                return self.found;
            }
            self.found.cases += 1;
            let inputs = Inputs::new(case);
            match compute_all(self.cpu, &inputs) {
                Ok(expected) => self.check(&inputs, &expected, differences),
                Err(error) => self.fail(case, &format!("the CPU could not compute it: {error}")),
            }
            let before = std::mem::replace(&mut failed, self.found.kernels.values().map(|kernel| kernel.failed).sum());
            if failed > before {
                progress.tell(&format!("FAILED {case}, seed {}", case.seed));
            }
            progress
                .tell_now_and_then(|| format!("{} of {} cases, the last one {case}", self.found.cases, cases.len()));
            if let Some(why) = lost() {
                self.found.lost = Some(why);
                break;
            }
        }
        progress.tell(&format!("{} of {} cases", self.found.cases, cases.len()));
        let device = self.device.architecture();
        let sources = SOURCES.iter().filter(|source| device.is_none_or(|device| source.is_for(device)));
        let known = sources.flat_map(KernelSource::kernels);
        self.found.not_launched = known.filter(|kernel| !self.launched.contains(*kernel)).map(str::to_owned).collect();
        self.found
    }

    /// Notes that nothing of `case` could be compared.
    fn fail(&mut self, case: &Case, what: &str) {
        self.found.kernels.entry(format!("{}{}", case.kernels(), case.dtype)).or_default().fail(case, what);
    }

    fn check(&mut self, inputs: &Inputs<'_>, expected: &[u8], differences: &mut Differences) {
        // What is uploaded once serves all sets: they differ in launches alone.
        let weights = match Weights::upload(&CudaBackend::new(self.device.clone(), SETS[0]), inputs) {
            Ok(weights) => weights,
            Err(error) => return self.fail(inputs.case, &error.to_string()),
        };
        self.launched.append(&mut self.device.take());
        let (mut plain, mut checked) = (None, BTreeSet::new());
        for set in SETS {
            let got = self.check_set(inputs, &weights, set, expected, plain.as_deref(), &mut checked, differences);
            if set == KernelSet::Plain {
                plain = got;
            }
        }
    }

    /// One set of kernels on one case, unless it is served by a kernel that was checked on it. The bytes of the result, if
    /// there is one.
    #[expect(clippy::too_many_arguments, reason = "they are what a result is compared with, each of another kind")]
    fn check_set(
        &mut self,
        inputs: &Inputs<'_>,
        weights: &Weights<CudaBackend<Arc<Recording<D>>>>,
        set: KernelSet,
        expected: &[u8],
        plain: Option<&[u8]>,
        checked: &mut BTreeSet<String>,
        differences: &mut Differences,
    ) -> Option<Vec<u8>> {
        let (case, backend) = (inputs.case, &CudaBackend::new(self.device.clone(), set));
        self.device.take();
        let result = compute(backend, inputs, weights, 0..case.rows());
        let mut launched = self.device.take();
        let kernel = launched.iter().find(|kernel| kernel.starts_with(case.kernels())).cloned();
        self.launched.append(&mut launched);
        let kernel = kernel.unwrap_or_else(|| format!("{}{}", case.kernels(), case.dtype));
        // A result that differs from the same kernel's is looked at.
        if !checked.insert(kernel.clone()) && result.as_deref().ok() == plain.or(result.as_deref().ok()) {
            return result.ok();
        }
        let is_fast = ["_mma_", "_wgmma_", "rms_norm_wide_"].iter().any(|part| kernel.contains(part));
        let entry = self.found.kernels.entry(kernel.clone()).or_default();
        entry.cases += 1;
        // A fast kernel has its own order of sums, and attention rounds its weights as well.
        entry.tolerance = tolerance(case.dtype) * if is_fast { 2.0 } else { 1.0 };
        let got = match result {
            Ok(got) => got,
            Err(error) => {
                entry.fail(case, &error.to_string());
                return None;
            }
        };
        let difference = compare(&got, expected, case.dtype, case.columns(), "the CPU");
        entry.worst_error = entry.worst_error.max(difference.worst);
        entry.with_the_bits_of_the_cpu += usize::from(difference.elements == 0);
        if !difference.is_within(entry.tolerance) || (self.exact && !is_fast && difference.elements > 0) {
            entry.fail(case, &difference.place.unwrap_or_else(|| "zeros of the other sign".to_owned()));
        }
        if let Some(plain) = plain {
            let difference = compare(&got, plain, case.dtype, case.columns(), "the plain kernel");
            if !difference.is_within(entry.tolerance) {
                entry.fail(case, &difference.place.unwrap_or_default());
            }
            if all_finite(case.dtype, &got) && all_finite(case.dtype, plain) {
                self.check_comparison(backend, case, &got, plain);
            }
        }
        let entry = self.found.kernels.entry(kernel.clone()).or_default();
        let row_bytes = case.columns() * case.dtype.size();
        for range in ranges(case) {
            let whole = got.get(range.start * row_bytes..range.end * row_bytes).unwrap_or_default();
            match compute(backend, inputs, weights, range.clone()) {
                Ok(alone) if alone == whole => entry.rows_alone += 1,
                Ok(alone) => {
                    let difference = compare(&alone, whole, case.dtype, case.columns(), "the whole batch");
                    let place = difference.place.unwrap_or_default();
                    entry.fail(case, &format!("rows {range:?} computed without the others: {place}"));
                }
                Err(error) => entry.fail(case, &format!("rows {range:?} computed without the others: {error}")),
            }
        }
        differences.compare(case, set, &kernel, &got);
        Some(got)
    }
}

impl<D: Device> Checker<'_, D> {
    /// The comparison on the device, of two results of a case: it must find what the host finds, in all and in some rows.
    fn check_comparison(&mut self, backend: &CudaBackend<Arc<Recording<D>>>, case: &Case, got: &[u8], expected: &[u8]) {
        let (rows, columns, dtype) = (case.rows(), case.columns(), case.dtype);
        let uploaded = |bytes: &[u8]| -> Result<_, KernelError> {
            upload(backend, &HostTensor::new(dtype, vec![rows, columns], Bytes::copy_from_slice(bytes))?)
        };
        let both = uploaded(got).and_then(|got| Ok((got, uploaded(expected)?)));
        let entry = self.found.kernels.entry(format!("compare_{dtype}")).or_default();
        entry.cases += 1;
        let (on_device, expected_on_device) = match both {
            Ok(both) => both,
            Err(error) => return entry.fail(case, &error.to_string()),
        };
        for some in [rows, rows.div_ceil(2)] {
            let part = |bytes: &'_ [u8]| bytes.get(..some * columns * dtype.size()).unwrap_or_default().to_vec();
            let host = compare(&part(got), &part(expected), dtype, columns, "the plain kernel");
            match backend.compare(&on_device, &expected_on_device, some) {
                Err(error) => entry.fail(case, &error.to_string()),
                Ok(found) => {
                    let worst = f64::from(found.farthest) / f64::from(found.largest).max(1e-30);
                    let same =
                        found.elements == host.elements as u64 && (worst - host.worst).abs() <= 1e-6 * host.worst;
                    match same || (worst.is_nan() && host.worst.is_infinite()) {
                        true => entry.rows_alone += 1,
                        false => entry.fail(case, &format!("{found:?} where the host finds {host:?}")),
                    }
                }
            }
        }
        // Launches of its own, which the next case would forget.
        self.launched.append(&mut self.device.take());
    }
}

/// Ranges of rows to compute without the others: the whole again, whose bits must be the same as well, one row, and some.
fn ranges(case: &Case) -> Vec<Range<usize>> {
    let (rows, mut rng) = (case.rows(), ChaCha8Rng::seed_from_u64(case.seed));
    let mut ranges: Vec<_> = std::iter::once(0..rows).collect();
    if rows > 1 {
        let (row, from) = (rng.random_range(0..rows), rng.random_range(0..rows));
        ranges.extend([row..row + 1, from..rng.random_range(from + 1..=rows)]);
    }
    ranges
}
