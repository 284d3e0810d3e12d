//! Data parallelism: a copy of the model on each device, each with a stream of batches of its own.

use std::sync::Arc;

use actbench_kernels::{DType, DeviceUsage};

use super::stream_session::StreamSession;
use super::{ActivationModel, ModelSession, TokenBatch};
use crate::error::{Error, Result};

/// Copies of a model.
pub struct Replicas<M> {
    /// The first copy; shape, dtype and fingerprint are read from it.
    first: Arc<M>,
    others: Vec<Arc<M>>,
}

impl<M: ActivationModel + 'static> Replicas<M> {
    /// Runs copies of one model.
    ///
    /// # Errors
    /// No model.
    pub fn new(models: Vec<M>) -> Result<Self> {
        let mut models = models.into_iter().map(Arc::new);
        let first = models.next().ok_or_else(|| Error::usage("replicas of a model need at least one device"))?;
        Ok(Replicas { first, others: models.collect() })
    }

    fn all(&self) -> impl Iterator<Item = &Arc<M>> {
        std::iter::once(&self.first).chain(&self.others)
    }
}

impl<M: ActivationModel + 'static> ActivationModel for Replicas<M> {
    fn n_layers(&self) -> usize {
        self.first.n_layers()
    }

    fn hidden_size(&self) -> usize {
        self.first.hidden_size()
    }

    fn vocab_size(&self) -> usize {
        self.first.vocab_size()
    }

    fn dtype(&self) -> DType {
        self.first.dtype()
    }

    fn fingerprint(&self) -> &str {
        self.first.fingerprint()
    }

    fn describe(&self) -> String {
        self.all().map(|model| model.describe()).collect::<Vec<_>>().join("; ")
    }

    fn flops(&self, batch: &TokenBatch, n_blocks: usize) -> u64 {
        self.first.flops(batch, n_blocks)
    }

    fn streams(&self) -> usize {
        1 + self.others.len()
    }

    fn release_and_measure_capacity(&self) -> Result<Option<usize>> {
        let capacities = self.all().map(|model| model.release_and_measure_capacity()).collect::<Result<Vec<_>>>()?;
        Ok(capacities.into_iter().flatten().min())
    }

    fn filled_batch_tokens(&self) -> Result<Option<usize>> {
        self.first.filled_batch_tokens()
    }

    fn reserve(&self, tokens: usize) -> Result<()> {
        self.all().try_for_each(|model| model.reserve(tokens))
    }

    fn device_usage(&self) -> Result<Option<DeviceUsage>> {
        let used = self.all().map(|model| model.device_usage()).collect::<Result<Option<Vec<_>>>>()?;
        Ok(used.map(|used| used.into_iter().sum()))
    }

    fn reset_device_usage(&self) -> Result<()> {
        self.all().try_for_each(|model| model.reset_device_usage())
    }

    fn session(&self, layers: &[usize]) -> Result<Box<dyn ModelSession + '_>> {
        Ok(Box::new(StreamSession::of_devices(self.all().cloned().collect(), layers)?))
    }
}
