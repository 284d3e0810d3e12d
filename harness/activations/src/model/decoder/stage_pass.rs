//! The pass of one batch after the other through a stage, from one output to the next.

use actbench_kernels::{Backend, KernelError, PendingCopy};

use super::stage::PipelineStage;
use super::workspace::Workspace;
use crate::error::{Error, Result};
use crate::model::ModelStep;

/// Owns the buffers of a stage and the prefix tokens that its batches keep, while it exists.
pub(super) struct StagePass<'a, B: Backend> {
    stage: &'a PipelineStage<B>,
    /// None after the device ran out of memory: smaller batches, in another session, need what it had.
    work: Option<Workspace<B>>,
    /// The layers whose outputs are asked for, increasing; at least one.
    layers: Vec<usize>,
    active: Option<ActiveStep>,
}

/// A step on its way through the stage.
struct ActiveStep {
    step: ModelStep,
    /// The next block to run.
    next: usize,
}

/// A layer's output.
pub(super) struct EmittedLayer {
    pub(super) step: u64,
    pub(super) layer: usize,
    /// Its copy to the host; where there is none, the output is in [`StagePass::host`].
    pub(super) copy: Option<Box<dyn PendingCopy>>,
}

impl<'a, B: Backend> StagePass<'a, B> {
    /// A pass through `stage` that emits `layers`.
    pub(super) fn new(stage: &'a PipelineStage<B>, layers: &[usize]) -> Result<Self> {
        Ok(StagePass { stage, work: Some(stage.take_workspace()?), layers: layers.to_vec(), active: None })
    }

    /// Whether no step is on its way.
    pub(super) fn is_idle(&self) -> bool {
        self.active.is_none()
    }

    /// Starts `step`. `input` is the residual stream of the stage before; none for the first.
    pub(super) fn begin(&mut self, step: ModelStep, input: Option<&[u8]>) -> Result<()> {
        let begun = self.work().and_then(|(stage, work)| stage.begin(&step.batch, input, work));
        self.checked(begun)?;
        self.active = Some(ActiveStep { step, next: self.stage.first });
        Ok(())
    }

    /// Runs blocks up to the next layer asked for; none when the last one of this stage has run.
    pub(super) fn advance(&mut self) -> Result<Option<EmittedLayer>> {
        let advanced = self.run_to_output();
        self.checked(advanced)
    }

    /// Ends the step. The residual stream is returned if deeper blocks are on the next stage.
    pub(super) fn finish(&mut self) -> Result<(ModelStep, Option<Vec<u8>>)> {
        let Some(ActiveStep { step, .. }) = self.active.take() else {
            return Err(Error::internal("no batch is on its way through a stage"));
        };
        let continues = self.deepest() > self.last_block();
        let (stage, work) = self.work()?;
        work.prefix_cache.note_kept(&step.batch);
        let downloaded = continues.then(|| stage.download_stream(step.batch.ids.len(), work)).transpose();
        Ok((step, self.checked(downloaded)?))
    }

    /// The host buffer, with the output of the last [`EmittedLayer`] without a copy.
    pub(super) fn host(&self) -> &[u8] {
        self.work.as_ref().map_or(&[], |work| &work.host)
    }

    fn deepest(&self) -> usize {
        self.layers.last().copied().unwrap_or_default()
    }

    /// The last block of this stage that any layer needs.
    fn last_block(&self) -> usize {
        self.deepest().min(self.stage.first + self.stage.blocks.len() - 1)
    }

    fn work(&mut self) -> Result<(&'a PipelineStage<B>, &mut Workspace<B>)> {
        let work =
            self.work.as_mut().ok_or_else(|| Error::internal("a session was used after it ran out of memory"))?;
        Ok((self.stage, work))
    }

    fn run_to_output(&mut self) -> Result<Option<EmittedLayer>> {
        let (deepest, last) = (self.deepest(), self.last_block());
        let Some(active) = &mut self.active else { return Ok(None) };
        if active.next > last {
            return Ok(None);
        }
        // Up to the next block with an output, so that the backend can group the launches of several blocks.
        let from = active.next;
        let emitting = self.layers.iter().copied().find(|asked| *asked >= from).filter(|asked| *asked <= last);
        let end = emitting.unwrap_or(last);
        active.next = end + 1;
        let Some(work) = &mut self.work else { return Ok(None) };
        self.stage.run_blocks(from..=end, &active.step.batch, deepest, work)?;
        let Some(layer) = emitting else { return Ok(None) };
        let copy = self.stage.emit(layer, &active.step, deepest, work)?;
        Ok(Some(EmittedLayer { step: active.step.id, layer, copy }))
    }

    /// Frees the buffers if the device ran out of memory.
    fn checked<T>(&mut self, result: Result<T>) -> Result<T> {
        if let Err(Error::Kernel(KernelError::OutOfMemory { .. })) = &result {
            self.work = None;
        }
        result
    }
}

impl<B: Backend> Drop for StagePass<'_, B> {
    fn drop(&mut self) {
        if let Some(work) = self.work.take() {
            self.stage.keep_workspace(work);
        }
    }
}
