//! Runs batches through a model, several in flight at a time, and matches each output to its batch.

use std::cell::RefCell;
use std::collections::HashMap;

use actbench_kernels::{KernelError, PoolMethod};

use super::batches::ScheduledBatch;
use crate::error::{Error, Result};
use crate::model::{ActivationModel, ModelStep, StepOutput};

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

/// Receives a layer's vectors of a batch.
type OnLayer<'a, S> = dyn FnMut(&mut InFlightBatch<S>, usize, &[u8]) -> Result<()> + 'a;

/// Runs the batches that `next` gives for each stream of `model`. `on_layer` receives each layer's vectors, pooled by
/// `pool` if given, in increasing order of layers; `on_complete` receives each batch after its deepest layer.
///
/// The model calls its source and its sink in any order while several batches are in flight. Both need the table of those
/// batches, hence ids and a `RefCell` instead of a queue.
pub(crate) fn run_batches<S: Default>(
    model: &dyn ActivationModel,
    layers: &[usize],
    pool: Option<PoolMethod>,
    next: &mut dyn FnMut(usize) -> Option<ScheduledBatch>,
    on_layer: &mut OnLayer<'_, S>,
    on_complete: &mut dyn FnMut(InFlightBatch<S>) -> Result<()>,
) -> std::result::Result<(), BatchError> {
    let in_flight: RefCell<HashMap<u64, InFlightBatch<S>>> = RefCell::new(HashMap::new());
    let n_blocks = layers.last().map_or(0, |deepest| deepest + 1);
    let mut last_id = 0;
    let mut source = |stream: usize| {
        let mut scheduled = next(stream)?;
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
        last_id += 1;
        let started = InFlightBatch { scheduled, n_tokens, n_vectors, flops, state: S::default() };
        in_flight.borrow_mut().insert(last_id, started);
        Some(ModelStep { id: last_id, batch, output })
    };
    let mut sink = |id: u64, layer: usize, vectors: &[u8]| {
        let unknown = || Error::internal(format!("the model emitted layer {layer} of a batch that is not in flight"));
        let mut batches = in_flight.borrow_mut();
        on_layer(batches.get_mut(&id).ok_or_else(unknown)?, layer, vectors)?;
        if layer + 1 < n_blocks {
            return Ok(());
        }
        let completed = batches.remove(&id).ok_or_else(unknown)?;
        // `on_complete` may take long, but never needs the table.
        drop(batches);
        on_complete(completed)
    };
    let result = model.run_all(layers, &mut source, &mut sink);
    let left = in_flight.into_inner();
    let error = match result {
        Err(error) => error,
        Ok(()) if left.is_empty() => return Ok(()),
        Ok(()) => {
            let what = format!("did not emit layer {} of {} batches", n_blocks - 1, left.len());
            KernelError::shape("model", what).into()
        }
    };
    let sizes = left.values().map(|batch| (batch.scheduled.samples.len(), batch.n_tokens));
    Err(BatchError { error, largest: sizes.filter(|(samples, _)| *samples > 1).max_by_key(|(_, tokens)| *tokens) })
}
