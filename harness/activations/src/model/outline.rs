//! A model known by its configuration alone: plans on it can be built and their cost told, without any weights.

use actbench_fixtures::presets::Preset;
use actbench_kernels::DType;

use super::config::ModelConfig;
use super::locate::{ModelLocation, locate};
use super::{ActivationModel, LayerOutput, LayerSink, TokenBatch};
use crate::error::{Error, Result};

/// What is known of a model from its name and its configuration alone.
#[derive(Clone, Debug)]
pub struct Sketch {
    /// Its shape.
    pub config: ModelConfig,
    /// Whether its weights are made up in memory; those of files are mapped.
    pub made_up: bool,
    /// The preset that stands for it where its own files were not looked at.
    pub stand_in: Option<&'static Preset>,
}

/// The configuration of the model that `name` names. One that is published under the name of a preset is known by that, so
/// that nothing has to be fetched; others are found as [`locate`] finds them.
///
/// # Errors
/// There is no such model, or its configuration is broken.
pub fn config_of(name: Option<&str>, quiet: bool) -> Result<Sketch> {
    let is_folder = name.is_some_and(|name| std::path::Path::new(name).exists());
    if let Some(preset) = name.filter(|_| !is_folder).and_then(Preset::of_published) {
        let config = ModelConfig::parse(&preset.config_json(), preset.name)?;
        return Ok(Sketch { config, made_up: false, stand_in: Some(preset) });
    }
    let location = locate(name, quiet)?;
    let config = ModelConfig::parse(&location.config_json()?, &location.to_string())?;
    Ok(Sketch { config, made_up: matches!(location, ModelLocation::Synthetic(_)), stand_in: None })
}

/// Stands for a model where nothing is to be run.
#[derive(Clone, Debug)]
pub struct ModelOutline {
    config: ModelConfig,
    dtype: DType,
}

impl ModelOutline {
    /// A model of this shape whose activations are stored as `dtype`.
    pub fn new(config: ModelConfig, dtype: DType) -> Self {
        ModelOutline { config, dtype }
    }
}

impl ActivationModel for ModelOutline {
    fn n_layers(&self) -> usize {
        self.config.n_layers
    }

    fn hidden_size(&self) -> usize {
        self.config.hidden_size
    }

    fn vocab_size(&self) -> usize {
        self.config.vocab_size
    }

    fn dtype(&self) -> DType {
        self.dtype
    }

    /// No loaded model has it, so no cache file of one is ever taken for this one's.
    fn fingerprint(&self) -> &str {
        "outline"
    }

    fn describe(&self) -> String {
        format!("llama, {} layers x {} in {}", self.config.n_layers, self.config.hidden_size, self.dtype)
    }

    fn flops(&self, batch: &TokenBatch, n_blocks: usize) -> u64 {
        self.config.flops(batch, n_blocks)
    }

    /// # Errors
    /// Always: there are no weights.
    fn run(
        &self,
        _batch: &TokenBatch,
        _layers: &[usize],
        _output: LayerOutput<'_>,
        _sink: &mut LayerSink<'_>,
    ) -> Result<()> {
        Err(Error::usage("this plan's model is an outline without weights: it can be explained but not run"))
    }
}
