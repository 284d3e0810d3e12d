//! The layers of a task: defaults that depend on the model, and checks against its depth.

use super::prepare::Prepared;
use crate::case::{Method, RunConfig, Task};
use crate::error::{Error, Result};
use actbench_activations::plan::{Rule, Rules};

/// Default layer of the task `train`, if the model has it; the embedded model has a default of its own.
const DEFAULT_LAYER: usize = 12;
/// Default number of layers of the task `sweep`, if the model has as many.
const DEFAULT_SWEEP_LAYERS: usize = 16;

/// Fills in the layers that the settings leave to the model.
pub fn with_layers(config: &RunConfig, prepared: &Prepared) -> RunConfig {
    with_layers_of(config, prepared.model.spec.n_layers, prepared.model.embedded)
}

/// As [`with_layers`], for a model of `n_layers` blocks; `embedded` marks the embedded model.
pub fn with_layers_of(config: &RunConfig, n_layers: usize, embedded: bool) -> RunConfig {
    let layer = if embedded { n_layers / 2 } else { DEFAULT_LAYER.min(n_layers.saturating_sub(1)) };
    let sweep_layers = if embedded { n_layers } else { DEFAULT_SWEEP_LAYERS.min(n_layers) };
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
    let has = layer_count(n_layers);
    Err(Error::usage(match task {
        Task::Train if n_layers == 1 => format!("--layer {deepest} is too deep: the model has {has}; pass --layer 0"),
        Task::Train => format!(
            "--layer {deepest} is too deep: the model has {has}; pass one of --layer 0 to {}",
            n_layers.saturating_sub(1)
        ),
        Task::Sweep => format!(
            "--sweep-layers {} is too deep: layer {deepest} is asked for and the model has {has}; pass --sweep-layers \
             {n_layers} or fewer",
            deepest + 1
        ),
    }))
}

/// `1 layer` or `8 layers`.
pub fn layer_count(n_layers: usize) -> String {
    format!("{n_layers} layer{}", if n_layers == 1 { "" } else { "s" })
}

/// The deepest block that a case runs: the deepest layer it needs, or the last block if the plan must not stop early.
pub(crate) fn deepest_run(config: &RunConfig, task: Task, method: Method, prepared: &Prepared) -> Result<usize> {
    let needed = deepest(config, task);
    let stops_early = method == Method::Eager || Rules::all_but(&config.no_opt)?.has(Rule::Depth);
    // A layer beyond the model is kept, so that the error names it.
    Ok(if stops_early { needed } else { needed.max(prepared.model.spec.n_layers - 1) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_layers_fit_every_model() {
        let defaults = |n_layers, embedded| {
            let config = with_layers_of(&RunConfig::default(), n_layers, embedded);
            for task in [Task::Train, Task::Sweep] {
                check_depth(&config, task, n_layers).unwrap();
            }
            (config.layer, config.sweep_layers)
        };
        assert_eq!(defaults(1, false), (Some(0), Some(1)));
        assert_eq!(defaults(12, false), (Some(11), Some(12)));
        assert_eq!(defaults(13, false), (Some(12), Some(13)));
        assert_eq!(defaults(30, false), (Some(12), Some(16)));
        assert_eq!(defaults(8, true), (Some(4), Some(8)));
    }

    #[test]
    fn deep_layer_of_one_layer_model_is_refused() {
        let config = RunConfig { layer: Some(12), ..RunConfig::default() };
        let error = check_depth(&config, Task::Train, 1).unwrap_err();
        insta::assert_snapshot!(error, @"--layer 12 is too deep: the model has 1 layer; pass --layer 0");
    }
}
