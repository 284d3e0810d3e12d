//! Runs batches through a model, several in flight at a time, and matches each output to its batch.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use actbench_kernels::{KernelError, PoolMethod};

use super::batches::ScheduledBatch;
use crate::error::{Error, Result};
use crate::model::{ActivationModel, LayerBytes, LayerVectors, ModelStep, StepOutput, run_submitted};

/// A batch that the model was given and has not completed.
pub(crate) struct InFlightBatch<S> {
    /// The batch; its tokens were moved to the model, and so were its pool groups if it is pooled.
    pub(crate) scheduled: ScheduledBatch,
    /// Own tokens.
    pub(crate) n_tokens: usize,
    /// Vectors that leave the device for each layer.
    pub(crate) n_vectors: usize,
    /// Floating-point operations.
    pub(crate) flops: u64,
    /// The caller's results of the batch.
    pub(crate) state: S,
}

/// An error that ended a run, and the batches that were in flight.
pub(crate) struct BatchError {
    pub(crate) error: Error,
    /// Samples and tokens of the largest batch of several samples that was in flight, if there was any.
    largest: Option<(usize, usize)>,
}

impl From<Error> for BatchError {
    /// An error before any batch.
    fn from(error: Error) -> Self {
        BatchError { error, largest: None }
    }
}

impl BatchError {
    /// Half of the largest batch in flight, `(samples, tokens)`, if a device ran out of memory and a batch can be halved.
    pub(crate) fn half(&self) -> Option<(usize, usize)> {
        match self.error {
            Error::Kernel(KernelError::OutOfMemory { .. }) => {
                self.largest.map(|(samples, tokens)| ((samples / 2).max(1), (tokens / 2).max(1)))
            }
            _ => None,
        }
    }
}

/// Gives the batches of a stream, in order.
type NextBatch<'a> = dyn FnMut(usize) -> Option<ScheduledBatch> + Send + 'a;

/// Receives a layer's vectors of a batch, which may be landing.
type OnLayer<'a, S> = dyn FnMut(&mut InFlightBatch<S>, usize, &mut LayerBytes<'_>) -> Result<()> + 'a;

/// Runs the batches that `next` gives for each stream of `model`. `on_layer` receives each layer's vectors, pooled by
/// `pool` if given, in increasing order of layers; `on_complete` receives each batch after its deepest layer. Both run on the
/// calling thread; where the model is on a device, `next` runs on another one.
pub(crate) fn run_batches<S: Default + Send>(
    model: &dyn ActivationModel,
    layers: &[usize],
    pool: Option<PoolMethod>,
    next: &mut NextBatch<'_>,
    on_layer: &mut OnLayer<'_, S>,
    on_complete: &mut dyn FnMut(InFlightBatch<S>) -> Result<()>,
) -> std::result::Result<(), BatchError> {
    let in_flight: Mutex<HashMap<u64, InFlightBatch<S>>> = Mutex::default();
    let n_blocks = layers.last().map_or(0, |deepest| deepest + 1);
    let mut last_id = 0;
    let mut next_step = |stream: usize| {
        let scheduled = next(stream)?;
        last_id += 1;
        let (step, started) = start(model, scheduled, last_id, pool, n_blocks);
        lock(&in_flight).insert(last_id, started);
        Some(step)
    };
    let mut on_output = |vectors: LayerVectors<'_>| {
        let LayerVectors { step, layer, mut bytes } = vectors;
        let unknown = || Error::internal(format!("the model emitted layer {layer} of a batch that is not in flight"));
        let mut batch = lock(&in_flight).remove(&step).ok_or_else(unknown)?;
        let consumed = on_layer(&mut batch, layer, &mut bytes);
        if consumed.is_ok() && layer + 1 == n_blocks {
            drop(bytes);
            return on_complete(batch);
        }
        lock(&in_flight).insert(step, batch);
        consumed
    };
    let result = run_submitted(model, layers, &mut next_step, &mut on_output);
    let in_flight = in_flight.into_inner().unwrap_or_else(PoisonError::into_inner);
    let error = match result {
        Err(error) => error,
        Ok(()) if in_flight.is_empty() => return Ok(()),
        Ok(()) => {
            let what = format!("did not emit layer {} of {} batches", n_blocks - 1, in_flight.len());
            KernelError::shape("model", what).into()
        }
    };
    let sizes = in_flight.values().map(|batch| (batch.scheduled.samples.len(), batch.n_tokens));
    Err(BatchError { error, largest: sizes.filter(|(samples, _)| *samples > 1).max_by_key(|(_, tokens)| *tokens) })
}

fn lock<T>(in_flight: &Mutex<T>) -> MutexGuard<'_, T> {
    // The map is whole between any two calls that change it.
    in_flight.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The step of a batch, and the rest of the batch.
fn start<S: Default>(
    model: &dyn ActivationModel,
    mut scheduled: ScheduledBatch,
    id: u64,
    pool: Option<PoolMethod>,
    n_blocks: usize,
) -> (ModelStep, InFlightBatch<S>) {
    let batch = std::mem::take(&mut scheduled.batch);
    let (output, n_vectors) = match pool {
        Some(method) => {
            let groups = std::mem::take(&mut scheduled.masked);
            let last_layer_groups = scheduled.masked_last_layer.take();
            (StepOutput::Pooled { groups, last_layer_groups, method }, scheduled.samples.len())
        }
        None => (StepOutput::Tokens, batch.ids.len() + batch.n_cached),
    };
    let (n_tokens, flops) = (batch.ids.len(), model.flops(&batch, n_blocks));
    (ModelStep { id, batch, output }, InFlightBatch { scheduled, n_tokens, n_vectors, flops, state: S::default() })
}
