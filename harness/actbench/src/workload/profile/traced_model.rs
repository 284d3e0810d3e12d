//! A decorator of a model that records each forward pass in a profile.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use actbench_kernels::{CompletedCopy, DType, DeviceUsage, KernelError, PendingCopy, Profile};

use crate::error::Result;
use actbench_activations::model::{ActivationModel, LayerBytes, ModelSession, ModelStep, SessionEvent, TokenBatch};

/// Forwards all calls; each batch becomes a span of the profile.
pub struct TracedModel {
    model: Arc<dyn ActivationModel>,
    profile: Profile,
}

impl TracedModel {
    /// Decorates `model`.
    pub fn new(model: Arc<dyn ActivationModel>, profile: Profile) -> Self {
        TracedModel { model, profile }
    }
}

/// A batch in flight.
struct InFlightBatch {
    id: u64,
    start: Duration,
    detail: String,
}

/// Batches in flight, each on the lowest track that was free when it started. Tracks are numbered from 1.
#[derive(Default)]
struct Tracks(Vec<Option<InFlightBatch>>);

impl Tracks {
    fn start(&mut self, batch: InFlightBatch) {
        match self.0.iter_mut().find(|track| track.is_none()) {
            Some(free) => *free = Some(batch),
            None => self.0.push(Some(batch)),
        }
    }

    fn complete(&mut self, id: u64) -> Option<(usize, InFlightBatch)> {
        let mut tracks = self.0.iter_mut().enumerate();
        let (index, track) = tracks.find(|(_, track)| track.as_ref().is_some_and(|batch| batch.id == id))?;
        Some((index + 1, track.take()?))
    }
}

/// The batches in flight of a session, and where they are recorded.
struct TracedBatches {
    profile: Profile,
    tracks: Mutex<Tracks>,
}

impl TracedBatches {
    fn lock(&self) -> MutexGuard<'_, Tracks> {
        // The tracks are whole between any two calls that change them.
        self.tracks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records the end of batch `id`, the first time it is called.
    fn complete(&self, id: u64) {
        let completed = self.lock().complete(id);
        if let Some((track, batch)) = completed {
            self.profile.batch(batch.detail, track, batch.start);
        }
    }
}

/// The copy of a batch's deepest layer. The batch ends when all of it has landed.
struct TracedCopy {
    copy: Box<dyn PendingCopy>,
    id: u64,
    batches: Arc<TracedBatches>,
}

impl PendingCopy for TracedCopy {
    fn n_bytes(&self) -> usize {
        self.copy.n_bytes()
    }

    fn wait_for(&mut self, n_bytes: usize) -> std::result::Result<&[u8], KernelError> {
        let total = self.copy.n_bytes();
        let landed = self.copy.wait_for(n_bytes)?;
        if landed.len() == total {
            self.batches.complete(self.id);
        }
        Ok(landed)
    }
}

fn description(batch: &TokenBatch) -> String {
    format!("{} tokens, {} cached", batch.ids.len(), batch.n_cached)
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

    fn session(&self, layers: &[usize]) -> Result<Box<dyn ModelSession + '_>> {
        let session = self.model.session(layers)?;
        let deepest = layers.last().copied();
        let batches = Arc::new(TracedBatches { profile: self.profile.clone(), tracks: Mutex::default() });
        Ok(Box::new(TracedSession { session, deepest, batches }))
    }

    fn streams(&self) -> usize {
        self.model.streams()
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
}

/// Forwards all calls of a session, and notes when a batch starts and ends.
struct TracedSession<'a> {
    session: Box<dyn ModelSession + 'a>,
    deepest: Option<usize>,
    batches: Arc<TracedBatches>,
}

impl ModelSession for TracedSession<'_> {
    fn next(&mut self) -> Result<SessionEvent<'_>> {
        let mut event = self.session.next()?;
        if let SessionEvent::Output(vectors) = &mut event
            && Some(vectors.layer) == self.deepest
        {
            let id = vectors.step;
            if let LayerBytes::Pending(pending) = &mut vectors.bytes {
                let copy = std::mem::replace(pending, Box::new(CompletedCopy::default()));
                *pending = Box::new(TracedCopy { copy, id, batches: self.batches.clone() });
            } else {
                self.batches.complete(id);
            }
        }
        Ok(event)
    }

    fn submit(&mut self, stream: usize, step: ModelStep) -> Result<()> {
        let (id, start, detail) = (step.id, self.batches.profile.now(), description(&step.batch));
        self.batches.lock().start(InFlightBatch { id, start, detail });
        self.session.submit(stream, step)
    }

    fn close(&mut self, stream: usize) {
        self.session.close(stream);
    }
}
