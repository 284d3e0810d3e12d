//! A session on one stage: copies to the host overlap with the blocks and batches after them.

use actbench_kernels::Backend;

use super::stage::{PipelineStage, check_batch};
use super::stage_pass::{EmittedLayer, StagePass};
use crate::error::{Error, Result};
use crate::model::{LayerBytes, LayerVectors, ModelSession, ModelStep, SessionEvent};

/// Batches through one stage.
pub(super) struct StageSession<'a, B: Backend> {
    max_positions: usize,
    pass: StagePass<'a, B>,
    closed: bool,
}

impl<'a, B: Backend> StageSession<'a, B> {
    /// A session through `stage`, which has all blocks up to the last of `layers`.
    pub(super) fn new(stage: &'a PipelineStage<B>, layers: &[usize]) -> Result<Self> {
        let pass = StagePass::new(stage, layers)?;
        Ok(StageSession { max_positions: stage.max_positions, pass, closed: false })
    }
}

impl<B: Backend> ModelSession for StageSession<'_, B> {
    fn next(&mut self) -> Result<SessionEvent<'_>> {
        while !self.pass.is_idle() {
            match self.pass.advance()? {
                Some(EmittedLayer { step, layer, copy }) => {
                    let bytes = match copy {
                        Some(copy) => LayerBytes::Pending(copy),
                        None => LayerBytes::Borrowed(self.pass.host()),
                    };
                    return Ok(SessionEvent::Output(LayerVectors { step, layer, bytes }));
                }
                None => drop(self.pass.finish()?),
            }
        }
        Ok(if self.closed { SessionEvent::Finished } else { SessionEvent::NeedsBatch { stream: 0 } })
    }

    fn submit(&mut self, _stream: usize, step: ModelStep) -> Result<()> {
        if !self.pass.is_idle() {
            return Err(Error::internal("a batch was submitted to a session that has one"));
        }
        check_batch(&step.batch, self.max_positions)?;
        self.pass.begin(step, None)
    }

    fn close(&mut self, _stream: usize) {
        self.closed = true;
    }
}
