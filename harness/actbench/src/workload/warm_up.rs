//! Prepares a GPU for the batches of a case before the clock starts: memory pools grow and pinned buffers are allocated once in
//! a process, and the first batch would wait for them.

use std::sync::Arc;

use super::extract::{Extraction, plan};
use super::prepare::{LabeledTokens, Prepared};
use crate::case::Method;
use crate::error::{Error, Result};
use actbench_activations::model::{ActivationModel, ModelStep, StepOutput, TokenBatch, run_steps};
use actbench_activations::tokens::TokenSequence;
use actbench_kernels::{KernelError, PoolGroups};

/// Runs one token through the blocks up to the deepest of `layers` on each device, resets the counters of the devices, and
/// reserves the memory of the first batch. Nothing is kept but spare memory, so no result depends on it. A model in host memory
/// is left alone.
///
/// # Errors
/// A failure of a device other than too little memory, after which the extraction itself takes smaller batches, or fails.
pub(super) fn warm_up(
    model: &Arc<dyn ActivationModel>,
    method: Method,
    prepared: &Prepared,
    layers: &[usize],
    options: Extraction<'_>,
) -> Result<()> {
    if model.device_usage()?.is_some() {
        unless_out_of_memory(run_token(model.as_ref(), prepared, layers, options))?;
    }
    // After the token, which must not count, and before the reservation, as unused memory is released.
    model.reset_device_usage()?;
    if model.device_usage()?.is_some() {
        let tokens = match method {
            Method::Eager => {
                [&prepared.train, &prepared.test].map(|side| padded_tokens(side, options)).into_iter().max()
            }
            Method::Lazy | Method::LazyDisk => {
                let first = plan(model, prepared.all_tokens(), layers, options)?.first_batches(1)?;
                first.first().map(|scheduled| scheduled.batch.ids.len())
            }
        };
        unless_out_of_memory(model.reserve(tokens.unwrap_or_default()))?;
    }
    Ok(())
}

/// Runs the first token of the first sample, once for each stream of batches.
fn run_token(
    model: &dyn ActivationModel,
    prepared: &Prepared,
    layers: &[usize],
    options: Extraction<'_>,
) -> Result<()> {
    let Some(sequence) = prepared.train.tokens.sequences.first() else { return Ok(()) };
    let mut layers = layers.to_vec();
    layers.sort_unstable();
    let mut left = vec![true; model.streams()];
    let mut next = |stream: usize| {
        let is_first = left.get_mut(stream).is_some_and(std::mem::take);
        is_first.then(|| {
            let mut groups = PoolGroups::new();
            groups.push([0]);
            let output = StepOutput::Pooled { groups, last_layer_groups: None, method: options.pool };
            ModelStep { id: stream as u64, batch: TokenBatch::of_sequences([&sequence.ids[..1]]), output }
        })
    };
    run_steps(model.session(&layers)?.as_mut(), &mut next, &mut |mut vectors| vectors.bytes.wait().map(drop))
}

/// The tokens of the largest padded batch of `side`.
fn padded_tokens(side: &LabeledTokens, options: Extraction<'_>) -> usize {
    let longest = |batch: &[TokenSequence]| batch.iter().map(TokenSequence::len).max().unwrap_or(0);
    let batches = side.tokens.sequences.chunks(options.batch_size.max(1));
    batches.map(|batch| batch.len() * longest(batch)).max().unwrap_or(0)
}

/// `result` without an error for too little memory.
fn unless_out_of_memory(result: Result<()>) -> Result<()> {
    match result {
        Err(Error::Kernel(KernelError::OutOfMemory { .. })) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actbench_activations::plan::Rules;
    use actbench_activations::tokens::TokenSet;

    #[test]
    fn largest_padded_batch_is_reserved() {
        let sequence = |len: usize| TokenSequence { ids: vec![0; len], mask: vec![true; len] };
        let sequences = [3, 5, 2, 9].map(sequence).to_vec();
        let side = LabeledTokens { tokens: Arc::new(TokenSet { sequences }), ..LabeledTokens::default() };
        let pool = actbench_kernels::PoolMethod::Mean;
        let options = |batch_size| Extraction {
            batch_size,
            fill_batches: true,
            pool,
            rules: Rules::all(),
            cache_directory: None,
        };
        assert_eq!([1, 2, 3, 8].map(|batch_size| padded_tokens(&side, options(batch_size))), [9, 18, 15, 36]);
        assert_eq!(padded_tokens(&LabeledTokens::default(), options(8)), 0);
    }

    #[test]
    fn only_too_little_memory_is_passed_over() {
        let kernel = |error: KernelError| unless_out_of_memory(Err(Error::Kernel(error)));
        assert!(kernel(KernelError::OutOfMemory { op: "alloc", bytes: 1, device: "a GPU".to_owned() }).is_ok());
        assert!(kernel(KernelError::shape("model", "wrong")).is_err() && unless_out_of_memory(Ok(())).is_ok());
    }
}
