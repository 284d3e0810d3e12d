//! The layers of a task: defaults that depend on the model, and checks against its depth.

use super::prepare::Prepared;
use crate::case::{Method, RunConfig, Task};
use crate::error::{Error, Result};
use actbench_activations::plan::{Rule, Rules};

/// Default layer of the task `train`; the embedded model has fewer layers and a default of its own.
const DEFAULT_LAYER: usize = 12;
/// Default number of layers of the task `sweep`; the embedded model has fewer.
const DEFAULT_SWEEP_LAYERS: usize = 16;

/// Fills in the layers that the settings leave to the model.
pub fn with_layers(config: &RunConfig, prepared: &Prepared) -> RunConfig {
    with_layers_of(config, prepared.model.config.n_layers, prepared.model.embedded)
}

/// As [`with_layers`], for a model of `n_layers` blocks; `embedded` marks the embedded model.
pub fn with_layers_of(config: &RunConfig, n_layers: usize, embedded: bool) -> RunConfig {
    let (layer, sweep_layers) = if embedded { (n_layers / 2, n_layers) } else { (DEFAULT_LAYER, DEFAULT_SWEEP_LAYERS) };
    RunConfig {
        layer: Some(config.layer.unwrap_or(layer)),
        sweep_layers: Some(config.sweep_layers.unwrap_or(sweep_layers)),
        ..config.clone()
    }
}

/// The deepest layer that a task needs. The layers of `config` must be filled in.
pub fn deepest(config: &RunConfig, task: Task) -> usize {
    match task {
        Task::Train => config.layer.unwrap_or(DEFAULT_LAYER),
        Task::Sweep => config.sweep_layers.unwrap_or(DEFAULT_SWEEP_LAYERS).saturating_sub(1),
    }
}

/// The layers of a task. The layers of `config` must be filled in.
pub fn layers_of(config: &RunConfig, task: Task) -> Vec<usize> {
    match task {
        Task::Train => vec![deepest(config, task)],
        Task::Sweep => (0..=deepest(config, task)).collect(),
    }
}

/// Checks that a model of `n_layers` blocks has the layers of a task.
///
/// # Errors
/// A layer that the model lacks; the message names the flag.
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

/// The deepest block that a case runs: the deepest layer it needs, or the last block if the plan must not stop early.
pub(crate) fn deepest_run(config: &RunConfig, task: Task, method: Method, prepared: &Prepared) -> Result<usize> {
    let needed = deepest(config, task);
    let stops_early = method == Method::Eager || Rules::all_but(&config.no_opt)?.has(Rule::Depth);
    // A layer beyond the model is kept, so that the error names it.
    Ok(if stops_early { needed } else { needed.max(prepared.model.config.n_layers - 1) })
}
