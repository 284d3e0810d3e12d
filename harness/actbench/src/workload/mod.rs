//! The two benchmarked tasks, end to end: data, features, probes, the metric.

use std::sync::Arc;
use std::time::Instant;

use actbench_kernels::{Backend, CpuBackend};
use serde_json::json;

use self::case::{CaseObserver, CaseOutcome, CaseSpec, GpuPeaks, Method, Phase, RunConfig, Task};
use self::extract::{Extracted, Extraction};
use self::footprint::{Holding, Sizes};
use self::prepare::{Prepared, Request, prepare};
use self::score::{Scores, Training};
use crate::devices::choose::{Arrangement, Placement};
use crate::devices::open::OpenGpus;
use crate::error::{Error, Result};
use crate::measure::{MIB, limit, memory, processor};
use actbench_activations::model::ActivationModel;
use actbench_activations::model::replicas::Replicas;
use actbench_activations::plan::{Progress, ProgressSink, Rule, Rules};

pub mod ablation;
pub mod calibrate;
pub mod case;
pub mod check;
pub mod device;
pub mod extract;
pub mod features;
pub mod footprint;
pub mod injection;
pub mod names;
pub mod prepare;
pub mod profile;
pub mod score;

/// What the parent learns before it starts any child.
#[derive(Clone, Debug)]
pub struct Preflight {
    /// The settings with the layers filled in.
    pub config: RunConfig,
    /// Where the model was found, in a form that is found again at once: a folder or a preset.
    pub located_model: String,
    /// Blocks of the model.
    pub n_layers: usize,
    /// What the user should know.
    pub warnings: Vec<String>,
    /// Where the model will run and why, where the settings leave it open.
    pub device_note: Option<String>,
}

/// Layer of the task `train` where none is named, and layers of the task `sweep`; the embedded model has fewer.
const DEFAULT_LAYER: usize = 12;
const DEFAULT_SWEEP_LAYERS: usize = 16;

/// Reads and checks everything that a run of `config` will need, weights apart, so that bad input is one clear line
/// before any work is done.
///
/// # Errors
/// Anything wrong with the settings, the model's files, the data or the chat template.
pub fn preflight(config: &RunConfig, quiet: bool) -> Result<Preflight> {
    preflight_with_data(config, quiet).map(|(preflight, _)| preflight)
}

/// The same, with what was read.
///
/// # Errors
/// As [`preflight`].
pub fn preflight_with_data(config: &RunConfig, quiet: bool) -> Result<(Preflight, Prepared)> {
    config.check()?;
    let prepared = prepare(request(config, quiet))?;
    let config = with_layers(config, &prepared);
    for task in &config.tasks {
        check_depth(&config, *task, prepared.model.config.n_layers)?;
        for method in &config.methods {
            prepared.model.check(deepest_run(&config, *task, *method, &prepared)?)?;
        }
        if config.ablate {
            // Without the rule `depth` every block is run.
            prepared.model.check(prepared.model.config.n_layers - 1)?;
        }
    }
    let device_note = device::choose(&config, &prepared)?.note;
    let preflight = Preflight {
        config,
        located_model: prepared.model.location.to_string(),
        n_layers: prepared.model.config.n_layers,
        warnings: prepared.warnings.clone(),
        device_note,
    };
    Ok((preflight, prepared))
}

