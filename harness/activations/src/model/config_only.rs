//! A model known by its configuration alone: plans on it can be built and their cost explained, without any weights.

use actbench_fixtures::presets::Preset;
use actbench_kernels::{DType, DeviceUsage};

use super::host_streams::streams_of_threads;
use super::locate::{ModelLocation, locate};
use super::memory_model::filled_batch_tokens;
use super::open::config_origin;
use super::spec::DecoderSpec;
use super::{ActivationModel, ModelSession, TokenBatch};
use crate::error::{Error, Result};

/// A model's configuration and its origin.
#[derive(Clone, Debug)]
pub struct ModelSpec {
    /// The shape.
    pub spec: DecoderSpec,
    /// Whether the weights are synthetic, generated in memory; those of files are mapped.
    pub synthetic: bool,
    /// The preset whose configuration was taken instead of the model's own files.
    pub preset: Option<&'static Preset>,
}

/// The configuration of the model `name`. A model published under the name of a preset has that preset's configuration,
/// so that nothing is downloaded; others are found as [`locate`] finds them.
///
/// # Errors
/// There is no such model, or its configuration is broken.
pub fn find_model_spec(name: Option<&str>, quiet: bool) -> Result<ModelSpec> {
    let is_path = name.is_some_and(|name| std::path::Path::new(name).exists());
    if let Some(preset) = name.filter(|_| !is_path).and_then(Preset::find_published) {
        let spec = DecoderSpec::parse(&preset.config_json(), preset.name)?;
        return Ok(ModelSpec { spec, synthetic: false, preset: Some(preset) });
    }
    let location = locate(name, quiet)?;
    let spec = DecoderSpec::parse(&location.config_json()?, &config_origin(&location))?;
    Ok(ModelSpec { spec, synthetic: matches!(location, ModelLocation::Synthetic(_)), preset: None })
}

/// A model without weights, for plans that are not run.
#[derive(Clone, Debug)]
pub struct ConfigOnlyModel {
    spec: DecoderSpec,
    dtype: DType,
    on_gpu: bool,
    streams: usize,
}

impl ConfigOnlyModel {
    /// A model of this shape whose activations are stored as `dtype`.
    pub fn new(spec: DecoderSpec, dtype: DType) -> Self {
        ConfigOnlyModel { spec, dtype, on_gpu: false, streams: 1 }
    }

    /// The same model on a GPU, whose lazy batches may be larger, or in host memory.
    #[must_use]
    pub fn on_gpu(self, on_gpu: bool) -> Self {
        ConfigOnlyModel { on_gpu, ..self }
    }

    /// The same model with the streams that it has in host memory with `threads` threads.
    #[must_use]
    pub fn with_threads(self, threads: usize) -> Self {
        ConfigOnlyModel { streams: streams_of_threads(threads), ..self }
    }
}

impl ActivationModel for ConfigOnlyModel {
    fn n_layers(&self) -> usize {
        self.spec.n_layers
    }

    fn hidden_size(&self) -> usize {
        self.spec.hidden_size
    }

    fn vocab_size(&self) -> usize {
        self.spec.vocab_size
    }

    fn dtype(&self) -> DType {
        self.dtype
    }

    /// No loaded model has this fingerprint, so no cache file of one matches a plan on this model.
    fn fingerprint(&self) -> &str {
        "config-only"
    }

    fn describe(&self) -> String {
        self.spec.describe(self.dtype)
    }

    fn flops(&self, batch: &TokenBatch, n_blocks: usize) -> u64 {
        self.spec.flops(batch, n_blocks)
    }

    /// # Errors
    /// Always: there are no weights.
    fn session(&self, _layers: &[usize]) -> Result<Box<dyn ModelSession + '_>> {
        Err(Error::usage("this plan's model has no weights: the plan can be explained but not run"))
    }

    fn streams(&self) -> usize {
        if self.on_gpu { 1 } else { self.streams }
    }

    fn release_and_measure_capacity(&self) -> Result<Option<usize>> {
        Ok(None)
    }

    fn filled_batch_tokens(&self) -> Result<Option<usize>> {
        Ok(self.on_gpu.then(|| filled_batch_tokens(&self.spec, self.dtype)))
    }

    fn reserve(&self, _tokens: usize) -> Result<()> {
        Ok(())
    }

    fn device_usage(&self) -> Result<Option<DeviceUsage>> {
        Ok(None)
    }

    fn reset_device_usage(&self) -> Result<()> {
        Ok(())
    }
}
