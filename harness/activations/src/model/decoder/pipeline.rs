//! Batches through several stages: while one stage has a batch, the stage before has the next one.

use std::sync::mpsc::sync_channel;
use std::thread;

use actbench_kernels::Backend;

use super::output_sink::CollectedOutputs;
use super::stage::PipelineStage;
use crate::error::{Error, Result};
use crate::model::{ModelStep, StepSink, StepSource};

/// A step between two stages.
struct StagedStep {
    step: ModelStep,
    /// The residual stream after the stage before; none before the first.
    stream: Option<Vec<u8>>,
    outputs: CollectedOutputs,
}

/// Runs the steps of `next` through `stages`, a thread each. Steps stay in order, so that the prefix tokens that a stage
/// has cached are those of the batch before. `check` is called with each step first.
pub(super) fn run<B: Backend>(
    stages: &[PipelineStage<B>],
    layers: &[usize],
    check: impl Fn(&ModelStep) -> Result<()>,
    next: &mut StepSource<'_>,
    sink: &mut StepSink<'_>,
) -> Result<()> {
    thread::scope(|scope| {
        let (first_sender, mut receiver) = sync_channel::<Result<StagedStep>>(1);
        for stage in stages {
            let (sender, next_receiver) = sync_channel(1);
            let stage_receiver = std::mem::replace(&mut receiver, next_receiver);
            scope.spawn(move || {
                for staged in stage_receiver {
                    let result = staged.and_then(|mut staged| {
                        let input = staged.stream.take();
                        staged.stream = stage.run(&staged.step, input.as_deref(), layers, &mut staged.outputs)?;
                        Ok(staged)
                    });
                    let failed = result.is_err();
                    // The receiver is gone if a later stage has failed.
                    if sender.send(result).is_err() || failed {
                        return;
                    }
                }
            });
        }
        let terminated = || Error::internal("a pipeline stage terminated before its batches");
        let (mut n_in_flight, mut exhausted) = (0, false);
        loop {
            // One step in each stage and one that waits. Channels and stages together hold more, so no send deadlocks.
            while !exhausted && n_in_flight <= stages.len() {
                let Some(step) = next(0) else {
                    exhausted = true;
                    break;
                };
                check(&step)?;
                let staged = StagedStep { step, stream: None, outputs: CollectedOutputs::default() };
                if first_sender.send(Ok(staged)).is_err() {
                    // The first stage has failed; its error is in a channel.
                    exhausted = true;
                    break;
                }
                n_in_flight += 1;
            }
            if n_in_flight == 0 {
                return Ok(());
            }
            let staged = receiver.recv().map_err(|_| terminated())??;
            n_in_flight -= 1;
            staged.outputs.emit_to(staged.step.id, sink)?;
        }
    })
}
