//! A model in host memory that runs several batches at the same time, each on one thread, over the same weights.

use std::sync::Arc;

use actbench_kernels::{DType, DeviceUsage};

use super::stream_session::StreamSession;
use super::{ActivationModel, ModelSession, TokenBatch};
use crate::error::Result;

/// Threads above which all of them share each batch. A stream has buffers of its own, and eager does not divide its batches: with
/// many threads its streams would take more memory than they save time.
const MAX_STREAMS: usize = 8;

/// The number of streams of a model in host memory with `threads` threads.
pub fn streams_of_threads(threads: usize) -> usize {
    if threads <= MAX_STREAMS { threads.max(1) } else { 1 }
}

/// A model whose batches run in streams, a thread each.
pub struct HostStreams<M> {
    model: Arc<M>,
    n_streams: usize,
}

impl<M: ActivationModel + 'static> HostStreams<M> {
    /// Runs `model`, which is in host memory and has a backend of `threads` threads, in as many streams.
    pub fn new(model: M, threads: usize) -> Self {
        HostStreams { model: Arc::new(model), n_streams: streams_of_threads(threads) }
    }
}

impl<M: ActivationModel + 'static> ActivationModel for HostStreams<M> {
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

    fn streams(&self) -> usize {
        self.n_streams
    }

    fn release_and_measure_capacity(&self) -> Result<Option<usize>> {
        self.model.release_and_measure_capacity()
    }

    fn filled_batch_tokens(&self) -> Result<Option<usize>> {
        self.model.filled_batch_tokens()
    }

    fn reserve(&self, tokens: usize) -> Result<()> {
        self.model.reserve(tokens)
    }

    fn device_usage(&self) -> Result<Option<DeviceUsage>> {
        self.model.device_usage()
    }

    fn reset_device_usage(&self) -> Result<()> {
        self.model.reset_device_usage()
    }

    fn session(&self, layers: &[usize]) -> Result<Box<dyn ModelSession + '_>> {
        if self.n_streams == 1 {
            return self.model.session(layers);
        }
        Ok(Box::new(StreamSession::in_memory(&self.model, self.n_streams, layers)?))
    }
}
