//! Data parallelism: a copy of the model on each device, each with a stream of batches of its own.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;

use actbench_kernels::{DType, DeviceUsage};

use super::threads::spawn;
use super::{ActivationModel, LayerBytes, LayerVectors, ModelSession, ModelStep, SessionEvent, TokenBatch, run_steps};
use crate::error::{Error, Result};

/// Steps that a replica is given before the first of them is done: more than it holds back while copies to the host are
/// pending.
const MAX_IN_FLIGHT: usize = 4;

/// Copies of a model.
pub struct Replicas<M> {
    /// The first copy; shape, dtype and fingerprint are read from it.
    first: Arc<M>,
    others: Vec<Arc<M>>,
}

/// A message from the thread of a replica.
enum ReplicaMessage {
    Output { stream: usize, step: u64, layer: usize, bytes: Vec<u8> },
    Finished { stream: usize, result: Result<()> },
}

impl<M: ActivationModel + 'static> Replicas<M> {
    /// Runs copies of one model.
    ///
    /// # Errors
    /// No model.
    pub fn new(models: Vec<M>) -> Result<Self> {
        let mut models = models.into_iter().map(Arc::new);
        let first = models.next().ok_or_else(|| Error::usage("replicas of a model need at least one device"))?;
        Ok(Replicas { first, others: models.collect() })
    }

    fn all(&self) -> impl Iterator<Item = &Arc<M>> {
        std::iter::once(&self.first).chain(&self.others)
    }
}

impl<M: ActivationModel + 'static> ActivationModel for Replicas<M> {
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
        self.all().map(|model| model.describe()).collect::<Vec<_>>().join("; ")
    }

    fn flops(&self, batch: &TokenBatch, n_blocks: usize) -> u64 {
        self.first.flops(batch, n_blocks)
    }

    fn streams(&self) -> usize {
        1 + self.others.len()
    }

    fn release_and_measure_capacity(&self) -> Result<Option<usize>> {
        let capacities = self.all().map(|model| model.release_and_measure_capacity()).collect::<Result<Vec<_>>>()?;
        Ok(capacities.into_iter().flatten().min())
    }

    fn filled_batch_tokens(&self) -> Result<Option<usize>> {
        self.first.filled_batch_tokens()
    }

    fn reserve(&self, tokens: usize) -> Result<()> {
        self.all().try_for_each(|model| model.reserve(tokens))
    }

    fn device_usage(&self) -> Result<Option<DeviceUsage>> {
        let used = self.all().map(|model| model.device_usage()).collect::<Result<Option<Vec<_>>>>()?;
        Ok(used.map(|used| used.into_iter().sum()))
    }

    fn reset_device_usage(&self) -> Result<()> {
        self.all().try_for_each(|model| model.reset_device_usage())
    }

    fn session(&self, layers: &[usize]) -> Result<Box<dyn ModelSession + '_>> {
        Ok(Box::new(ReplicaSession::new(self.all().cloned(), layers)?))
    }
}

/// A session of each replica, on a thread each.
struct ReplicaSession {
    /// One a replica; none when it takes no more steps.
    steps: Vec<Option<SyncSender<ModelStep>>>,
    messages: Option<Receiver<ReplicaMessage>>,
    threads: Vec<JoinHandle<()>>,
    n_in_flight: Vec<usize>,
    n_running: usize,
    deepest: usize,
}

impl ReplicaSession {
    fn new<M: ActivationModel + 'static>(models: impl Iterator<Item = Arc<M>>, layers: &[usize]) -> Result<Self> {
        let (message_sender, messages) = channel();
        let mut session = ReplicaSession {
            steps: Vec::new(),
            messages: Some(messages),
            threads: Vec::new(),
            n_in_flight: Vec::new(),
            n_running: 0,
            deepest: layers.last().copied().unwrap_or_default(),
        };
        for (stream, model) in models.enumerate() {
            let (step_sender, steps) = sync_channel::<ModelStep>(MAX_IN_FLIGHT);
            let (message_sender, layers) = (message_sender.clone(), layers.to_vec());
            let work = move || {
                let result = run_replica(model.as_ref(), stream, &layers, &steps, &message_sender);
                // The receiver is gone if another replica has failed.
                let _ = message_sender.send(ReplicaMessage::Finished { stream, result });
            };
            session.threads.push(spawn("replicas", work)?);
            session.steps.push(Some(step_sender));
            session.n_in_flight.push(0);
            session.n_running += 1;
        }
        Ok(session)
    }
}

/// Runs the steps of `steps` in a session of `model`, and sends all outputs.
fn run_replica(
    model: &dyn ActivationModel,
    stream: usize,
    layers: &[usize],
    steps: &Receiver<ModelStep>,
    messages: &Sender<ReplicaMessage>,
) -> Result<()> {
    let abandoned = |_| Error::internal("the outputs of a replica have no receiver");
    let mut session = model.session(layers)?;
    run_steps(session.as_mut(), &mut |_| steps.recv().ok(), &mut |vectors| {
        let LayerVectors { step, layer, mut bytes } = vectors;
        let output = ReplicaMessage::Output { stream, step, layer, bytes: bytes.wait()?.to_vec() };
        messages.send(output).map_err(abandoned)
    })
}

impl ModelSession for ReplicaSession {
    fn next(&mut self) -> Result<SessionEvent<'_>> {
        loop {
            let takes = |stream: &usize| self.steps[*stream].is_some() && self.n_in_flight[*stream] < MAX_IN_FLIGHT;
            if let Some(stream) = (0..self.steps.len()).find(takes) {
                return Ok(SessionEvent::NeedsBatch { stream });
            }
            if self.n_running == 0 {
                return Ok(SessionEvent::Finished);
            }
            match self.messages.as_ref().and_then(|messages| messages.recv().ok()) {
                Some(ReplicaMessage::Output { stream, step, layer, bytes }) => {
                    self.n_in_flight[stream] -= usize::from(layer == self.deepest);
                    let bytes = LayerBytes::Owned(bytes);
                    return Ok(SessionEvent::Output(LayerVectors { step, layer, bytes }));
                }
                Some(ReplicaMessage::Finished { stream, result }) => {
                    result?;
                    self.steps[stream] = None;
                    self.n_running -= 1;
                }
                None => return Err(Error::internal("a replica thread terminated unexpectedly")),
            }
        }
    }

    fn submit(&mut self, stream: usize, step: ModelStep) -> Result<()> {
        let sent = self.steps[stream].as_ref().is_some_and(|steps| steps.send(step).is_ok());
        if sent {
            self.n_in_flight[stream] += 1;
        } else {
            // The replica has failed, and its result is in the channel.
            self.steps[stream] = None;
        }
        Ok(())
    }

    fn close(&mut self, stream: usize) {
        self.steps[stream] = None;
    }
}

impl Drop for ReplicaSession {
    fn drop(&mut self) {
        // Replicas end when they receive no more steps, or nobody receives their outputs.
        self.steps.clear();
        self.messages = None;
        for thread in self.threads.drain(..) {
            // A panic of a replica was the error of a receive.
            let _ = thread.join();
        }
    }
}
