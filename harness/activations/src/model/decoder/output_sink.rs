//! Where the outputs of layers go: to the caller's sink in order, or with a batch to the next stage.

use std::collections::VecDeque;

use actbench_kernels::PendingCopy;

use crate::error::Result;
use crate::model::StepSink;
use crate::model::memory_model::MAX_PENDING_COPIES;

/// Receives the outputs of layers, in order.
pub(super) trait OutputSink {
    /// An output in host memory.
    fn emit(&mut self, step: u64, layer: usize, bytes: &[u8]) -> Result<()>;

    /// An output whose copy to the host is pending.
    fn emit_copy(&mut self, step: u64, layer: usize, copy: Box<dyn PendingCopy>) -> Result<()>;
}

/// Emits outputs to a step sink, copies after they complete.
pub(super) struct QueuedOutputs<'a, 'b> {
    sink: &'a mut StepSink<'b>,
    pending: VecDeque<(u64, usize, Box<dyn PendingCopy>)>,
}

impl<'a, 'b> QueuedOutputs<'a, 'b> {
    pub(super) fn new(sink: &'a mut StepSink<'b>) -> Self {
        QueuedOutputs { sink, pending: VecDeque::new() }
    }

    /// Waits for copies and emits them until at most `max_pending` are left.
    fn drain(&mut self, max_pending: usize) -> Result<()> {
        while self.pending.len() > max_pending
            && let Some((step, layer, mut copy)) = self.pending.pop_front()
        {
            (self.sink)(step, layer, copy.wait()?)?;
        }
        Ok(())
    }

    /// Waits for every pending copy and emits it.
    pub(super) fn finish(mut self) -> Result<()> {
        self.drain(0)
    }
}

impl OutputSink for QueuedOutputs<'_, '_> {
    fn emit(&mut self, step: u64, layer: usize, bytes: &[u8]) -> Result<()> {
        self.drain(0)?;
        (self.sink)(step, layer, bytes)
    }

    fn emit_copy(&mut self, step: u64, layer: usize, copy: Box<dyn PendingCopy>) -> Result<()> {
        self.pending.push_back((step, layer, copy));
        self.drain(MAX_PENDING_COPIES)
    }
}

/// The output of a layer that goes with its batch to the next stage.
enum CollectedOutput {
    Host(Vec<u8>),
    Pending(Box<dyn PendingCopy>),
}

/// Outputs of one step, by layer.
#[derive(Default)]
pub(super) struct CollectedOutputs(Vec<(usize, CollectedOutput)>);

impl CollectedOutputs {
    /// Emits the outputs of step `step` to `sink`.
    pub(super) fn emit_to(self, step: u64, sink: &mut StepSink<'_>) -> Result<()> {
        self.0.into_iter().try_for_each(|(layer, output)| match output {
            CollectedOutput::Host(bytes) => sink(step, layer, &bytes),
            CollectedOutput::Pending(mut copy) => sink(step, layer, copy.wait()?),
        })
    }
}

impl OutputSink for CollectedOutputs {
    fn emit(&mut self, _step: u64, layer: usize, bytes: &[u8]) -> Result<()> {
        self.0.push((layer, CollectedOutput::Host(bytes.to_vec())));
        Ok(())
    }

    fn emit_copy(&mut self, _step: u64, layer: usize, copy: Box<dyn PendingCopy>) -> Result<()> {
        self.0.push((layer, CollectedOutput::Pending(copy)));
        // A pending copy holds memory of the device, so only the last ones may stay pending.
        let completed = self.0.len().saturating_sub(MAX_PENDING_COPIES);
        for (_, output) in &mut self.0[..completed] {
            if let CollectedOutput::Pending(copy) = output {
                *output = CollectedOutput::Host(copy.wait()?.to_vec());
            }
        }
        Ok(())
    }
}
