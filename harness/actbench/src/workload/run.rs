//! Runs one case in this process: loading, extraction, probes, metrics.

use std::sync::Arc;
use std::time::Instant;

use super::extract::{self, Extracted, Extraction};
use super::features;
use super::footprint::{self, Holding, Sizes};
use super::layers::{deepest_run, layers_of, with_layers};
use super::load::load_model_timed;
use super::prepare::{Prepared, prepare, request};
use super::score::{self, ProbeScores, Training, finite};
use super::sizes::sizes;
use super::warm_up::warm_up;
use crate::case::{CaseMetrics, CaseObserver, CaseOutcome, CaseSpec, GpuPeaks, Method, Phase, RunConfig, Task};
use crate::error::Result;
use crate::measure::{MIB, limit, memory, processor};
use actbench_activations::model::ActivationModel;
use actbench_activations::plan::{Progress, ProgressSink, Rules};

/// Runs one case in this process.
///
/// # Errors
/// The first failure, whichever it is.
pub fn run_case(spec: &CaseSpec, observer: &Arc<dyn CaseObserver>) -> Result<CaseOutcome> {
    let limit = spec.config.memory_limit.bytes(limit::available());
    observer.phase(Phase::Loading);
    let start = Instant::now();
    let prepared = prepare(request(&spec.config, true))?;
    let prepare_s = start.elapsed().as_secs_f64();
    let config = with_layers(&spec.config, &prepared);
    let layers = layers_of(&config, spec.task);
    let deepest = deepest_run(&config, spec.task, spec.method, &prepared)?;
    let (model, mut phases) = load_model_timed(&prepared, &config, deepest, observer)?;
    phases.prepare_s = Some(prepare_s);
    let start = Instant::now();
    let on_disk = config.caches_on_disk(spec.method);
    if on_disk {
        // The digest of the weights is part of the cache file. It is computed once, and loading is not timed.
        model.fingerprint();
    }
    let options = Extraction {
        batch_size: config.batch_size,
        fill_batches: !config.batch_size_is_limit,
        pool: config.pool,
        rules: Rules::all_but(&config.no_opt)?,
        cache_directory: on_disk.then_some(spec.cache_directory.as_path()),
    };

    let loading = model.device_usage()?;
    warm_up(&model, spec.method, &prepared, &layers, options)?;
    // Memory that loading freed must not count in the measured part.
    memory::return_freed();
    phases.warm_up_s = Some(start.elapsed().as_secs_f64());
    observer.loaded();
    observer.phase(Phase::Extracting);
    // The streams of lazy divide one batch between them, those of eager have one each.
    let batches = if spec.method == Method::Eager { model.streams() } else { 1 };
    let sizes = Sizes { batches, ..sizes(&config, &prepared, layers.len()) };
    let holding = match (spec.method, spec.task) {
        (Method::Eager, Task::Sweep) => Holding::Full,
        (Method::Eager, Task::Train) => Holding::Pooled,
        _ if on_disk => Holding::Batch,
        _ => Holding::Pooled,
    };
    let advice = match holding {
        _ if spec.method == Method::Eager => "take fewer samples or layers, or the method lazy or lazy-disk",
        Holding::Batch => "take a smaller --batch-size, or raise the limit",
        Holding::Full | Holding::Pooled => "take fewer samples or layers, or the method lazy-disk",
    };
    footprint::check(memory::resident(), &sizes.extraction(holding), limit, advice)?;
    let sink: ProgressSink = {
        let observer = observer.clone();
        Arc::new(move |step: Progress| observer.progress(step.done, step.total, step.unit))
    };
    let injected_memory = spec.injection.allocate()?;
    let cpu_before = processor::time_used();
    let start = Instant::now();
    let extracted = extract_features(spec.task, spec.method, &model, &prepared, &layers, options, &sink)?;
    spec.injection.run_work();
    let extract_s = start.elapsed().as_secs_f64();
    let described_model = model.describe();
    let on_device = model.device_usage()?;
    // No method needs the weights again. On the CPU, releasing them makes their memory available to the probes. On a GPU it frees
    // nothing that probes use, and the driver's teardown does not belong to a method: the measurement ends before it.
    let mut model = Some(model);
    if on_device.is_none() {
        phases.release_s = release(&mut model, observer.as_ref());
    } else {
        // Memory that extraction freed must not count in the peak of the probes there either.
        memory::return_freed();
    }
    let probes = sizes.probe(config.n_threads());
    let advice = "take fewer samples or --threads, or raise the limit";
    footprint::check(memory::resident(), &[("the matrices of the probes", probes)], limit, advice)?;
    observer.phase(Phase::Training);
    let training = Instant::now();
    let scores = score_probes(spec.task, &config, &extracted, &prepared, &sink)?;
    phases.probes_s = Some(training.elapsed().as_secs_f64());
    let elapsed_s = start.elapsed().as_secs_f64();
    let cpu_s = processor::time_used().zip(cpu_before).map(|(now, before)| now.saturating_sub(before).as_secs_f64());
    observer.measured();
    drop(injected_memory);
    phases.release_s = phases.release_s.or_else(|| release(&mut model, observer.as_ref()));
    phases.extract_s = Some(extract_s);

    let mut metrics = CaseMetrics {
        cpu_s: Some(cpu_s),
        release_s: phases.release_s,
        phases: Some(phases),
        lazy_cache_disk: Some(on_disk),
        model: Some(described_model),
        ..case_metrics(spec.task, &config, &prepared, &extracted, &scores)?
    };
    if let Some(on_device) = on_device {
        metrics.host_to_device_bytes = Some(on_device.to_device);
        metrics.device_to_host_bytes = Some(on_device.to_host);
        metrics.load_host_to_device_bytes = Some(loading.map(|loading| loading.to_device));
    }
    Ok(CaseOutcome {
        elapsed_s,
        extract_s,
        train_eval_s: elapsed_s - extract_s,
        metric_name: spec.task.metric_name().to_owned(),
        metric_value: scores.mean,
        gpu: on_device.map(|used| GpuPeaks {
            alloc_mb: used.peak_used as f64 / MIB,
            reserved_mb: used.peak_reserved as f64 / MIB,
        }),
        metrics,
    })
}

