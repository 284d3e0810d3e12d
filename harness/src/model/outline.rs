//! A model known by its configuration alone: plans on it can be built and their cost told, without any weights.

use actbench_kernels::DType;

use super::config::ModelConfig;
use super::{ActivationModel, LayerOutput, LayerSink, TokenBatch};
use crate::error::{Error, Result};

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
