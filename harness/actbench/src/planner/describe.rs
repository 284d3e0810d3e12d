//! Builds a job from settings: from the data set, or from synthetic sequences of a given length.

use super::job::{Job, SyntheticTokens};
use super::memory::TOKENIZER_BYTES;
use crate::case::RunConfig;
use crate::error::Result;
use crate::measure::memory::heap;
use crate::workload::prepare::{SampledInputs, TOKEN_BYTES, prepare_sampled};
use crate::workload::{check_depth, request, with_layers, with_layers_of};
use actbench_activations::model::config_only::ModelSpec;

/// A job, with notes on the assumptions that its counts are based on.
pub struct DescribedJob {
    /// The job.
    pub job: Job,
    /// Assumptions that the user should know.
    pub notes: Vec<String>,
}

/// The job of `config` for a model with the shape of `spec`. With `synthetic` tokens the data set is not read.
///
/// # Errors
/// Settings, data or layers that are invalid.
pub fn describe(
    config: &RunConfig,
    spec: &ModelSpec,
    synthetic: Option<SyntheticTokens>,
    quiet: bool,
) -> Result<DescribedJob> {
    let n_layers = spec.spec.n_layers;
    if let Some(tokens) = synthetic {
        let embedded = config.model.as_deref().is_none_or(|name| name == "embedded");
        let config = with_layers_of(config, n_layers, embedded);
        check_layers(&config, n_layers)?;
        let job = Job::synthetic(&config, spec.spec.clone(), spec.synthetic, tokens)?;
        return Ok(DescribedJob { job, notes: Vec::new() });
    }
    if let Some(preset) = spec.preset {
        // The tokenizer of a model that is known by name alone is not here; the bundled one takes its place.
        // An adapter changes neither times nor sizes of a run, and fits the model itself alone.
        let substitute = RunConfig {
            model: Some(format!("synthetic:{}", preset.name)),
            adapter: None,
            ..with_layers_of(config, n_layers, false)
        };
        check_layers(&substitute, n_layers)?;
        let (data, bytes) = prepare_counted(&substitute, quiet)?;
        let named = RunConfig { model: config.model.clone(), adapter: config.adapter.clone(), ..substitute };
        // The model's own tokenizer needs more memory than the bundled one, whose vocabulary is small.
        let bytes = bytes + spec.spec.vocab_size as u64 * TOKENIZER_BYTES;
        let job = Job::from_sample(&named, &data).with_mapped_weights().with_data_bytes(bytes);
        let note = "token counts use the bundled tokenizer and overestimate the model's own".to_owned();
        return Ok(DescribedJob { job, notes: std::iter::once(note).chain(data.note()).collect() });
    }
    let (data, bytes) = prepare_counted(config, quiet)?;
    let config = with_layers(config, &data.inputs);
    check_layers(&config, data.inputs.model.spec.n_layers)?;
    let job = Job::from_sample(&config, &data).with_data_bytes(bytes);
    let scaled = data.note();
    Ok(DescribedJob { job, notes: data.inputs.warnings.into_iter().chain(scaled).collect() })
}

/// Reads what a case reads before it loads weights, of many samples only some; returns it with the heap bytes that a case needs.
pub(super) fn prepare_counted(config: &RunConfig, quiet: bool) -> Result<(SampledInputs, u64)> {
    let before = heap();
    let data = prepare_sampled(request(config, quiet))?;
    let counted = heap().saturating_sub(before);
    let tokens = data.inputs.train.tokens.n_tokens() + data.inputs.test.tokens.n_tokens();
    let uncounted = (data.scale() - 1.0) * (tokens * TOKEN_BYTES) as f64;
    Ok((data, counted.saturating_add(uncounted as u64)))
}

fn check_layers(config: &RunConfig, n_layers: usize) -> Result<()> {
    config.tasks.iter().try_for_each(|task| check_depth(config, *task, n_layers))
}
