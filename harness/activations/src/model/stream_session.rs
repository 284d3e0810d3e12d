//! A session of several streams of batches, each a session of its own on a thread of its own.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use actbench_kernels::cpu::Streams;

use super::memory_model::MAX_OUTPUTS_OF_STREAM;
use super::threads::spawn;
use super::{ActivationModel, LayerBytes, LayerVectors, ModelSession, ModelStep, SessionEvent, run_steps};
use crate::error::{Error, Result};

/// Steps that a stream on a device is given before the first of them is done: more than it holds back while copies to the host
/// are pending.
const MAX_IN_FLIGHT_ON_DEVICE: usize = 4;

/// Steps that a stream in host memory is given: one that it computes and one for after it. With fewer, streams that take their
/// batches from one list end together.
const MAX_IN_FLIGHT_IN_MEMORY: usize = 2;

/// A message from the thread of a stream.
enum StreamMessage {
    Output { stream: usize, step: u64, layer: usize, bytes: Vec<u8> },
    Finished { stream: usize, result: Result<()> },
}

/// Buffers of outputs that the caller has read.
type SpareBuffers = Arc<Mutex<Vec<Vec<u8>>>>;

/// A session for each stream, on a thread each.
pub(super) struct StreamSession {
    max_in_flight: usize,
    /// One a stream; none when it takes no more steps.
    steps: Vec<Option<SyncSender<ModelStep>>>,
    messages: Option<Receiver<StreamMessage>>,
    threads: Vec<JoinHandle<()>>,
    n_in_flight: Vec<usize>,
    n_running: usize,
    deepest: usize,
    /// The bytes that the caller has.
    current: Vec<u8>,
    spare: SpareBuffers,
}

/// The ends of the channels that the thread of a stream has.
struct StreamChannels {
    stream: usize,
    steps: Receiver<ModelStep>,
    messages: SyncSender<StreamMessage>,
    spare: SpareBuffers,
}

impl StreamSession {
    /// A stream for each of `models`, which are on devices of their own.
    pub(super) fn of_devices<M: ActivationModel + 'static>(models: Vec<Arc<M>>, layers: &[usize]) -> Result<Self> {
        // Outputs of all steps in flight: devices never wait for the host.
        let max_outputs = MAX_IN_FLIGHT_ON_DEVICE * layers.len().max(1);
        Self::new(models, layers, MAX_IN_FLIGHT_ON_DEVICE, max_outputs, None)
    }

    /// `n_streams` streams of one model in host memory, each of which computes its batches on one thread.
    pub(super) fn in_memory<M: ActivationModel + 'static>(
        model: &Arc<M>,
        n_streams: usize,
        layers: &[usize],
    ) -> Result<Self> {
        let models = vec![model.clone(); n_streams];
        Self::new(models, layers, MAX_IN_FLIGHT_IN_MEMORY, MAX_OUTPUTS_OF_STREAM, Some(Streams::new(n_streams)))
    }

    fn new<M: ActivationModel + 'static>(
        models: Vec<Arc<M>>,
        layers: &[usize],
        max_in_flight: usize,
        max_outputs: usize,
        streams: Option<Streams>,
    ) -> Result<Self> {
        let (message_sender, messages) = sync_channel(models.len() * max_outputs);
        let spare = SpareBuffers::default();
        let mut session = StreamSession {
            max_in_flight,
            steps: Vec::new(),
            messages: Some(messages),
            threads: Vec::new(),
            n_in_flight: Vec::new(),
            n_running: 0,
            deepest: layers.last().copied().unwrap_or_default(),
            current: Vec::new(),
            spare: spare.clone(),
        };
        for (stream, model) in models.into_iter().enumerate() {
            let (step_sender, steps) = sync_channel::<ModelStep>(max_in_flight);
            let (layers, streams) = (layers.to_vec(), streams.clone());
            let finished = message_sender.clone();
            let channels = StreamChannels { stream, steps, messages: message_sender.clone(), spare: spare.clone() };
            let work = move || {
                let run = move || run_stream(model.as_ref(), &layers, &channels);
                let result = match streams {
                    Some(streams) => streams.run(run).unwrap_or_else(|error| Err(error.into())),
                    None => run(),
                };
                // The receiver is gone if another stream has failed.
                let _ = finished.send(StreamMessage::Finished { stream, result });
            };
            session.threads.push(spawn("streams", work)?);
            session.steps.push(Some(step_sender));
            session.n_in_flight.push(0);
            session.n_running += 1;
        }
        Ok(session)
    }
}

