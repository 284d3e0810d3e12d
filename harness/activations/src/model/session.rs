//! Batches in flight through a model: a caller submits batches and takes outputs, both one at a time.
//!
//! A session owns the prefix tokens that its batches keep for the next one, and everything in flight but the outputs that it
//! has handed over. Two sessions of a model share nothing but weights and spare buffers.

use std::collections::VecDeque;
use std::fmt;

use actbench_kernels::PendingCopy;

use super::batch::ModelStep;
use super::memory_model::MAX_PENDING_COPIES;
use crate::error::Result;

/// What a session has for its caller.
#[derive(Debug)]
pub enum SessionEvent<'s> {
    /// A stream takes another batch: the caller submits one to it, or closes it.
    NeedsBatch {
        /// The stream.
        stream: usize,
    },
    /// A layer's output.
    Output(LayerVectors<'s>),
    /// All streams are closed, and every output was given.
    Finished,
}

/// The output of a layer of a batch: the layers of a batch come in increasing order, and the batches of a stream in the order in
/// which they were submitted.
#[derive(Debug)]
pub struct LayerVectors<'s> {
    /// The [`ModelStep::id`] of the batch.
    pub step: u64,
    /// The layer.
    pub layer: usize,
    /// Vectors one after the other, native-endian: `hidden_size` elements of the model's dtype each. There are as many as the
    /// batch has own and cached tokens ([`super::LayerOutput::Tokens`]) or groups ([`super::LayerOutput::Pooled`]).
    pub bytes: LayerBytes<'s>,
}

/// The bytes of a layer's output.
pub enum LayerBytes<'s> {
    /// In a buffer of the session.
    Borrowed(&'s [u8]),
    /// In memory of their own.
    Owned(Vec<u8>),
    /// A copy that may be in flight. It has memory of the device until all of it has landed, so a caller holds at most
    /// [`MAX_PENDING_COPIES`] of them and the one that it reads.
    Pending(Box<dyn PendingCopy>),
}

impl LayerBytes<'_> {
    /// The number of all bytes, landed or not.
    pub fn n_bytes(&self) -> usize {
        match self {
            LayerBytes::Borrowed(bytes) => bytes.len(),
            LayerBytes::Owned(bytes) => bytes.len(),
            LayerBytes::Pending(copy) => copy.n_bytes(),
        }
    }

    /// Waits until the first `n_bytes` bytes have landed, and returns all that have landed: the first ones, at least as many.
    ///
    /// # Errors
    /// A failure of the device.
    pub fn wait_for(&mut self, n_bytes: usize) -> Result<&[u8]> {
        match self {
            LayerBytes::Borrowed(bytes) => Ok(bytes),
            LayerBytes::Owned(bytes) => Ok(bytes),
            LayerBytes::Pending(copy) => Ok(copy.wait_for(n_bytes)?),
        }
    }

    /// Waits for all bytes.
    ///
    /// # Errors
    /// A failure of the device.
    pub fn wait(&mut self) -> Result<&[u8]> {
        self.wait_for(self.n_bytes())
    }
}

impl LayerVectors<'_> {
    /// The same output without a borrow of the session: bytes in a buffer of the session are copied.
    pub(in crate::model) fn into_owned(self) -> LayerVectors<'static> {
        let LayerVectors { step, layer, bytes } = self;
        let bytes = match bytes {
            LayerBytes::Borrowed(bytes) => LayerBytes::Owned(bytes.to_vec()),
            LayerBytes::Owned(bytes) => LayerBytes::Owned(bytes),
            LayerBytes::Pending(copy) => LayerBytes::Pending(copy),
        };
        LayerVectors { step, layer, bytes }
    }
}

impl fmt::Debug for LayerBytes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_pending = matches!(self, LayerBytes::Pending(_));
        write!(f, "{} bytes{}", self.n_bytes(), if is_pending { ", pending" } else { "" })
    }
}

