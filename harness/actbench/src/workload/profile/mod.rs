//! Profiles cases: every operation of the model is timed and compared with the peak rates of the machine.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actbench_kernels::cuda::{CudaBackend, DeviceClock, KernelSet, Timeline};
use actbench_kernels::profiled::ProfileRecording;
use actbench_kernels::{CpuBackend, KernelError, Profile, ProfiledBackend};

use super::extract::Extraction;
use super::layers::{deepest_run, layers_of};
use super::load::{load_arranged, load_model_on};
use super::prepare::Prepared;
use super::run::{extract_features, release, score_probes};
use crate::atomic_file::temporary_directory;
use crate::case::{CaseObserver, CasePhases, Method, NoopObserver, RunConfig, Task};
use crate::devices::choose::{Arrangement, Placement};
use crate::devices::open::OpenGpus;
use crate::error::{Error, Result};
use crate::measure::clocks::ClockProbe;
use crate::workload::device;
use actbench_activations::model::ActivationModel;
use actbench_activations::plan::{ProgressSink, Rules};

mod ceilings;
mod traced_model;

pub use ceilings::Ceilings;
use traced_model::TracedModel;

/// Duration of each measurement of a peak rate on the CPU.
const CPU_CEILING_TIME: Duration = Duration::from_millis(300);

/// The same on a GPU: its clocks settle at the power limit within a second.
const GPU_CEILING_TIME: Duration = Duration::from_millis(1500);

/// The time of a case, by operation.
#[derive(Clone, Debug, PartialEq)]
pub struct CaseProfile {
    /// The task.
    pub task: Task,
    /// The extraction method.
    pub method: Method,
    /// Seconds of feature extraction.
    pub extract_s: f64,
    /// Seconds of training and scoring.
    pub train_eval_s: f64,
    /// The phases of the case, from its weights on. The devices stay open for the next case, so releasing the model is not their
    /// teardown.
    pub phases: CasePhases,
    /// The recording of loading the weights.
    pub loading: ProfileRecording,
    /// The recording of the extraction, with the operations of the model.
    pub extracting: ProfileRecording,
    /// The recording of the probes.
    pub training: ProfileRecording,
}

/// The profile of a run: each task with each method once.
#[derive(Clone, Debug, PartialEq)]
pub struct RunProfile {
    /// The devices of the model; none for the CPU.
    pub device: Option<String>,
    /// The phases before the first case.
    pub phases: CasePhases,
    /// Their peak rates.
    pub ceilings: Ceilings,
    /// The cases in the order of the run.
    pub cases: Vec<CaseProfile>,
}

/// Runs every case of `config`, whose layers must be filled in, in this process, and times each operation of the model.
/// `report_progress` receives a line before each step.
///
/// # Errors
/// As [`run_case`](super::run_case).
pub fn profile_run(config: &RunConfig, prepared: &Prepared, report_progress: &dyn Fn(&str)) -> Result<RunProfile> {
    let choice = device::choose(config, prepared)?;
    if let Some(note) = &choice.note {
        report_progress(&format!("note: {note}"));
    }
    if let Placement::Gpus(gpus, ordinals, arrangement) = choice.placement {
        let opened = gpus.open(&ordinals)?;
        let phases = gpus.phases(&opened);
        let run = match opened {
            OpenGpus::Driver(backends) => {
                let bus_id = backends.first().and_then(|backend| backend.device().facts().bus_id.clone());
                let clocks = ClockProbe::open(bus_id.as_deref()).ok();
                let ceilings = (GPU_CEILING_TIME, clocks.as_ref());
                profile_run_on(backends, arrangement, config, prepared, ceilings, report_progress)?
            }
            #[cfg(feature = "emulator")]
            OpenGpus::Emulator(backends) => {
                // Its rates are those of no device.
                let ceilings = (Duration::ZERO, None);
                profile_run_on(backends, arrangement, config, prepared, ceilings, report_progress)?
            }
        };
        return Ok(RunProfile { phases, ..run });
    }
    let observer: Arc<dyn CaseObserver> = Arc::new(NoopObserver);
    let profile = Profile::default();
    report_progress("measuring the peak rates of the machine");
    let ceilings = Ceilings::measure(config, CPU_CEILING_TIME)?;
    let cases = each_case(config, report_progress, |task, method| {
        profile_case(task, method, config, prepared, &observer, &profile)
    })?;
    Ok(RunProfile { device: None, phases: CasePhases::default(), ceilings, cases })
}

/// As [`profile_run`], on devices, whose clocks time their kernels and copies. The peak rates are measured for `ceiling_time`
/// each, while `clocks` is read.
fn profile_run_on<D: DeviceClock>(
    backends: Vec<CudaBackend<D>>,
    arrangement: Arrangement,
    config: &RunConfig,
    prepared: &Prepared,
    (ceiling_time, clocks): (Duration, Option<&ClockProbe>),
    report_progress: &dyn Fn(&str),
) -> Result<RunProfile> {
    let devices: Vec<Arc<D>> = backends.into_iter().map(|backend| Arc::new(backend.into_device())).collect();
    let first = devices.first().ok_or_else(|| Error::internal("no device was opened"))?;
    let observer: Arc<dyn CaseObserver> = Arc::new(NoopObserver);
    let profile = Profile::default();
    report_progress("measuring the peak rates of the device");
    let ceilings = Ceilings::measure_on(first, config.dtype, ceiling_time, clocks)?;
    let cases = each_case(config, report_progress, |task, method| {
        profile_case_on(&devices, arrangement, task, method, config, prepared, &observer, &profile)
    })?;
    let described: Vec<String> = devices.iter().map(|device| device.describe()).collect();
    Ok(RunProfile { device: Some(described.join("; ")), phases: CasePhases::default(), ceilings, cases })
}