/// Runs the steps of a stream in a session of `model`, and sends all outputs.
fn run_stream(model: &dyn ActivationModel, layers: &[usize], channels: &StreamChannels) -> Result<()> {
    let StreamChannels { stream, steps, messages, spare } = channels;
    let abandoned = |_| Error::internal("the outputs of a stream have no receiver");
    let mut session = model.session(layers)?;
    run_steps(session.as_mut(), &mut |_| steps.recv().ok(), &mut |vectors| {
        let LayerVectors { step, layer, mut bytes } = vectors;
        let bytes = bytes.wait()?;
        let mut buffer = lock(spare).pop().unwrap_or_default();
        buffer.clear();
        buffer.reserve_exact(bytes.len());
        buffer.extend_from_slice(bytes);
        let output = StreamMessage::Output { stream: *stream, step, layer, bytes: buffer };
        messages.send(output).map_err(abandoned)
    })
}

fn lock(spare: &SpareBuffers) -> std::sync::MutexGuard<'_, Vec<Vec<u8>>> {
    // The buffers have no state, so a poisoned lock is harmless.
    spare.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ModelSession for StreamSession {
    fn next(&mut self) -> Result<SessionEvent<'_>> {
        let read = std::mem::take(&mut self.current);
        if read.capacity() > 0 {
            lock(&self.spare).push(read);
        }
        loop {
            let takes =
                |stream: &usize| self.steps[*stream].is_some() && self.n_in_flight[*stream] < self.max_in_flight;
            // The stream with the fewest steps first, so that none waits while another has two.
            if let Some(stream) = (0..self.steps.len()).filter(takes).min_by_key(|stream| self.n_in_flight[*stream]) {
                return Ok(SessionEvent::NeedsBatch { stream });
            }
            if self.n_running == 0 {
                return Ok(SessionEvent::Finished);
            }
            match self.messages.as_ref().and_then(|messages| messages.recv().ok()) {
                Some(StreamMessage::Output { stream, step, layer, bytes }) => {
                    self.n_in_flight[stream] -= usize::from(layer == self.deepest);
                    self.current = bytes;
                    return Ok(SessionEvent::Output(LayerVectors {
                        step,
                        layer,
                        bytes: LayerBytes::Borrowed(&self.current),
                    }));
                }
                Some(StreamMessage::Finished { stream, result }) => {
                    result?;
                    self.steps[stream] = None;
                    self.n_running -= 1;
                }
                None => return Err(Error::internal("the thread of a stream terminated unexpectedly")),
            }
        }
    }

    fn submit(&mut self, stream: usize, step: ModelStep) -> Result<()> {
        let sent = self.steps[stream].as_ref().is_some_and(|steps| steps.send(step).is_ok());
        if sent {
            self.n_in_flight[stream] += 1;
        } else {
            // The stream has failed, and its result is in the channel.
            self.steps[stream] = None;
        }
        Ok(())
    }

    fn close(&mut self, stream: usize) {
        self.steps[stream] = None;
    }
}

impl Drop for StreamSession {
    fn drop(&mut self) {
        // Streams end when they receive no more steps, or nobody receives their outputs.
        self.steps.clear();
        self.messages = None;
        for thread in self.threads.drain(..) {
            // A panic of a stream was the error of a receive.
            let _ = thread.join();
        }
    }
}
