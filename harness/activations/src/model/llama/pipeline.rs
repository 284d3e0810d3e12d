//! Batches through several stages: while one stage has a batch, the stage before has the next one.

use std::sync::mpsc::sync_channel;
use std::thread;

use actbench_kernels::Backend;

use super::outlet::Collected;
use super::stage::Stage;
use crate::error::{Error, Result};
use crate::model::{Step, StepSink, StepSource};

/// A batch on its way, with what it has left behind for the host.
struct Passing {
    step: Step,
    /// The residual stream after the stage before; none before the first.
    stream: Option<Vec<u8>>,
    outputs: Collected,
}

/// Runs the steps of `next` through `stages`, a thread each. Steps stay in order, so that the rows a stage keeps for the
/// next batch are those that it asks for. `check` sees each step first.
pub(super) fn run<B: Backend>(
    stages: &[Stage<B>],
    layers: &[usize],
    check: impl Fn(&Step) -> Result<()>,
    next: &mut StepSource<'_>,
    sink: &mut StepSink<'_>,
) -> Result<()> {
    thread::scope(|scope| {
        let (feed, mut inbox) = sync_channel::<Result<Passing>>(1);
        for stage in stages {
            let (outbox, next_inbox) = sync_channel(1);
            let inbox = std::mem::replace(&mut inbox, next_inbox);
            scope.spawn(move || {
                for passing in inbox {
                    let passed = passing.and_then(|mut passing| {
                        let input = passing.stream.take();
                        passing.stream = stage.run(&passing.step, input.as_deref(), layers, &mut passing.outputs)?;
                        Ok(passing)
                    });
                    let failed = passed.is_err();
                    // Nobody listens any more where a later stage has failed.
                    if outbox.send(passed).is_err() || failed {
                        return;
                    }
                }
            });
        }
        let gone = || Error::Disagreement("a stage of the model ended before its batches did".to_owned());
        let (mut under_way, mut exhausted) = (0, false);
        loop {
            // One in each stage and one that waits: channels and stages together hold more, so that no send blocks for good.
            while !exhausted && under_way <= stages.len() {
                match next(0) {
                    Some(step) => {
                        check(&step)?;
                        let passing = Passing { step, stream: None, outputs: Collected::default() };
                        if feed.send(Ok(passing)).is_err() {
                            // The first stage has failed; what it failed of is on its way.
                            exhausted = true;
                            break;
                        }
                        under_way += 1;
                    }
                    None => exhausted = true,
                }
            }
            if under_way == 0 {
                return Ok(());
            }
            let passing = inbox.recv().map_err(|_| gone())??;
            under_way -= 1;
            passing.outputs.deliver(passing.step.id, sink)?;
        }
    })
}