/// Runs one case in this process.
///
/// # Errors
/// Anything that goes wrong on the way.
pub fn run_case(spec: &CaseSpec, observer: &Arc<dyn CaseObserver>) -> Result<CaseOutcome> {
    let limit = spec.config.memory_limit.bytes(limit::available());
    observer.phase(Phase::Loading);
    let prepared = prepare(request(&spec.config, true))?;
    let config = with_layers(&spec.config, &prepared);
    let layers = layers_of(&config, spec.task);
    let model = load_model(&prepared, &config, deepest_run(&config, spec.task, spec.method, &prepared)?, observer)?;
    let on_disk = config.caches_on_disk(spec.method);
    if on_disk {
        // The digest of the weights names the cache file's contents; it is read once, as the weights are.
        model.fingerprint();
    }
    let how = Extraction {
        batch_size: config.batch_size,
        pool: config.pool,
        rules: Rules::all_but(&config.no_opt)?,
        cache_folder: on_disk.then_some(spec.cache_folder.as_path()),
    };

    // What loading freed is no part of what is measured.
    memory::return_freed();
    let loading = model.device_use()?;
    model.reset_device_use()?;
    observer.loaded();
    observer.phase(Phase::Extracting);
    let sizes = sizes(&config, &prepared, layers.len());
    let (what, holding) = match (spec.method, spec.task) {
        (Method::Eager, Task::Sweep) => ("eager: the full activations of both splits", Holding::Full),
        (Method::Eager, Task::Train) => ("eager: a batch and the pooled features", Holding::Pooled),
        _ if on_disk => ("lazy-disk: a batch", Holding::Batch),
        _ => ("lazy: the pooled features", Holding::Pooled),
    };
    footprint::check(what, memory::resident(), sizes.extraction(holding), limit)?;
    let sink: ProgressSink = {
        let observer = observer.clone();
        Arc::new(move |step: Progress| observer.progress(step.done, step.total, step.unit))
    };
    let ballast = spec.injection.ballast()?;
    let cpu_before = processor::time_used();
    let start = Instant::now();
    let extracted = extract_features(spec.task, spec.method, &model, &prepared, &layers, how, &sink)?;
    spec.injection.work();
    let extract_s = start.elapsed().as_secs_f64();
    // No method needs the weights again, so the probes' matrices may stand where they stood.
    let described_model = model.describe();
    let on_device = model.device_use()?;
    drop(model);
    memory::return_freed();
    footprint::check("the matrices of the probes", memory::resident(), sizes.probe(config.n_threads()), limit)?;
    observer.phase(Phase::Training);
    let scores = score_probes(spec.task, &config, &extracted, &prepared, &sink)?;
    let elapsed_s = start.elapsed().as_secs_f64();
    let cpu_s = processor::time_used().zip(cpu_before).map(|(now, before)| now.saturating_sub(before).as_secs_f64());
    observer.measured();
    drop(ballast);

    let (metric_name, metric_value) = match spec.task {
        Task::Train => ("auroc", scores.mean),
        Task::Sweep => ("mean_auroc", scores.mean),
    };
    let mut extra = extra_fields(spec.task, &config, &prepared, &extracted, &scores)?;
    extra.insert("cpu_s".to_owned(), json!(cpu_s));
    extra.insert("lazy_cache_disk".to_owned(), json!(on_disk));
    extra.insert("model".to_owned(), json!(described_model));
    if let Some(on_device) = on_device {
        extra.insert("host_to_device_bytes".to_owned(), json!(on_device.to_device));
        extra.insert("device_to_host_bytes".to_owned(), json!(on_device.to_host));
        extra.insert("load_host_to_device_bytes".to_owned(), json!(loading.map(|loading| loading.to_device)));
    }
    Ok(CaseOutcome {
        elapsed_s,
        extract_s,
        train_eval_s: elapsed_s - extract_s,
        metric_name: metric_name.to_owned(),
        metric_value,
        gpu: on_device.map(|used| GpuPeaks {
            alloc_mb: used.used_high as f64 / MIB,
            reserved_mb: used.reserved_high as f64 / MIB,
        }),
        extra,
    })
}

/// The scores of the task's probes, trained as the settings say.
fn score_probes(
    task: Task,
    config: &RunConfig,
    extracted: &Extracted,
    prepared: &Prepared,
    sink: &ProgressSink,
) -> Result<Scores> {
    let (cs, max_iterations) = match task {
        Task::Train => (std::slice::from_ref(&config.train_c), config.train_max_iter),
        Task::Sweep => (&config.sweep_cs[..], config.sweep_max_iter),
    };
    let training = Training { cs, max_iterations, solver: config.solver.solver(), threads: config.n_threads() };
    score::score(&extracted.layers, prepared, training, sink)
}

/// The features of `layers` on both sides, the way that `method` gets them for `task`.
fn extract_features(
    task: Task,
    method: Method,
    model: &Arc<dyn ActivationModel>,
    prepared: &Prepared,
    layers: &[usize],
    how: Extraction<'_>,
    sink: &ProgressSink,
) -> Result<Extracted> {
    match (method, task) {
        (Method::Eager, Task::Train) => extract::eager_layer(model, prepared, layers[0], how, sink),
        (Method::Eager, Task::Sweep) => extract::eager_layers(model, prepared, layers, how, sink),
        (Method::Lazy | Method::LazyDisk, _) => extract::lazy_layers(model, prepared, layers, how, sink),
    }
}

