//! Runs each case on the device with every set of kernels: compares with the CPU, with the plain kernels, and rows alone.
//!
//! The device fills the output of a launch with NaN beforehand, so that an unwritten element is a difference.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use actbench_kernels::cuda::registry::{self, Kernel, KernelSource, SOURCES, Variant};
use actbench_kernels::cuda::{CudaBackend, Device, KernelSet};
use actbench_kernels::{CpuBackend, HostTensor, KernelError};
use bytes::Bytes;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use crate::case::{Case, Operation};
use crate::compare::{compare, tolerance};
use crate::differences::EmulatorComparison;
use crate::folded::folds;
use crate::inputs::{Inputs, all_finite, upload};
use crate::operation::{Weights, compute, compute_all};
use crate::progress::Progress;
use crate::recording::RecordingDevice;

/// The reported failures of one kernel.
const MAX_FAILURES: usize = 3;

/// The result of one kernel.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct KernelResult {
    /// Results that were compared.
    pub cases: usize,
    /// The largest difference from the CPU, relative to the largest value of its case; null
    /// where a value is NaN.
    pub worst_error: f64,
    /// The largest allowed difference.
    pub tolerance: f64,
    /// Cases with the bits of the CPU's result.
    pub with_the_bits_of_the_cpu: usize,
    /// Ranges of rows, computed without the other rows, and repetitions that had the same bits.
    pub rows_alone: usize,
    /// The number of failed checks.
    pub failed: usize,
    /// The first failures, each with its case.
    pub failures: Vec<String>,
}

impl KernelResult {
    fn fail(&mut self, case: &Case, message: &str) {
        self.failed += 1;
        if self.failures.len() < MAX_FAILURES {
            self.failures.push(format!("{case}, seed {}: {message}", case.seed));
        }
    }
}

/// The results of a run.
#[derive(Debug, Default, Serialize)]
pub struct CheckResults {
    /// Results by the kernel's name.
    pub kernels: BTreeMap<String, KernelResult>,
    /// Kernels without a launch.
    pub not_launched: Vec<String>,
    /// The number of cases run.
    pub cases: usize,
    /// The error that lost the device, after which no case was run.
    pub lost: Option<String>,
}

/// The sets of kernels, in the order of their ladder.
pub const SETS: [KernelSet; 3] = [KernelSet::Plain, KernelSet::Mma, KernelSet::Fast];

/// Checks a device with every set of kernels against the CPU.
pub struct Checker<'a, D: Device> {
    device: Arc<RecordingDevice<D>>,
    cpu: &'a CpuBackend,
    /// Whether exact kernels must have the CPU's bits: required of the emulator, expected of a GPU.
    exact: bool,
    found: CheckResults,
    launched: BTreeSet<String>,
}

impl<'a, D: Device> Checker<'a, D> {
    /// A checker of `device`, which should check launches.
    pub fn new(device: Arc<D>, cpu: &'a CpuBackend, exact: bool) -> Self {
        let device = Arc::new(RecordingDevice::new(device));
        Checker { device, cpu, exact, found: CheckResults::default(), launched: BTreeSet::new() }
    }

