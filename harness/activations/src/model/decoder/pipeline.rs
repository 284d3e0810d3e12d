//! A session over several stages: while one stage has a batch, the stage before has the next one.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use actbench_kernels::{Backend, PendingCopy};

use super::stage::{PipelineStage, check_batch};
use super::stage_pass::StagePass;
use crate::error::{Error, Result};
use crate::model::memory_model::MAX_PENDING_COPIES;
use crate::model::threads::spawn;
use crate::model::{LayerBytes, LayerVectors, ModelSession, ModelStep, SessionEvent};

/// A step between two stages.
struct StagedStep {
    step: ModelStep,
    /// The residual stream after the stage before; none before the first.
    stream: Option<Vec<u8>>,
    outputs: Vec<CollectedOutput>,
}

/// The output of a layer that goes with its batch to the next stage.
struct CollectedOutput {
    layer: usize,
    bytes: CollectedBytes,
}

enum CollectedBytes {
    Host(Vec<u8>),
    Pending(Box<dyn PendingCopy>),
}

impl CollectedBytes {
    /// Waits for a pending copy, so that it has no more memory of its device: every stage may have pending copies of its own.
    fn land(self) -> Result<LayerBytes<'static>> {
        Ok(match self {
            CollectedBytes::Host(bytes) => LayerBytes::Owned(bytes),
            CollectedBytes::Pending(mut copy) => {
                copy.wait()?;
                LayerBytes::Pending(copy)
            }
        })
    }
}

/// Batches through several stages, a thread each. They stay in order, so that the prefix tokens that a stage has cached are those
/// of the batch before.
pub(super) struct PipelineSession {
    max_positions: usize,
    n_stages: usize,
    /// To the first stage; none when the session ends.
    first: Option<SyncSender<Result<StagedStep>>>,
    /// From the last stage; none when the session ends.
    last: Option<Receiver<Result<StagedStep>>>,
    threads: Vec<JoinHandle<()>>,
    n_in_flight: usize,
    closed: bool,
    /// Outputs of the step that left the last stage, and its id.
    completed: (u64, VecDeque<CollectedOutput>),
}

impl PipelineSession {
    /// A session over `stages`.
    pub(super) fn new<B: Backend>(stages: &[Arc<PipelineStage<B>>], layers: &[usize]) -> Result<Self> {
        let (first, mut receiver) = sync_channel::<Result<StagedStep>>(1);
        let mut session = PipelineSession {
            max_positions: stages.first().map_or(0, |stage| stage.max_positions),
            n_stages: stages.len(),
            first: Some(first),
            last: None,
            threads: Vec::new(),
            n_in_flight: 0,
            closed: false,
            completed: (0, VecDeque::new()),
        };
        for stage in stages {
            let (sender, next_receiver) = sync_channel(1);
            let input = mem::replace(&mut receiver, next_receiver);
            let (stage, layers) = (stage.clone(), layers.to_vec());
            let work = move || run_stage(&stage, &layers, &input, &sender);
            session.threads.push(spawn("pipeline", work)?);
        }
        session.last = Some(receiver);
        Ok(session)
    }
}

/// Runs the steps of `input` through `stage` until there are no more, or one fails.
fn run_stage<B: Backend>(
    stage: &PipelineStage<B>,
    layers: &[usize],
    input: &Receiver<Result<StagedStep>>,
    output: &SyncSender<Result<StagedStep>>,
) {
    let mut pass = match StagePass::new(stage, layers) {
        Ok(pass) => pass,
        Err(error) => return drop(output.send(Err(error))),
    };
    for staged in input {
        let result = staged.and_then(|staged| run_step(&mut pass, staged));
        let failed = result.is_err();
        // The receiver is gone if a later stage has failed, or the session has ended.
        if output.send(result).is_err() || failed {
            return;
        }
    }
}

fn run_step<B: Backend>(pass: &mut StagePass<'_, B>, staged: StagedStep) -> Result<StagedStep> {
    let StagedStep { step, stream, mut outputs } = staged;
    pass.begin(step, stream.as_deref())?;
    while let Some(emitted) = pass.advance()? {
        let bytes = match emitted.copy {
            Some(copy) => CollectedBytes::Pending(copy),
            None => CollectedBytes::Host(pass.host().to_vec()),
        };
        outputs.push(CollectedOutput { layer: emitted.layer, bytes });
        // A pending copy holds memory of the device, so only the last ones may stay pending.
        let completed = outputs.len().saturating_sub(MAX_PENDING_COPIES);
        for CollectedOutput { bytes, .. } in &mut outputs[..completed] {
            if let CollectedBytes::Pending(copy) = bytes {
                *bytes = CollectedBytes::Host(copy.wait()?.to_vec());
            }
        }
    }
    let (step, stream) = pass.finish()?;
    Ok(StagedStep { step, stream, outputs })
}

impl ModelSession for PipelineSession {
    fn next(&mut self) -> Result<SessionEvent<'_>> {
        loop {
            let (step, outputs) = &mut self.completed;
            if let Some(CollectedOutput { layer, bytes }) = outputs.pop_front() {
                let bytes = bytes.land()?;
                return Ok(SessionEvent::Output(LayerVectors { step: *step, layer, bytes }));
            }
            // One step in each stage and one that waits. Channels and stages together hold more, so no send deadlocks.
            if !self.closed && self.n_in_flight <= self.n_stages {
                return Ok(SessionEvent::NeedsBatch { stream: 0 });
            }
            if self.n_in_flight == 0 {
                return Ok(SessionEvent::Finished);
            }
            let terminated = || Error::internal("a pipeline stage terminated before its batches");
            let received = self.last.as_ref().and_then(|last| last.recv().ok());
            let staged = received.ok_or_else(terminated)??;
            self.n_in_flight -= 1;
            self.completed = (staged.step.id, staged.outputs.into());
        }
    }

    fn submit(&mut self, _stream: usize, step: ModelStep) -> Result<()> {
        check_batch(&step.batch, self.max_positions)?;
        let staged = StagedStep { step, stream: None, outputs: Vec::new() };
        let is_sent = self.first.as_ref().is_some_and(|first| first.send(Ok(staged)).is_ok());
        // Where the first stage has failed, its error is on its way to `next`.
        self.closed |= !is_sent;
        self.n_in_flight += 1;
        Ok(())
    }

    fn close(&mut self, _stream: usize) {
        self.closed = true;
    }
}

impl Drop for PipelineSession {
    fn drop(&mut self) {
        // Both ends of the channels are closed first, so that every stage ends.
        (self.first, self.last) = (None, None);
        for thread in self.threads.drain(..) {
            // A panic of a stage was the error of a receive.
            let _ = thread.join();
        }
    }
}
