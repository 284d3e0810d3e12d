//! A model around another that notes each forward pass in a profile.

use std::sync::Arc;

use actbench_kernels::profiled::SpanKind;
use actbench_kernels::{DType, DeviceUse, Profile};

use crate::error::Result;
use crate::model::{ActivationModel, LayerOutput, LayerSink, TokenBatch};

/// Passes everything on; each batch is a span.
pub struct TracedModel {
    model: Arc<dyn ActivationModel>,
    profile: Profile,
}

impl TracedModel {
    /// Around `model`.
    pub fn new(model: Arc<dyn ActivationModel>, profile: Profile) -> Self {
        TracedModel { model, profile }
    }
}

impl ActivationModel for TracedModel {
    fn n_layers(&self) -> usize {
        self.model.n_layers()
    }

    fn hidden_size(&self) -> usize {
        self.model.hidden_size()
    }

    fn vocab_size(&self) -> usize {
        self.model.vocab_size()
    }

    fn dtype(&self) -> DType {
        self.model.dtype()
    }

    fn fingerprint(&self) -> &str {
        self.model.fingerprint()
    }

    fn describe(&self) -> String {
        self.model.describe()
    }

    fn flops(&self, batch: &TokenBatch, n_blocks: usize) -> u64 {
        self.model.flops(batch, n_blocks)
    }

    fn run(
        &self,
        batch: &TokenBatch,
        layers: &[usize],
        output: LayerOutput<'_>,
        sink: &mut LayerSink<'_>,
    ) -> Result<()> {
        let detail = format!("{} rows, {} carried", batch.ids.len(), batch.n_carried);
        self.profile.span(SpanKind::Batch, "batch", detail, || self.model.run(batch, layers, output, sink))
    }

    fn rows_that_fit(&self) -> Result<Option<usize>> {
        self.model.rows_that_fit()
    }

    fn device_use(&self) -> Result<Option<DeviceUse>> {
        self.model.device_use()
    }

    fn reset_device_use(&self) -> Result<()> {
        self.model.reset_device_use()
    }
}