/// What the memory of a case of `n_layers` layers follows from.
fn sizes(config: &RunConfig, prepared: &Prepared, n_layers: usize) -> Sizes {
    let model = &prepared.model.config;
    Sizes {
        sides: [&prepared.train, &prepared.test].map(|side| (side.tokens.len(), side.tokens.max_len())),
        layers: n_layers,
        hidden: model.hidden_size,
        intermediate: model.intermediate_size,
        element: config.dtype.size(),
        batch_size: config.batch_size,
    }
}

/// The settings as a request for data.
pub fn request(config: &RunConfig, quiet: bool) -> Request<'_> {
    Request {
        model: config.model.as_deref(),
        dataset: config.dataset.as_deref(),
        data_dir: config.data_dir.as_deref(),
        mask: config.mask,
        samples: config.samples,
        train_frac: config.train_frac,
        seed: config.seed,
        quiet,
    }
}

/// The settings with the layers that follow the model filled in.
pub fn with_layers(config: &RunConfig, prepared: &Prepared) -> RunConfig {
    with_layers_of(config, prepared.model.config.n_layers, prepared.model.embedded)
}

/// The same for a model of `n_layers` blocks, which may be the embedded one.
pub fn with_layers_of(config: &RunConfig, n_layers: usize, embedded: bool) -> RunConfig {
    let (layer, sweep_layers) = match embedded {
        true => (n_layers / 2, n_layers),
        false => (DEFAULT_LAYER, DEFAULT_SWEEP_LAYERS),
    };
    RunConfig {
        layer: Some(config.layer.unwrap_or(layer)),
        sweep_layers: Some(config.sweep_layers.unwrap_or(sweep_layers)),
        ..config.clone()
    }
}

/// The deepest layer that a task needs; `config` has its layers filled in.
pub fn deepest(config: &RunConfig, task: Task) -> usize {
    match task {
        Task::Train => config.layer.unwrap_or(DEFAULT_LAYER),
        Task::Sweep => config.sweep_layers.unwrap_or(DEFAULT_SWEEP_LAYERS).saturating_sub(1),
    }
}

/// The layers that a task asks for; `config` has its layers filled in.
pub fn layers_of(config: &RunConfig, task: Task) -> Vec<usize> {
    match task {
        Task::Train => vec![deepest(config, task)],
        Task::Sweep => (0..=deepest(config, task)).collect(),
    }
}

/// Refuses layers that a model of `n_layers` blocks does not have, in the words of the flag that asks for them.
///
/// # Errors
/// Such a layer.
pub fn check_depth(config: &RunConfig, task: Task, n_layers: usize) -> Result<()> {
    let deepest = deepest(config, task);
    if deepest < n_layers {
        return Ok(());
    }
    Err(Error::usage(match task {
        Task::Train => format!(
            "--layer {deepest} is too deep: the model has {n_layers} layers; pass one of --layer 0 to {}",
            n_layers.saturating_sub(1)
        ),
        Task::Sweep => format!(
            "--sweep-layers {} is too deep: layer {deepest} is asked for and the model has {n_layers} layers; pass \
             --sweep-layers {n_layers} or fewer",
            deepest + 1
        ),
    }))
}

/// The deepest block that a case runs: the deepest layer it needs, or the model's last where a plan may not stop early.
fn deepest_run(config: &RunConfig, task: Task, method: Method, prepared: &Prepared) -> Result<usize> {
    let needed = deepest(config, task);
    let stops_early = method == Method::Eager || Rules::all_but(&config.no_opt)?.has(Rule::Depth);
    // A layer that is not there stays what it is, for the error that names it.
    Ok(if stops_early { needed } else { needed.max(prepared.model.config.n_layers - 1) })
}

