//! A model that computes nothing: it replays given activations, so that only the code after the model is measured.

use actbench_activations::model::{
    ActivationModel, LayerOutput, LayerSink, StepSink, StepSource, TokenBatch, run_in_turn,
};
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

    fn run_all(&self, layers: &[usize], next: &mut StepSource<'_>, sink: &mut StepSink<'_>) -> Result<()> {
        run_in_turn(self, layers, next, sink)
    }

    fn device_usage(&self) -> Result<Option<DeviceUsage>> {
        Ok(None)
    }

    fn reset_device_usage(&self) -> Result<()> {
        Ok(())
    }

    fn run(
        &self,
        batch: &TokenBatch,
        layers: &[usize],
        output: LayerOutput<'_>,
        sink: &mut LayerSink<'_>,
    ) -> Result<()> {
        let (LayerOutput::Pooled { .. }, 0) = (output, batch.n_cached) else {
            return Err(Error::internal("the replay model only supports pooled rows of sequences of one token"));
        };
        let len = self.hidden_size * self.dtype.size();
        let first = batch.ids.first().map_or(0, |id| *id as usize);
        if !batch.ids.iter().enumerate().all(|(index, id)| *id as usize == first + index) {
            return Err(Error::internal("the replay model only supports consecutive samples"));
        }
        layers.iter().try_for_each(|layer| sink(*layer, &self.layers[*layer][first * len..][..batch.ids.len() * len]))
    }
}
