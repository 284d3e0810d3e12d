//! Batches through a model, several under way at a time, and what comes back of each.

use std::cell::RefCell;
use std::collections::HashMap;

use actbench_kernels::{KernelError, PoolMethod};

use super::batches::ScheduledBatch;
use crate::error::{Error, Result};
use crate::model::{ActivationModel, Step, StepOutput};

/// A batch that was given to the model.
pub(crate) struct Flight<S> {
    /// What of it belongs to which sample. The rows themselves have gone, and with them the groups that are pooled.
    pub(crate) scheduled: ScheduledBatch,
    /// Rows that it computes.
    pub(crate) n_rows: usize,
    /// Rows that leave the device for each layer.
    pub(crate) n_rows_out: usize,
    /// Floating-point operations.
    pub(crate) flops: u64,
    /// What the caller gathers of it.
    pub(crate) state: S,
}

/// Why batches came to no end.
pub(crate) struct Crash {
    pub(crate) error: Error,
    /// Samples and rows of the largest batch of several samples that was under way, if there was any.
    largest: Option<(usize, usize)>,
}

impl Crash {
    /// Half of the largest batch under way, `(samples, rows)`, if a device had no memory for it and it can be halved.
    pub(crate) fn half(&self) -> Option<(usize, usize)> {
        match self.error {
            Error::Kernel(KernelError::OutOfMemory { .. }) => {
                self.largest.map(|(samples, rows)| ((samples / 2).max(1), (rows / 2).max(1)))
            }
            _ => None,
        }
    }
}

/// Receives the rows of a layer of a batch.
type Take<'a, S> = dyn FnMut(&mut Flight<S>, usize, &[u8]) -> Result<()> + 'a;

/// Runs the batches that `next` gives for each lane of `model`. `take` is given each layer's rows, pooled if `pool` says
/// how, in increasing order; `landed` each batch once its deepest layer is there.
pub(crate) fn fly<S: Default>(
    model: &dyn ActivationModel,
    layers: &[usize],
    pool: Option<PoolMethod>,
    next: &mut dyn FnMut(usize) -> Option<ScheduledBatch>,
    take: &mut Take<'_, S>,
    landed: &mut dyn FnMut(Flight<S>) -> Result<()>,
) -> std::result::Result<(), Crash> {
    let under_way: RefCell<HashMap<u64, Flight<S>>> = RefCell::new(HashMap::new());
    let n_blocks = layers.last().map_or(0, |deepest| deepest + 1);
    let mut last_id = 0;
    let mut give = |lane: usize| {
        let mut scheduled = next(lane)?;
        let batch = std::mem::take(&mut scheduled.batch);
        let output = match pool {
            Some(method) => StepOutput::Pooled {
                groups: std::mem::take(&mut scheduled.masked),
                deepest_groups: scheduled.masked_deepest.take(),
                method,
            },
            None => StepOutput::Rows,
        };
        let n_rows_out = match pool {
            Some(_) => scheduled.samples.len(),
            None => batch.ids.len() + batch.n_carried,
        };
        let (n_rows, flops) = (batch.ids.len(), model.flops(&batch, n_blocks));
        last_id += 1;
        under_way.borrow_mut().insert(last_id, Flight { scheduled, n_rows, n_rows_out, flops, state: S::default() });
        Some(Step { id: last_id, batch, output })
    };
    let mut receive = |id: u64, layer: usize, rows: &[u8]| {
        let unknown =
            || Error::Disagreement(format!("the model handed out layer {layer} of a batch that is not under way"));
        let mut flights = under_way.borrow_mut();
        take(flights.get_mut(&id).ok_or_else(unknown)?, layer, rows)?;
        if layer + 1 < n_blocks {
            return Ok(());
        }
        let flight = flights.remove(&id).ok_or_else(unknown)?;
        drop(flights);
        landed(flight)
    };
    let ran = model.run_all(layers, &mut give, &mut receive);
    let flights = under_way.into_inner();
    let error = match ran {
        Err(error) => error,
        Ok(()) if flights.is_empty() => return Ok(()),
        Ok(()) => {
            KernelError::shape("model", format!("{} batches never came to layer {}", flights.len(), n_blocks - 1))
                .into()
        }
    };
    let sizes = flights.values().map(|flight| (flight.scheduled.samples.len(), flight.n_rows));
    Err(Crash { error, largest: sizes.filter(|(samples, _)| *samples > 1).max_by_key(|(_, rows)| *rows) })
}
