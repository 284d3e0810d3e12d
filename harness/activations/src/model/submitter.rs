//! Runs a model's steps with two threads: one submits work to the device, and the caller's consumes outputs as their copies
//! land.
//!
//! On one thread, reading an output would keep the next blocks from being submitted, and submitting them would keep copies
//! that have landed waiting.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use super::activation_model::ActivationModel;
use super::batch::ModelStep;
use super::memory_model::MAX_PENDING_COPIES;
use super::session::{LayerVectors, SessionEvent, run_steps};
use super::threads::spawn_scoped;
use crate::error::Result;

/// Gives the steps of a stream, in order.
pub type NextStep<'a> = dyn FnMut(usize) -> Option<ModelStep> + Send + 'a;

/// Runs the steps that `next` gives for each stream of `model`, and gives `sink`, on the calling thread, all outputs of
/// `layers`. On a device, steps are submitted by another thread, which also calls `next`. After a failure of the session
/// `sink` still receives the outputs before it.
///
/// # Errors
/// Those of `sink`, of the model and of copies.
pub fn run_submitted(
    model: &dyn ActivationModel,
    layers: &[usize],
    next: &mut NextStep<'_>,
    sink: &mut dyn FnMut(LayerVectors<'_>) -> Result<()>,
) -> Result<()> {
    // A rayon thread that waits for the submitter would not run the tasks that the submitter may wait for.
    let is_on_device = model.device_usage()?.is_some();
    if !is_on_device || rayon::current_thread_index().is_some() {
        return run_steps(model.session(layers)?.as_mut(), next, sink);
    }
    // One copy in the channel, one that the submitter is about to send, and the one that is read.
    let (sender, outputs) = sync_channel(MAX_PENDING_COPIES - 1);
    let is_stopped = AtomicBool::new(false);
    thread::scope(|scope| {
        // Dropped on every way out, a panic included, so that the submitter does not wait for a receiver.
        let outputs = outputs;
        let submit = || submit_steps(model, layers, next, sender, &is_stopped);
        let submitter = spawn_scoped(scope, "submitter", submit)?;
        let consumed = outputs.iter().try_for_each(&mut *sink);
        is_stopped.store(true, Ordering::Relaxed);
        drop(outputs);
        let submitted = submitter.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        // An error of the sink comes first: a caller repeats work after some errors of a session.
        consumed.and(submitted)
    })
}

/// Runs a session of `model` until there are no more steps, or its outputs have no receiver.
fn submit_steps(
    model: &dyn ActivationModel,
    layers: &[usize],
    next: &mut NextStep<'_>,
    outputs: SyncSender<LayerVectors<'static>>,
    is_stopped: &AtomicBool,
) -> Result<()> {
    let mut session = model.session(layers)?;
    while !is_stopped.load(Ordering::Relaxed) {
        match session.next()? {
            SessionEvent::NeedsBatch { stream } => match next(stream) {
                Some(step) => session.submit(stream, step)?,
                None => session.close(stream),
            },
            SessionEvent::Output(vectors) => {
                if outputs.send(vectors.into_owned()).is_err() {
                    break;
                }
            }
            SessionEvent::Finished => break,
        }
    }
    Ok(())
}