/// Releases the model, if it has not been released, and returns the seconds that this takes.
pub(super) fn release(model: &mut Option<Arc<dyn ActivationModel>>, observer: &dyn CaseObserver) -> Option<f64> {
    let model = model.take()?;
    observer.phase(Phase::Releasing);
    let start = Instant::now();
    drop(model);
    memory::return_freed();
    Some(start.elapsed().as_secs_f64())
}

/// Trains and scores the probes of a task.
pub(super) fn score_probes(
    task: Task,
    config: &RunConfig,
    extracted: &Extracted,
    prepared: &Prepared,
    sink: &ProgressSink,
) -> Result<ProbeScores> {
    let (cs, max_iterations) = match task {
        Task::Train => (std::slice::from_ref(&config.train_c), config.train_max_iter),
        Task::Sweep => (&config.sweep_cs[..], config.sweep_max_iter),
    };
    let training = Training { cs, max_iterations, solver: config.solver.solver(), threads: config.n_threads() };
    score::score(&extracted.layers, prepared, training, sink)
}

/// Extracts the features of `layers` on both sides of the split by `method`.
pub(super) fn extract_features(
    task: Task,
    method: Method,
    model: &Arc<dyn ActivationModel>,
    prepared: &Prepared,
    layers: &[usize],
    options: Extraction<'_>,
    sink: &ProgressSink,
) -> Result<Extracted> {
    match (method, task) {
        (Method::Eager, Task::Train) => extract::eager_layer(model, prepared, layers[0], options, sink),
        (Method::Eager, Task::Sweep) => extract::eager_layers(model, prepared, layers, options, sink),
        (Method::Lazy | Method::LazyDisk, _) => extract::lazy_layers(model, prepared, layers, options, sink),
    }
}

/// The metrics of a case that are known before its resources are released.
fn case_metrics(
    task: Task,
    config: &RunConfig,
    prepared: &Prepared,
    extracted: &Extracted,
    scores: &ProbeScores,
) -> Result<CaseMetrics> {
    let common = CaseMetrics {
        n_train: Some(prepared.train.labels.len() as u64),
        n_test: Some(prepared.test.labels.len() as u64),
        n_test_positive: Some(prepared.test.labels.iter().filter(|label| **label == 1).count() as u64),
        pool: Some(config.pool.name().to_owned()),
        mask: Some(config.mask.name().to_owned()),
        dtype: Some(config.dtype.name().to_owned()),
        solver: Some(config.solver),
        no_opt: Some(config.no_opt.clone()),
        feature_digest: Some(features::digest(&extracted.layers)?),
        tokens_total: Some(extracted.stats.tokens_total),
        tokens_computed: Some(extracted.stats.tokens_computed),
        batches: Some(extracted.stats.batches),
        flops: Some(extracted.stats.flops),
        batches_halved: Some(extracted.stats.halvings).filter(|halvings| *halvings > 0),
        cache_bytes: Some(extracted.cache_bytes),
        ..CaseMetrics::default()
    };
    Ok(match task {
        Task::Train => CaseMetrics { layer: Some(extracted.layers[0].layer as u64), ..common },
        Task::Sweep => CaseMetrics {
            n_layers: Some(extracted.layers.len() as u64),
            cs: Some(config.sweep_cs.clone()),
            n_trials: Some(scores.probes.len() as u64),
            aurocs: Some(scores.by_layer(config.sweep_cs.len())),
            best_layer: Some(scores.best.layer as u64),
            best_c: Some(scores.best.c),
            best_auroc: Some(finite(scores.best.auroc)),
            ..common
        },
    })
}
