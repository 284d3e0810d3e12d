//! A decorator of a model that records each forward pass in a profile.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use actbench_kernels::{DType, DeviceUsage, Profile};

use crate::error::Result;
use actbench_activations::model::{ActivationModel, LayerOutput, LayerSink, StepSink, StepSource, TokenBatch};

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

    fn run(
        &self,
        batch: &TokenBatch,
        layers: &[usize],
        output: LayerOutput<'_>,
        sink: &mut LayerSink<'_>,
    ) -> Result<()> {
        let start = self.profile.now();
        let result = self.model.run(batch, layers, output, sink);
        self.profile.batch(description(batch), 1, start);
        result
    }

    fn streams(&self) -> usize {
        self.model.streams()
    }

    fn release_and_measure_capacity(&self) -> Result<Option<usize>> {
        self.model.release_and_measure_capacity()
    }

    fn run_all(&self, layers: &[usize], next: &mut StepSource<'_>, sink: &mut StepSink<'_>) -> Result<()> {
        let tracks = RefCell::new(Tracks::default());
        let deepest = layers.last().copied();
        let mut traced_next = |lane: usize| {
            let step = next(lane)?;
            let (id, start, detail) = (step.id, self.profile.now(), description(&step.batch));
            tracks.borrow_mut().start(InFlightBatch { id, start, detail });
            Some(step)
        };
        self.model.run_all(layers, &mut traced_next, &mut |id, layer, rows| {
            if Some(layer) == deepest
                && let Some((track, batch)) = tracks.borrow_mut().complete(id)
            {
                self.profile.batch(batch.detail, track, batch.start);
            }
            sink(id, layer, rows)
        })
    }

    fn device_usage(&self) -> Result<Option<DeviceUsage>> {
        self.model.device_usage()
    }

    fn reset_device_usage(&self) -> Result<()> {
        self.model.reset_device_usage()
    }
}
