//! Calibrates predictions for a job: rates of this machine, and the fixed cost of the process of a case.

use std::path::PathBuf;
use std::time::Instant;

use super::calibrate::{measure, n_steps};
use super::calibration::Calibration;
use super::calibration_steps::{CalibrationSteps, StepObserver};
use super::describe::prepare_counted;
use super::job::Job;
use super::memory;
use super::published_gpu::PublishedGpu;
use super::stored_rates::{self, StoredRates};
use crate::atomic_file::temporary_directory;
use crate::case::{CaseSpec, Injection, MemoryLimit, Method, RunConfig, Task};
use crate::error::{Error, Result};
use crate::measure::MIB;
use crate::results::NamedResults;
use crate::runner::child;
use crate::runner::exit::ExitReason;
use crate::workload::with_layers;

/// What calibrations are based on.
#[derive(Clone, Debug)]
pub struct CalibrationSource {
    /// Result files whose rates replace measured ones; none to measure all rates.
    pub results: Option<Vec<NamedResults>>,
    /// The GPU whose published rates replace those of the model on this machine.
    pub gpu: Option<&'static PublishedGpu>,
    /// Directory for cache files, whose file system is measured.
    pub directory: PathBuf,
}

impl CalibrationSource {
    /// Checks that the result files, if any, have rates for `config`; reads and measures nothing.
    ///
    /// # Errors
    /// No result that fits the settings, or a GPU whose rates do not fit them.
    pub fn check(&self, config: &RunConfig) -> Result<()> {
        if let Some(gpu) = self.gpu {
            gpu.check(config)?;
        }
        self.results.as_ref().map_or(Ok(()), |results| stored_rates::check(config, results))
    }

    /// Takes rates for `job` from the result files, if any, and measures the others on this machine. `observer` is called before
    /// each step of the measurement.
    ///
    /// # Errors
    /// No result that fits the job, no memory or directory for the measurement, or an error of `observer`.
    pub fn calibrate(&self, job: &Job, observer: &mut StepObserver<'_>) -> Result<Calibration> {
        let stored = match (&self.results, self.gpu) {
            (Some(results), _) => StoredRates::of_results(job, results)?,
            (None, Some(gpu)) => gpu.rates(),
            (None, None) => StoredRates::default(),
        };
        let mut steps = CalibrationSteps::new(n_steps(&stored) + 1, observer);
        let measured = measure(job, &self.directory, &stored, &mut steps)?;
        steps.begin("starting a process")?;
        let calibration = with_process_base(measured)?;
        Ok(match self.gpu {
            Some(gpu) => calibration.with_model_on(gpu),
            None => calibration,
        })
    }
}

/// The method of the smallest case. The sizes of its buffers are known exactly, while lazy computes fewer tokens in its last layer
/// than its prediction has, so that a fixed cost would be too low.
const SMALLEST_METHOD: Method = Method::Eager;

/// Settings of a case that is small enough for its memory to be that of its process.
fn smallest_case() -> RunConfig {
    RunConfig {
        tasks: vec![Task::Train],
        methods: vec![SMALLEST_METHOD],
        samples: 20,
        memory_limit: MemoryLimit::Unlimited,
        ..RunConfig::default()
    }
}

/// Adds the fixed cost of a process: the measured cost of the smallest case minus the predicted cost of its model and data.
/// The case runs in a child process, as all cases do.
fn with_process_base(calibration: Calibration) -> Result<Calibration> {
    let (data, bytes) = prepare_counted(&smallest_case(), true)?;
    let config = with_layers(&smallest_case(), &data.inputs);
    let job = Job::from_sample(&config, &data).with_data_bytes(bytes);
    let directory = temporary_directory("actbench-plan-", None)?;
    let spec = CaseSpec {
        task: Task::Train,
        method: SMALLEST_METHOD,
        config: RunConfig { model: Some("synthetic:tiny".to_owned()), ..config },
        cache_directory: directory.path().to_path_buf(),
        fault: None,
        injection: Injection::default(),
    };
    let executable = std::env::current_exe().map_err(Error::io("find", "the executable of this process"))?;
    let start = Instant::now();
    let exit = child::run(&executable, &spec, None, &mut |_| ())?;
    let seconds = start.elapsed().as_secs_f64();
    let ExitReason::Completed(outcome, peaks) = &exit.reason else {
        return Err(Error::Numeric(format!("the calibration case failed: {}", exit.message())));
    };
    let count = job.count(Task::Train, SMALLEST_METHOD)?;
    let without_base = Calibration { base_rss: 0, base_heap: 0, weight_element: 2, ..calibration.clone() };
    let predicted = memory::of_case(&job, Task::Train, SMALLEST_METHOD, &count, &without_base);
    let bytes = |mib: f64| (mib * MIB) as u64;
    Ok(Calibration {
        base_rss: peaks.rss_mb.map_or(0, |mib| bytes(mib).saturating_sub(predicted.rss)),
        base_heap: bytes(peaks.heap_mb).saturating_sub(predicted.heap),
        start_s: (seconds - outcome.elapsed_s).max(0.0),
        ..calibration
    })
}
