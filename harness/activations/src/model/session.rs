//! Batches in flight through a model: a caller submits batches and takes outputs, both one at a time.
//!
//! A session owns the prefix tokens that its batches keep for the next one, and everything in flight. Two sessions of a model
//! share nothing but weights and spare buffers.

use std::collections::VecDeque;

use super::batch::ModelStep;
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
#[derive(Clone, Copy, Debug)]
pub struct LayerVectors<'s> {
    /// The [`ModelStep::id`] of the batch.
    pub step: u64,
    /// The layer.
    pub layer: usize,
    /// Vectors one after the other, native-endian: `hidden_size` elements of the model's dtype each. There are as many as the
    /// batch has own and cached tokens ([`super::LayerOutput::Tokens`]) or groups ([`super::LayerOutput::Pooled`]).
    pub bytes: &'s [u8],
}

/// Batches in flight.
///
/// The caller repeats [`ModelSession::next`] and answers each [`SessionEvent::NeedsBatch`]. A session computes as far as it can
/// while it waits for copies. After an error it is of no more use.
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

/// Runs the steps that `next` gives for each stream of a session, and gives `sink` all outputs.
///
/// # Errors
/// Those of the session and of `sink`.
pub fn run_steps(
    session: &mut dyn ModelSession,
    next: &mut dyn FnMut(usize) -> Option<ModelStep>,
    sink: &mut dyn FnMut(LayerVectors<'_>) -> Result<()>,
) -> Result<()> {
    loop {
        match session.next()? {
            SessionEvent::NeedsBatch { stream } => match next(stream) {
                Some(step) => session.submit(stream, step)?,
                None => session.close(stream),
            },
            SessionEvent::Output(vectors) => sink(vectors)?,
            SessionEvent::Finished => return Ok(()),
        }
    }
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
            return Ok(SessionEvent::Output(LayerVectors { step: self.step, layer, bytes: &self.current }));
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
