//! A case run under a profile: every operation of the model timed, beside what the machine can do at best.

use std::sync::Arc;
use std::time::Instant;

use actbench_kernels::cuda::{CudaBackend, DeviceClock, KernelSet, Timeline};
use actbench_kernels::profiled::Recording;
use actbench_kernels::{CpuBackend, KernelError, Profile, Profiled};

use super::case::{CaseObserver, Method, RunConfig, Silent, Task};
use super::extract::Extraction;
use super::prepare::Prepared;
use super::{arrange, deepest_run, device, extract_features, layers_of, load_model_on, score_probes};
use crate::devices::choose::{Arrangement, Placement};
use crate::devices::open::OpenGpus;
use crate::error::{Error, Result};
use actbench_activations::model::ActivationModel;
use actbench_activations::plan::{ProgressSink, Rules};

mod ceilings;
mod traced_model;

pub use ceilings::Ceilings;
use traced_model::TracedModel;

/// What a case took, by operation.
#[derive(Clone, Debug, PartialEq)]
pub struct CaseProfile {
    /// What was done.
    pub task: Task,
    /// How.
    pub method: Method,
    /// Seconds until the features were there.
    pub extract_s: f64,
    /// Seconds of training and scoring.
    pub train_eval_s: f64,
    /// What was recorded while the weights were loaded.
    pub loading: Recording,
    /// What was recorded until the features were there: the model's operations are here.
    pub extracting: Recording,
    /// What was recorded of the probes.
    pub training: Recording,
}

/// A run under a profile: each task with each method once.
#[derive(Clone, Debug, PartialEq)]
pub struct RunProfile {
    /// What ran the model, if it was not the CPU.
    pub device: Option<String>,
    /// What that does at best.
    pub ceilings: Ceilings,
    /// In the order in which they ran.
    pub cases: Vec<CaseProfile>,
}

/// Runs every case of `config` in this process, its model timed operation by operation. `config` has its layers filled
/// in. What is about to be done is told to `say`.
///
/// # Errors
/// As [`run_case`](super::run_case).
pub fn profile_run(config: &RunConfig, prepared: &Prepared, say: &dyn Fn(&str)) -> Result<RunProfile> {
    let choice = device::choose(config, prepared)?;
    if let Some(note) = &choice.note {
        say(&format!("note: {note}"));
    }
    if let Placement::Gpus(gpus, ordinals, arrangement) = choice.placement {
        return match gpus.open(&ordinals)? {
            OpenGpus::Driver(backends) => profile_run_on(backends, arrangement, config, prepared, say),
            #[cfg(feature = "emulator")]
            OpenGpus::Emulator(backends) => profile_run_on(backends, arrangement, config, prepared, say),
        };
    }
    let observer: Arc<dyn CaseObserver> = Arc::new(Silent);
    let profile = Profile::default();
    say("measuring the machine's best");
    let ceilings = Ceilings::measure(config)?;
    let cases =
        each_case(config, say, |task, method| profile_case(task, method, config, prepared, &observer, &profile))?;
    Ok(RunProfile { device: None, ceilings, cases })
}

/// The same on devices, their kernels and copies timed by their own clocks.
fn profile_run_on<D: DeviceClock>(
    backends: Vec<CudaBackend<D>>,
    arrangement: Arrangement,
    config: &RunConfig,
    prepared: &Prepared,
    say: &dyn Fn(&str),
) -> Result<RunProfile> {
    let devices: Vec<Arc<D>> = backends.into_iter().map(|backend| Arc::new(backend.into_device())).collect();
    let first = devices.first().ok_or_else(|| Error::usage("no device was opened"))?;
    let observer: Arc<dyn CaseObserver> = Arc::new(Silent);
    let profile = Profile::default();
    say("measuring the device's best");
    let ceilings = Ceilings::measure_on(first, config.dtype)?;
    let cases = each_case(config, say, |task, method| {
        profile_case_on(&devices, arrangement, task, method, config, prepared, &observer, &profile)
    })?;
    let described: Vec<String> = devices.iter().map(|device| device.describe()).collect();
    Ok(RunProfile { device: Some(described.join("; ")), ceilings, cases })
}

fn each_case(
    config: &RunConfig,
    say: &dyn Fn(&str),
    run: impl Fn(Task, Method) -> Result<CaseProfile>,
) -> Result<Vec<CaseProfile>> {
    let mut cases = Vec::new();
    for task in &config.tasks {
        for method in &config.methods {
            say(&format!("running {task} {method}"));
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
        let backend = Profiled::new(CpuBackend::new(config.n_threads())?, profile.clone());
        load_model_on(backend, prepared, config, deepest, observer)
    };
    run_recorded(task, method, config, prepared, profile, load, || Ok(()))
}

#[allow(clippy::too_many_arguments)] // A case, where it runs, and who hears of it.
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
        let backends = timelines.iter().map(|timeline| Profiled::new(backend(timeline), profile.clone())).collect();
        arrange(backends, arrangement, prepared, config, deepest, observer)
    };
    let finish = || timelines.iter().try_for_each(|timeline| timeline.finish());
    run_recorded(task, method, config, prepared, profile, load, finish)
}

/// Loads by `load` and runs the case. `finish` brings what a device did into the profile.
fn run_recorded(
    task: Task,
    method: Method,
    config: &RunConfig,
    prepared: &Prepared,
    profile: &Profile,
    load: impl FnOnce() -> Result<Arc<dyn ActivationModel>>,
    finish: impl Fn() -> Result<(), KernelError>,
) -> Result<CaseProfile> {
    let folder = tempfile::Builder::new().prefix("actbench-profile-").tempdir();
    let folder = folder.map_err(crate::error::Error::io("create a folder in", std::env::temp_dir()))?;
    let how = Extraction {
        batch_size: config.batch_size,
        pool: config.pool,
        rules: Rules::all_but(&config.no_opt)?,
        cache_folder: config.caches_on_disk(method).then_some(folder.path()),
    };
    let sink: ProgressSink = Arc::new(|_| ());
    let told = || format!("{task} {method}");
    profile.take();
    let model = profile.phase("loading", told(), load)?;
    finish()?;
    let loading = profile.take();
    let model: Arc<dyn ActivationModel> = Arc::new(TracedModel::new(model, profile.clone()));
    let start = Instant::now();
    let extracted = profile.phase("extracting", told(), || {
        extract_features(task, method, &model, prepared, &layers_of(config, task), how, &sink)
    })?;
    let extract_s = start.elapsed().as_secs_f64();
    finish()?;
    let extracting = profile.take();
    let start = Instant::now();
    profile.phase("training", told(), || score_probes(task, config, &extracted, prepared, &sink))?;
    let train_eval_s = start.elapsed().as_secs_f64();
    Ok(CaseProfile { task, method, extract_s, train_eval_s, loading, extracting, training: profile.take() })
}