/// Batches in flight.
///
/// The caller repeats [`ModelSession::next`] and answers each [`SessionEvent::NeedsBatch`]. Outputs are handed over while their
/// copies are in flight, so that the caller decides on which thread it waits for them. After an error a session is of no more
/// use.
pub trait ModelSession {
    /// Computes until there is an output, or a stream takes another batch.
    ///
    /// # Errors
    /// A failure of the device.
    fn next(&mut self) -> Result<SessionEvent<'_>>;

    /// Gives `step` to the stream that [`SessionEvent::NeedsBatch`] named. Its cached tokens are those that the batch before of the
    /// same stream was asked to keep.
    ///
    /// # Errors
    /// A batch that the model cannot run: a token, a position or cached tokens that it does not have.
    fn submit(&mut self, stream: usize, step: ModelStep) -> Result<()>;

    /// The stream has no more batches.
    fn close(&mut self, stream: usize);
}

/// Runs the steps that `next` gives for each stream of a session, and gives `sink` all outputs, on the calling thread. Copies
/// are in flight while later blocks are submitted, as many as [`MAX_PENDING_COPIES`]. After a failure of the session `sink`
/// still receives the outputs before it.
///
/// # Errors
/// Those of `sink`, of the session and of copies.
pub fn run_steps(
    session: &mut dyn ModelSession,
    next: &mut dyn FnMut(usize) -> Option<ModelStep>,
    sink: &mut dyn FnMut(LayerVectors<'_>) -> Result<()>,
) -> Result<()> {
    let mut pending = VecDeque::new();
    let submitted = loop {
        match session.next() {
            Ok(SessionEvent::NeedsBatch { stream }) => match next(stream).map(|step| session.submit(stream, step)) {
                Some(Ok(())) => {}
                Some(Err(error)) => break Err(error),
                None => session.close(stream),
            },
            Ok(SessionEvent::Output(LayerVectors { step, layer, bytes: LayerBytes::Pending(copy) })) => {
                pending.push_back(LayerVectors { step, layer, bytes: LayerBytes::Pending(copy) });
                if pending.len() > MAX_PENDING_COPIES
                    && let Some(oldest) = pending.pop_front()
                {
                    sink(oldest)?;
                }
            }
            Ok(SessionEvent::Output(vectors)) => {
                pending.drain(..).try_for_each(&mut *sink)?;
                sink(vectors)?;
            }
            Ok(SessionEvent::Finished) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    // An error of the sink comes first: a caller repeats work after some errors of a session.
    pending.into_iter().try_for_each(sink)?;
    submitted
}

/// A layer with its vectors.
pub type ComputedLayer = (usize, Vec<u8>);

/// A session of a model that computes all layers of a step at once, without overlap.
pub struct StepwiseSession<F> {
    run: F,
    n_streams: usize,
    /// The stream whose batches are run.
    stream: usize,
    step: u64,
    left: VecDeque<ComputedLayer>,
    current: Vec<u8>,
}

impl<F: FnMut(&ModelStep) -> Result<Vec<ComputedLayer>>> StepwiseSession<F> {
    /// A session that computes steps by `run`, one stream after the other.
    pub fn new(n_streams: usize, run: F) -> Self {
        StepwiseSession { run, n_streams, stream: 0, step: 0, left: VecDeque::new(), current: Vec::new() }
    }
}

impl<F: FnMut(&ModelStep) -> Result<Vec<ComputedLayer>>> ModelSession for StepwiseSession<F> {
    fn next(&mut self) -> Result<SessionEvent<'_>> {
        if let Some((layer, bytes)) = self.left.pop_front() {
            self.current = bytes;
            return Ok(SessionEvent::Output(LayerVectors {
                step: self.step,
                layer,
                bytes: LayerBytes::Borrowed(&self.current),
            }));
        }
        if self.stream < self.n_streams {
            return Ok(SessionEvent::NeedsBatch { stream: self.stream });
        }
        Ok(SessionEvent::Finished)
    }

    fn submit(&mut self, _stream: usize, step: ModelStep) -> Result<()> {
        self.left = (self.run)(&step)?.into();
        self.step = step.id;
        Ok(())
    }

    fn close(&mut self, _stream: usize) {
        self.stream += 1;
    }
}