/// Loads the blocks up to `deepest` on the device that the settings name.
///
/// # Errors
/// A weight that is missing, broken or not finite, or no memory for them.
pub fn load_model(
    prepared: &Prepared,
    config: &RunConfig,
    deepest: usize,
    observer: &Arc<dyn CaseObserver>,
) -> Result<Arc<dyn ActivationModel>> {
    load_model_at(&device::choose(config, prepared)?.placement, prepared, config, deepest, observer)
}

/// The same where `placement` says.
fn load_model_at(
    placement: &Placement,
    prepared: &Prepared,
    config: &RunConfig,
    deepest: usize,
    observer: &Arc<dyn CaseObserver>,
) -> Result<Arc<dyn ActivationModel>> {
    let (gpus, ordinals, arrangement) = match placement {
        Placement::Cpu => {
            return load_model_on(CpuBackend::new(config.n_threads())?, prepared, config, deepest, observer);
        }
        Placement::Gpus(gpus, ordinals, arrangement) => (gpus, ordinals, *arrangement),
    };
    match gpus.open(ordinals)? {
        OpenGpus::Driver(backends) => arrange(backends, arrangement, prepared, config, deepest, observer),
        #[cfg(feature = "emulator")]
        OpenGpus::Emulator(backends) => arrange(backends, arrangement, prepared, config, deepest, observer),
    }
}

/// The same on several devices.
fn arrange<B: Backend>(
    backends: Vec<B>,
    arrangement: Arrangement,
    prepared: &Prepared,
    config: &RunConfig,
    deepest: usize,
    observer: &Arc<dyn CaseObserver>,
) -> Result<Arc<dyn ActivationModel>> {
    let max_positions = prepared.train.tokens.max_len().max(prepared.test.tokens.max_len());
    let mut progress = |done: usize, total: usize| observer.progress(done as u64, total as u64, "blocks");
    let mut load =
        |backends: Vec<B>| prepared.model.load_over(backends, config.dtype, deepest, max_positions, &mut progress);
    match arrangement {
        Arrangement::Split => Ok(Arc::new(load(backends)?)),
        Arrangement::Replicas => {
            let models = backends.into_iter().map(|backend| load(vec![backend])).collect::<Result<Vec<_>>>()?;
            Ok(Arc::new(Replicas::new(models)?))
        }
    }
}

/// The same on a backend of the caller's.
fn load_model_on<B: Backend>(
    backend: B,
    prepared: &Prepared,
    config: &RunConfig,
    deepest: usize,
    observer: &Arc<dyn CaseObserver>,
) -> Result<Arc<dyn ActivationModel>> {
    arrange(vec![backend], Arrangement::Split, prepared, config, deepest, observer)
}

fn extra_fields(
    task: Task,
    config: &RunConfig,
    prepared: &Prepared,
    extracted: &Extracted,
    scores: &Scores,
) -> Result<serde_json::Map<String, serde_json::Value>> {
    let mut extra = serde_json::Map::new();
    let mut put = |name: &str, value: serde_json::Value| {
        extra.insert(name.to_owned(), value);
    };
    put("n_train", json!(prepared.train.labels.len()));
    put("n_test", json!(prepared.test.labels.len()));
    put("pool", json!(config.pool.name()));
    put("mask", json!(config.mask.name()));
    put("dtype", json!(config.dtype.name()));
    put("solver", json!(config.solver));
    put("no_opt", json!(config.no_opt));
    match task {
        Task::Train => put("layer", json!(extracted.layers[0].layer)),
        Task::Sweep => {
            put("n_layers", json!(extracted.layers.len()));
            put("cs", json!(config.sweep_cs));
            put("n_trials", json!(scores.trials.len()));
            put("aurocs", json!(scores.by_layer(config.sweep_cs.len())));
            put("best_layer", json!(scores.best.layer));
            put("best_c", json!(scores.best.c));
            put("best_auroc", json!(scores.best.auroc));
        }
    }
    put("feature_digest", json!(features::digest(&extracted.layers)?));
    put("tokens_total", json!(extracted.stats.tokens_total));
    put("tokens_computed", json!(extracted.stats.tokens_computed));
    put("batches", json!(extracted.stats.batches));
    put("flops", json!(extracted.stats.flops));
    if extracted.stats.halvings > 0 {
        put("batches_halved", json!(extracted.stats.halvings));
    }
    put("cache_bytes", json!(extracted.cache_bytes));
    Ok(extra)
}
