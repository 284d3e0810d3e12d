//! A session on one stage: copies to the host overlap with the blocks and batches after them.

use std::collections::VecDeque;

use actbench_kernels::{Backend, PendingCopy};

use super::stage::{PipelineStage, check_batch};
use super::stage_pass::{EmittedLayer, StagePass};
use crate::error::{Error, Result};
use crate::model::memory_model::MAX_PENDING_COPIES;
use crate::model::{LayerVectors, ModelSession, ModelStep, SessionEvent};

/// Batches through one stage.
pub(super) struct StageSession<'a, B: Backend> {
    max_positions: usize,
    pass: StagePass<'a, B>,
    /// Copies to the host, oldest first.
    pending: VecDeque<(u64, usize, Box<dyn PendingCopy>)>,
    /// The copy whose bytes the caller has.
    current: Option<Box<dyn PendingCopy>>,
    closed: bool,
}

impl<'a, B: Backend> StageSession<'a, B> {
    /// A session through `stage`, which has all blocks up to the last of `layers`.
    pub(super) fn new(stage: &'a PipelineStage<B>, layers: &[usize]) -> Result<Self> {
        let pass = StagePass::new(stage, layers)?;
        Ok(StageSession {
            max_positions: stage.max_positions,
            pass,
            pending: VecDeque::new(),
            current: None,
            closed: false,
        })
    }
}

impl<B: Backend> ModelSession for StageSession<'_, B> {
    fn next(&mut self) -> Result<SessionEvent<'_>> {
        self.current = None;
        loop {
            let can_compute = !(self.closed && self.pass.is_idle());
            let max_pending = if can_compute { MAX_PENDING_COPIES } else { 0 };
            if self.pending.len() > max_pending
                && let Some((step, layer, copy)) = self.pending.pop_front()
            {
                let bytes = self.current.insert(copy).wait()?;
                return Ok(SessionEvent::Output(LayerVectors { step, layer, bytes }));
            }
            if self.pass.is_idle() {
                let stream = 0;
                return Ok(if self.closed { SessionEvent::Finished } else { SessionEvent::NeedsBatch { stream } });
            }
            match self.pass.advance()? {
                Some(EmittedLayer { step, layer, copy: Some(copy) }) => self.pending.push_back((step, layer, copy)),
                Some(EmittedLayer { step, layer, copy: None }) => {
                    return Ok(SessionEvent::Output(LayerVectors { step, layer, bytes: self.pass.host() }));
                }
                None => drop(self.pass.finish()?),
            }
        }
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
