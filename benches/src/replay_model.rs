//! A model that computes nothing: it replays given activations, so that only the code after the model is measured.

use actbench_activations::model::session::ComputedLayer;
use actbench_activations::model::{ActivationModel, ModelSession, ModelStep, StepOutput, StepwiseSession, TokenBatch};
use actbench_activations::plan::ActTensor;
use actbench_activations::tokens::{TokenSequence, TokenSet};
use actbench_activations::{Error, Result};
use actbench_kernels::{DType, DeviceUsage};

/// Replays known pooled activations `[n, l, h]`. Sample `i` is a sequence of the single token `i`.
pub struct ReplayModel {
    /// The bytes of each layer, `[n, h]`.
    layers: Vec<Vec<u8>>,
    n_samples: usize,
    hidden_size: usize,
    dtype: DType,
}

impl ReplayModel {
    /// A model that replays `pooled`, `[n, l, h]`.
    ///
    /// # Errors
    /// The tensor has no layer axis.
    pub fn new(pooled: &ActTensor) -> Result<Self> {
        let signature = pooled.signature();
        let layers = signature.layer_ids.iter().map(|layer| Ok(pooled.select_layer(*layer)?.bytes().to_vec()));
        Ok(ReplayModel {
            layers: layers.collect::<Result<_>>()?,
            n_samples: signature.n_samples,
            hidden_size: signature.hidden_size,
            dtype: signature.dtype,
        })
    }

    /// The activations of the samples of `step` at `layers`.
    fn replay(&self, step: &ModelStep, layers: &[usize]) -> Result<Vec<ComputedLayer>> {
        let batch = &step.batch;
        let (StepOutput::Pooled { .. }, 0) = (&step.output, batch.n_cached) else {
            return Err(Error::internal("the replay model only supports pooled rows of sequences of one token"));
        };
        let len = self.hidden_size * self.dtype.size();
        let first = batch.ids.first().map_or(0, |id| *id as usize);
        if !batch.ids.iter().enumerate().all(|(index, id)| *id as usize == first + index) {
            return Err(Error::internal("the replay model only supports consecutive samples"));
        }
        let rows = |layer: &usize| self.layers[*layer][first * len..][..batch.ids.len() * len].to_vec();
        Ok(layers.iter().map(|layer| (*layer, rows(layer))).collect())
    }

    /// The sequences whose activations the model has.
    pub fn tokens(&self) -> TokenSet {
        let sequence = |sample| TokenSequence { ids: vec![sample as u32], mask: vec![true] };
        TokenSet { sequences: (0..self.n_samples).map(sequence).collect() }
    }
}

impl ActivationModel for ReplayModel {
    fn n_layers(&self) -> usize {
        self.layers.len()
    }

    fn hidden_size(&self) -> usize {
        self.hidden_size
    }

    fn vocab_size(&self) -> usize {
        self.n_samples
    }

    fn dtype(&self) -> DType {
        self.dtype
    }

    fn fingerprint(&self) -> &str {
        "replay"
    }

    fn describe(&self) -> String {
        "a model that replays given activations".to_owned()
    }

    fn flops(&self, _batch: &TokenBatch, _n_blocks: usize) -> u64 {
        0
    }

    fn streams(&self) -> usize {
        1
    }

    fn release_and_measure_capacity(&self) -> Result<Option<usize>> {
        Ok(None)
    }

    fn session(&self, layers: &[usize]) -> Result<Box<dyn ModelSession + '_>> {
        let layers = layers.to_vec();
        Ok(Box::new(StepwiseSession::new(1, move |step: &ModelStep| self.replay(step, &layers))))
    }

    fn filled_batch_tokens(&self) -> Result<Option<usize>> {
        Ok(None)
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
