//! Data parallelism: a copy of the model on each device, each with a stream of batches of its own.

use std::sync::mpsc::{channel, sync_channel};
use std::thread;

use actbench_kernels::{DType, DeviceUsage};

use super::{ActivationModel, LayerOutput, LayerSink, ModelStep, StepSink, StepSource, TokenBatch};
use crate::error::{Error, Result};

/// Steps that a replica is given before the first of them is done: more than it holds back while copies to the host are
/// pending.
const MAX_IN_FLIGHT: usize = 4;

/// Copies of a model.
pub struct Replicas<M> {
    /// The first copy; shape, dtype and fingerprint are read from it.
    first: M,
    others: Vec<M>,
}

/// A message from the thread of a replica.
enum ReplicaMessage {
    Output { stream: usize, step: u64, layer: usize, bytes: Vec<u8> },
    Finished { stream: usize, result: Result<()> },
}

impl<M: ActivationModel> Replicas<M> {
    /// Runs copies of one model.
    ///
    /// # Errors
    /// No model.
    pub fn new(models: Vec<M>) -> Result<Self> {
        let mut models = models.into_iter();
        let first = models.next().ok_or_else(|| Error::usage("replicas of a model need at least one device"))?;
        Ok(Replicas { first, others: models.collect() })
    }

    fn all(&self) -> impl Iterator<Item = &M> {
        std::iter::once(&self.first).chain(&self.others)
    }
}

impl<M: ActivationModel> ActivationModel for Replicas<M> {
    fn n_layers(&self) -> usize {
        self.first.n_layers()
    }

    fn hidden_size(&self) -> usize {
        self.first.hidden_size()
    }

    fn vocab_size(&self) -> usize {
        self.first.vocab_size()
    }

    fn dtype(&self) -> DType {
        self.first.dtype()
    }

    fn fingerprint(&self) -> &str {
        self.first.fingerprint()
    }

    fn describe(&self) -> String {
        self.all().map(ActivationModel::describe).collect::<Vec<_>>().join("; ")
    }

    fn flops(&self, batch: &TokenBatch, n_blocks: usize) -> u64 {
        self.first.flops(batch, n_blocks)
    }

    fn streams(&self) -> usize {
        1 + self.others.len()
    }

    fn release_and_measure_capacity(&self) -> Result<Option<usize>> {
        let capacities = self.all().map(ActivationModel::release_and_measure_capacity).collect::<Result<Vec<_>>>()?;
        Ok(capacities.into_iter().flatten().min())
    }

    fn device_usage(&self) -> Result<Option<DeviceUsage>> {
        let used = self.all().map(ActivationModel::device_usage).collect::<Result<Option<Vec<_>>>>()?;
        Ok(used.map(|used| used.into_iter().sum()))
    }

    fn reset_device_usage(&self) -> Result<()> {
        self.all().try_for_each(ActivationModel::reset_device_usage)
    }

    fn run(
        &self,
        batch: &TokenBatch,
        layers: &[usize],
        output: LayerOutput<'_>,
        sink: &mut LayerSink<'_>,
    ) -> Result<()> {
        self.first.run(batch, layers, output, sink)
    }

    fn run_all(&self, layers: &[usize], next: &mut StepSource<'_>, sink: &mut StepSink<'_>) -> Result<()> {
        let Some(&deepest) = layers.last() else { return Ok(()) };
        thread::scope(|scope| {
            let (message_sender, messages) = channel();
            let mut step_senders = Vec::new();
            for (stream, model) in self.all().enumerate() {
                let (step_sender, steps) = sync_channel::<ModelStep>(MAX_IN_FLIGHT);
                let message_sender = message_sender.clone();
                step_senders.push(Some(step_sender));
                scope.spawn(move || {
                    let abandoned = |_| Error::internal("the outputs of a replica have no receiver");
                    let result = model.run_all(layers, &mut |_| steps.recv().ok(), &mut |step, layer, bytes| {
                        let output = ReplicaMessage::Output { stream, step, layer, bytes: bytes.to_vec() };
                        message_sender.send(output).map_err(abandoned)
                    });
                    // The receiver is gone if another replica has failed.
                    let _ = message_sender.send(ReplicaMessage::Finished { stream, result });
                });
            }
            drop(message_sender);
            let mut n_in_flight = vec![0; step_senders.len()];
            let mut n_running = step_senders.len();
            while n_running > 0 {
                for (stream, sender) in step_senders.iter_mut().enumerate() {
                    while n_in_flight[stream] < MAX_IN_FLIGHT
                        && let Some(open) = sender
                    {
                        let sent = next(stream).is_some_and(|step| open.send(step).is_ok());
                        if sent {
                            n_in_flight[stream] += 1;
                        } else {
                            // No more steps, or the replica has finished and its result is in the channel.
                            *sender = None;
                        }
                    }
                }
                match messages.recv() {
                    Ok(ReplicaMessage::Output { stream, step, layer, bytes }) => {
                        n_in_flight[stream] -= usize::from(layer == deepest);
                        sink(step, layer, &bytes)?;
                    }
                    Ok(ReplicaMessage::Finished { stream, result }) => {
                        result?;
                        step_senders[stream] = None;
                        n_running -= 1;
                    }
                    Err(_) => return Err(Error::internal("a replica thread terminated unexpectedly")),
                }
            }
            Ok(())
        })
    }
}
