//! Checks everything a run needs, weights excepted, before the first case starts.

use super::footprint;
use super::identity::identity;
use super::layers::{check_depth, deepest_run, with_layers};
use super::prepare::{Prepared, prepare_sampled, prepare_with_digest, request};
use crate::case::RunConfig;
use crate::error::Result;
use crate::measure::{limit, memory};
use crate::results::identity::RunIdentity;
use crate::workload::device;

/// The findings of the parent before it starts a worker.
#[derive(Clone, Debug)]
pub struct Preflight {
    /// The settings with the layers filled in.
    pub config: RunConfig,
    /// The location of the model, resolved: a directory or a preset.
    pub located_model: String,
    /// Number of blocks of the model.
    pub n_layers: usize,
    /// Digests of the data and the model.
    pub identity: RunIdentity,
    /// Warnings for the user.
    pub warnings: Vec<String>,
    /// The device the model will run on and the reason, if the settings leave the choice open.
    pub device_note: Option<String>,
}

/// Reads and checks everything that a run of `config` needs except the weights, so that bad input is reported in one line
/// before any work is done.
///
/// # Errors
/// Invalid settings, model files, data or chat template.
pub fn preflight(config: &RunConfig, quiet: bool) -> Result<Preflight> {
    preflight_with_data(config, quiet).map(|(preflight, _)| preflight)
}

/// Number of samples above which the memory of the data is predicted before it is read.
const MANY_SAMPLES: usize = 100_000;

/// Refuses samples whose text and tokens alone exceed the memory limit.
fn check_data_fits(config: &RunConfig, quiet: bool) -> Result<()> {
    let limit = config.memory_limit.bytes(limit::available());
    if config.samples <= MANY_SAMPLES || limit.is_none() {
        return Ok(());
    }
    let sample = prepare_sampled(request(config, quiet))?;
    let bytes = (sample.bytes_per_row * sample.rows as f64) as u64;
    let what = format!("the text and tokens of {} samples", sample.rows);
    footprint::check(memory::resident(), &[(what.as_str(), bytes)], limit, "take fewer samples")
}

/// As [`preflight`], and also returns the prepared inputs.
///
/// # Errors
/// As [`preflight`].
pub fn preflight_with_data(config: &RunConfig, quiet: bool) -> Result<(Preflight, Prepared)> {
    config.check()?;
    check_data_fits(config, quiet)?;
    let (prepared, data_digest) = prepare_with_digest(request(config, quiet))?;
    let config = with_layers(config, &prepared);
    for task in &config.tasks {
        check_depth(&config, *task, prepared.model.spec.n_layers)?;
        for method in &config.methods {
            prepared.model.check(deepest_run(&config, *task, *method, &prepared)?)?;
        }
        if config.ablate {
            // Without the rule `depth` all blocks run.
            prepared.model.check(prepared.model.spec.n_layers - 1)?;
        }
    }
    let device_note = device::choose(&config, &prepared)?.note;
    let preflight = Preflight {
        config,
        located_model: prepared.model.location.to_string(),
        n_layers: prepared.model.spec.n_layers,
        identity: identity(&prepared.model, &data_digest)?,
        warnings: prepared.warnings.clone(),
        device_note,
    };
    Ok((preflight, prepared))
}