fn each_case(
    config: &RunConfig,
    report_progress: &dyn Fn(&str),
    run: impl Fn(Task, Method) -> Result<CaseProfile>,
) -> Result<Vec<CaseProfile>> {
    let mut cases = Vec::new();
    for task in &config.tasks {
        for method in &config.methods {
            report_progress(&format!("running {task} {method}"));
            cases.push(run(*task, *method)?);
        }
    }
    Ok(cases)
}

fn profile_case(
    task: Task,
    method: Method,
    config: &RunConfig,
    prepared: &Prepared,
    observer: &Arc<dyn CaseObserver>,
    profile: &Profile,
) -> Result<CaseProfile> {
    let deepest = deepest_run(config, task, method, prepared)?;
    let load = || -> Result<Arc<dyn ActivationModel>> {
        let backend = ProfiledBackend::new(CpuBackend::new(config.n_threads())?, profile.clone());
        load_model_on(backend, prepared, config, deepest, observer)
    };
    run_recorded(task, method, config, prepared, (observer, profile), load, || Ok(()))
}

#[allow(clippy::too_many_arguments)] // A case, its devices, and its observers.
fn profile_case_on<D: DeviceClock>(
    devices: &[Arc<D>],
    arrangement: Arrangement,
    task: Task,
    method: Method,
    config: &RunConfig,
    prepared: &Prepared,
    observer: &Arc<dyn CaseObserver>,
    profile: &Profile,
) -> Result<CaseProfile> {
    let deepest = deepest_run(config, task, method, prepared)?;
    let timelines: std::result::Result<Vec<_>, KernelError> = devices
        .iter()
        .enumerate()
        .map(|(number, device)| Ok(Arc::new(Timeline::new(device.clone(), number, profile.clone())?)))
        .collect();
    let timelines = timelines?;
    let load = || -> Result<Arc<dyn ActivationModel>> {
        let backend = |timeline: &Arc<_>| CudaBackend::new(Arc::clone(timeline), KernelSet::Fast);
        let backends =
            timelines.iter().map(|timeline| ProfiledBackend::new(backend(timeline), profile.clone())).collect();
        load_arranged(backends, arrangement, prepared, config, deepest, observer)
    };
    let finish = || timelines.iter().try_for_each(|timeline| timeline.finish());
    run_recorded(task, method, config, prepared, (observer, profile), load, finish)
}

/// Loads the model by `load` and runs the case. `finish` adds the recordings of the devices to the profile.
fn run_recorded(
    task: Task,
    method: Method,
    config: &RunConfig,
    prepared: &Prepared,
    (observer, profile): (&Arc<dyn CaseObserver>, &Profile),
    load: impl FnOnce() -> Result<Arc<dyn ActivationModel>>,
    finish: impl Fn() -> Result<(), KernelError>,
) -> Result<CaseProfile> {
    let directory = temporary_directory("actbench-profile-", None)?;
    let options = Extraction {
        batch_size: config.batch_size,
        fill_batches: !config.batch_size_is_limit,
        pool: config.pool,
        rules: Rules::all_but(&config.no_opt)?,
        cache_directory: config.caches_on_disk(method).then_some(directory.path()),
    };
    let sink: ProgressSink = Arc::new(|_| ());
    let case = || format!("{task} {method}");
    profile.take();
    let start = Instant::now();
    let model = profile.phase("loading", case(), load)?;
    finish()?;
    let mut phases = CasePhases { weights_s: Some(start.elapsed().as_secs_f64()), ..CasePhases::default() };
    let loading = profile.take();
    let model: Arc<dyn ActivationModel> = Arc::new(TracedModel::new(model, profile.clone()));
    let start = Instant::now();
    let extracted = profile.phase("extracting", case(), || {
        extract_features(task, method, &model, prepared, &layers_of(config, task), options, &sink)
    })?;
    let extract_s = start.elapsed().as_secs_f64();
    finish()?;
    let extracting = profile.take();
    // In the order of a run: before the probes on the CPU, after them on a device.
    let on_device = model.device_usage()?.is_some();
    let mut model = Some(model);
    if !on_device {
        phases.release_s = release(&mut model, observer.as_ref());
    }
    let start = Instant::now();
    profile.phase("training", case(), || score_probes(task, config, &extracted, prepared, &sink))?;
    let train_eval_s = start.elapsed().as_secs_f64();
    let training = profile.take();
    phases.extract_s = Some(extract_s);
    phases.release_s = phases.release_s.or_else(|| release(&mut model, observer.as_ref()));
    phases.probes_s = Some(train_eval_s);
    Ok(CaseProfile { task, method, extract_s, train_eval_s, phases, loading, extracting, training })
}
