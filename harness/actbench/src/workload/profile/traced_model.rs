//! A decorator of a model that records each forward pass in a profile.

use std::sync::Arc;
use std::time::Duration;

use actbench_kernels::{DType, DeviceUsage, Profile};

use crate::error::Result;
use actbench_activations::model::{ActivationModel, ModelSession, ModelStep, SessionEvent, TokenBatch};

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
        Ok(Box::new(TracedSession { session, profile: &self.profile, deepest, tracks: Tracks::default() }))
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
    profile: &'a Profile,
    deepest: Option<usize>,
    tracks: Tracks,
}

impl ModelSession for TracedSession<'_> {
    fn next(&mut self) -> Result<SessionEvent<'_>> {
        let event = self.session.next()?;
        if let SessionEvent::Output(vectors) = &event
            && Some(vectors.layer) == self.deepest
            && let Some((track, batch)) = self.tracks.complete(vectors.step)
        {
            self.profile.batch(batch.detail, track, batch.start);
        }
        Ok(event)
    }

    fn submit(&mut self, stream: usize, step: ModelStep) -> Result<()> {
        let (id, start, detail) = (step.id, self.profile.now(), description(&step.batch));
        self.tracks.start(InFlightBatch { id, start, detail });
        self.session.submit(stream, step)
    }

    fn close(&mut self, stream: usize) {
        self.session.close(stream);
    }
}