    /// Runs `cases` until `progress` is interrupted, and compares with the emulator through `differences`. `lost` returns the
    /// error that lost the device.
    pub fn run(
        mut self,
        cases: &[Case],
        differences: &mut EmulatorComparison,
        progress: &Progress,
        lost: impl Fn() -> Option<String>,
    ) -> CheckResults {
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
                progress.print(&format!("FAILED {case}, seed {}", case.seed));
            }
            progress
                .print_occasionally(|| format!("{} of {} cases, the last one {case}", self.found.cases, cases.len()));
            if let Some(why) = lost() {
                self.found.lost = Some(why);
                break;
            }
        }
        progress.print(&format!("{} of {} cases", self.found.cases, cases.len()));
        let device = self.device.architecture();
        let sources = SOURCES.iter().filter(|source| device.is_none_or(|device| source.is_for(device)));
        let names = sources.flat_map(KernelSource::kernels).map(|kernel| kernel.name);
        self.found.not_launched = names.filter(|name| !self.launched.contains(*name)).map(str::to_owned).collect();
        self.found
    }

    /// Records a failure of `case` that has no result to compare.
    fn fail(&mut self, case: &Case, message: &str) {
        self.found.kernels.entry(plain_kernel(case)).or_default().fail(case, message);
    }

    fn check(&mut self, inputs: &Inputs<'_>, expected: &[u8], differences: &mut EmulatorComparison) {
        // Uploaded once for all sets, which differ in launches alone.
        let weights = match Weights::upload(&CudaBackend::new(self.device.clone(), SETS[0]), inputs) {
            Ok(weights) => weights,
            Err(error) => return self.fail(inputs.case, &error.to_string()),
        };
        self.launched.append(&mut self.device.take());
        let (mut plain, mut checked) = (None, BTreeSet::new());
        let is_folded = matches!(inputs.case.operation, Operation::Folded { .. });
        let folds = |set| folds(&CudaBackend::new(self.device.clone(), set));
        for set in SETS.into_iter().filter(|set| !is_folded || folds(*set)).collect::<Vec<_>>() {
            let got = self.check_set(inputs, &weights, set, expected, plain.as_deref(), &mut checked, differences);
            if set == KernelSet::Plain {
                plain = got;
            }
        }
    }

    /// Checks one set of kernels on one case, unless the case was checked with the same kernel. Returns the bytes of the
    /// result.
    #[expect(clippy::too_many_arguments, reason = "the references of a result have different types")]
    fn check_set(
        &mut self,
        inputs: &Inputs<'_>,
        weights: &Weights<CudaBackend<Arc<RecordingDevice<D>>>>,
        set: KernelSet,
        expected: &[u8],
        plain: Option<&[u8]>,
        checked: &mut BTreeSet<String>,
        differences: &mut EmulatorComparison,
    ) -> Option<Vec<u8>> {
        let (case, backend) = (inputs.case, &CudaBackend::new(self.device.clone(), set));
        self.device.take();
        let result = compute(backend, inputs, weights, 0..case.rows());
        let mut launched = self.device.take();
        let operation = case.kernel_operation();
        let is_own = |name: &&String| registry::named(name).is_some_and(|kernel| kernel.operation == operation);
        let kernel = launched.iter().find(is_own).cloned();
        self.launched.append(&mut launched);
        let kernel = kernel.unwrap_or_else(|| plain_kernel(case));
        // A result that differs from an earlier result of the same kernel is checked.
        if !checked.insert(kernel.clone()) && result.as_deref().ok() == plain.or(result.as_deref().ok()) {
            return result.ok();
        }
        let facts = registry::named(&kernel);
        let is_exact = facts.is_some_and(|facts| facts.has_cpu_bits);
        let entry = self.found.kernels.entry(kernel.clone()).or_default();
        entry.cases += 1;
        entry.tolerance = tolerance(case.dtype) * facts.map_or(1.0, Kernel::tolerance_factor);
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
        if !difference.is_within(entry.tolerance) || (self.exact && is_exact && difference.elements > 0) {
            entry.fail(case, &difference.location.unwrap_or_else(|| "zeros have the opposite sign".to_owned()));
        }
        if let Some(plain) = plain {
            let difference = compare(&got, plain, case.dtype, case.columns(), "the plain kernel");
            if !difference.is_within(entry.tolerance) {
                entry.fail(case, &difference.location.unwrap_or_default());
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
                    let location = difference.location.unwrap_or_default();
                    entry.fail(case, &format!("rows {range:?} computed without the other rows: {location}"));
                }
                Err(error) => entry.fail(case, &format!("rows {range:?} computed without the other rows: {error}")),
            }
        }
        differences.compare(case, set, &kernel, &got);
        Some(got)
    }
}

impl<D: Device> Checker<'_, D> {
    /// Checks the comparison kernel on two results of a case against the host's comparison, for all rows and for half.
    fn check_comparison(
        &mut self,
        backend: &CudaBackend<Arc<RecordingDevice<D>>>,
        case: &Case,
        got: &[u8],
        expected: &[u8],
    ) {
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
        for n_rows in [rows, rows.div_ceil(2)] {
            let part = |bytes: &'_ [u8]| bytes.get(..n_rows * columns * dtype.size()).unwrap_or_default().to_vec();
            let host = compare(&part(got), &part(expected), dtype, columns, "the plain kernel");
            match backend.compare(&on_device, &expected_on_device, n_rows) {
                Err(error) => entry.fail(case, &error.to_string()),
                Ok(found) => {
                    let worst = f64::from(found.max_difference) / f64::from(found.max_expected).max(1e-30);
                    let same =
                        found.elements == host.elements as u64 && (worst - host.worst).abs() <= 1e-6 * host.worst;
                    if same || (worst.is_nan() && host.worst.is_infinite()) {
                        entry.rows_alone += 1;
                    } else {
                        entry.fail(case, &format!("{found:?} where the host finds {host:?}"));
                    }
                }
            }
        }
        // The launches of the comparison.
        self.launched.append(&mut self.device.take());
    }
}

/// The name of the case's plain kernel.
fn plain_kernel(case: &Case) -> String {
    let kernel = registry::find(case.kernel_operation(), Variant::Plain, case.dtype);
    kernel.map_or_else(|| case.to_string(), |kernel| kernel.name.to_owned())
}

/// Ranges of rows to compute alone: all rows again, whose bits must be the same as well, one row, and several.
fn ranges(case: &Case) -> Vec<Range<usize>> {
    let (rows, mut rng) = (case.rows(), ChaCha8Rng::seed_from_u64(case.seed));
    let mut ranges: Vec<_> = std::iter::once(0..rows).collect();
    if rows > 1 {
        let (row, from) = (rng.random_range(0..rows), rng.random_range(0..rows));
        ranges.extend([row..row + 1, from..rng.random_range(from + 1..=rows)]);
    }
    ranges
}
