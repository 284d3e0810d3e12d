//! Activations that a model has yet to compute.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use actbench_kernels::{KernelError, PoolGroups};
use bytes::Bytes;
use rayon::prelude::*;

use super::request::{ChunkSink, SourceRequest};
use crate::error::{Error, Result};
use crate::model::memory_model::{BATCH_RESULT_BYTES, FILLED_BATCH_RESULT_BYTES};
use crate::model::{ActivationModel, LayerBytes, check_layer};
use crate::plan::axes::Axes;
use crate::plan::batches::{Batches, Batching, ScheduledBatch};
use crate::plan::fingerprint::PlanFingerprint;
use crate::plan::in_flight::{BatchError, InFlightBatch, run_batches};
use crate::plan::landed::for_landed_groups;
use crate::plan::mask::SequenceMask;
use crate::plan::needed_tokens::NeededTokens;
use crate::plan::operation::abbreviate;
use crate::plan::prefix::SharedPrefixes;
use crate::plan::progress::Monitor;
use crate::plan::rules::Rule;
use crate::plan::signature::Signature;
use crate::plan::streams::{TokenSizes, VisitTokens, divide_evenly, divide_in_memory};
use crate::plan::tensor::ActTensor;
use crate::tokens::{JoinedTokens, TokenSequence};

/// A model, the tokens to run it on and the layers to take. Cloning shares the model and the tokens.
#[derive(Clone)]
pub struct ModelSource {
    model: Arc<dyn ActivationModel>,
    tokens: JoinedTokens,
    batch_size: usize,
    /// Whether batches on a device may be larger, as large as keep it busy.
    fills_batches: bool,
    /// `blsh`, padded to the longest of all sequences, so that selecting samples does not change `s`.
    signature: Signature,
}

impl ModelSource {
    /// Checks that the model can be run on `tokens` and has `layers`.
    ///
    /// # Errors
    /// No layer, one twice, one too deep; a batch size of 0; an empty sequence, a mask of another length, or a token
    /// outside the model's vocabulary.
    pub fn new(
        model: Arc<dyn ActivationModel>,
        tokens: impl Into<JoinedTokens>,
        layers: &[usize],
        batch_size: usize,
    ) -> Result<Self> {
        let tokens = tokens.into();
        check_tokens(model.as_ref(), tokens.sequences(), batch_size)?;
        if layers.is_empty() {
            return Err(Error::usage("collect: name at least one layer"));
        }
        layers.iter().try_for_each(|layer| check_layer(*layer, model.n_layers()))?;
        let signature = Signature {
            axes: Axes::BLSH,
            n_samples: tokens.len(),
            layer_ids: layers.into(),
            seq_len: tokens.max_len(),
            hidden_size: model.hidden_size(),
            dtype: model.dtype(),
            has_mask: true,
        };
        let signature = signature.checked()?;
        Ok(ModelSource { model, tokens, batch_size, fills_batches: false, signature })
    }

    /// The same source; with `fills_batches`, batches on a device may be larger than asked for, as large as keep it busy.
    #[must_use]
    pub fn with_filled_batches(&self, fills_batches: bool) -> Self {
        ModelSource { fills_batches, ..self.clone() }
    }

    /// The activations of all samples at all layers of this source.
    pub fn signature(&self) -> &Signature {
        &self.signature
    }

    /// Samples a batch, as the caller asked.
    pub fn batch_size(&self) -> usize {
        self.batch_size
    }

    /// The model.
    pub fn model(&self) -> &dyn ActivationModel {
        self.model.as_ref()
    }

    pub(super) fn describe(&self) -> String {
        format!(
            "model {}: {} samples, {} tokens, layers [{}], batch size {}",
            self.model.describe(),
            self.tokens.len(),
            self.tokens.n_tokens(),
            abbreviate(&self.signature.layer_ids),
            self.batch_size
        )
    }

    pub(super) fn fingerprint(&self, samples: &[usize]) -> PlanFingerprint {
        let mut fingerprint = PlanFingerprint::default();
        fingerprint.set("model", self.model.fingerprint());
        // Whole sequences, whatever the rules: a rule changes no fingerprint.
        let tokens = NeededTokens::from(&self.tokens);
        fingerprint.set_tokens(samples.iter().map(|sample| tokens.ids(*sample)));
        fingerprint.set_mask(samples.iter().map(|sample| tokens.mask(*sample)));
        fingerprint
    }

    /// Tokens of `samples`.
    pub(crate) fn n_tokens(&self, samples: &[usize]) -> usize {
        let tokens = NeededTokens::from(&self.tokens);
        samples.iter().map(|sample| tokens.len_of(*sample)).sum()
    }

    /// The tokens that `request` needs.
    fn needed(&self, request: &SourceRequest<'_>) -> NeededTokens<'_> {
        let whole = NeededTokens::from(&self.tokens);
        if request.cut_tails { whole.without_tails() } else { whole }
    }

    /// The batches of `request` in one stream, built one at a time so that memory holds one.
    pub(crate) fn batches(&self, request: &SourceRequest<'_>) -> Result<Batches<'_>> {
        let prefixes = self.prefixes(request);
        Ok(Batches::new(self.needed(request), &prefixes, self.batching(request)?))
    }

    /// The batches of each stream that runs `request`, as [`ModelSource::batches`].
    pub(crate) fn stream_batches(&self, request: &SourceRequest<'_>) -> Result<Vec<Batches<'_>>> {
        self.divided(request, self.batching(request)?)
    }

    /// The batches of each stream, of `batching` in all or, on devices, each.
    fn divided(&self, request: &SourceRequest<'_>, batching: Batching) -> Result<Vec<Batches<'_>>> {
        let (prefixes, needed) = (self.prefixes(request), self.needed(request));
        let tokens = |(sample, shared): (usize, usize)| VisitTokens { new: needed.len_of(sample) - shared, shared };
        let visits: Vec<VisitTokens> = prefixes.visits().map(tokens).collect();
        let n_streams = self.model.streams();
        let in_memory = self.model.filled_batch_tokens()?.is_none();
        let (streams, batching) = if in_memory {
            let sizes = TokenSizes { longest: self.signature.seq_len, vector_bytes: self.signature.vector_bytes() };
            divide_in_memory(&visits, n_streams, batching, sizes)
        } else {
            (divide_evenly(&visits, n_streams), batching)
        };
        if streams.len() == 1 {
            return Ok(vec![Batches::new(needed, &prefixes, batching)]);
        }
        let order: Vec<usize> = prefixes.visits().map(|(sample, _)| sample).collect();
        let of_stream = |visits: Range<usize>| {
            let own = self.prefixes(&SourceRequest { samples: &order[visits], ..*request });
            Batches::new(needed, &own, batching)
        };
        Ok(streams.into_iter().map(of_stream).collect())
    }

    /// The order in which samples are visited, and what each shares with the one before.
    fn prefixes(&self, request: &SourceRequest<'_>) -> SharedPrefixes {
        if request.rules.has(Rule::Packing) && request.rules.has(Rule::Prefix) {
            SharedPrefixes::of(self.needed(request), request.samples)
        } else {
            SharedPrefixes::none(request.samples)
        }
    }

    /// How large batches are: as the caller asked, larger if that fills a device, or smaller if a device has less memory.
    fn batching(&self, request: &SourceRequest<'_>) -> Result<Batching> {
        let rules = request.rules;
        let masked_only = rules.has(Rule::Mask) && request.pool.is_some();
        let capacity = self.model.release_and_measure_capacity()?.unwrap_or(usize::MAX).max(1);
        if !rules.has(Rule::Packing) {
            let capacity_samples = (capacity / self.signature.seq_len.max(1)).max(1);
            let max_samples = self.batch_size.min(capacity_samples);
            return Ok(Batching { max_samples, max_tokens: usize::MAX, padded: true, masked_only });
        }
        // A packed batch has as many tokens as the largest padded one could have, so that it needs no more memory. With
        // shared prefixes those are the tokens of many samples, whose results are limited in bytes.
        let requested = self.batch_size.saturating_mul(self.signature.seq_len);
        let filled = if self.fills_batches { self.model.filled_batch_tokens()? } else { None };
        let max_tokens = filled.map_or(requested, |tokens| requested.max(tokens)).min(capacity);
        let sample_bytes = request.chunk_signature(&self.signature, 1)?.sample_bytes();
        let result_bytes = if filled.is_some() { FILLED_BATCH_RESULT_BYTES } else { BATCH_RESULT_BYTES };
        let max_results = result_bytes as usize / sample_bytes.max(1);
        Ok(Batching { max_samples: max_results.max(self.batch_size), max_tokens, padded: false, masked_only })
    }

    /// The layers that are run for `request`, increasing; without the rule `depth` the model's last layer is among them.
    pub(crate) fn run_layers(&self, request: &SourceRequest<'_>) -> Vec<usize> {
        let mut layers = request.layers.to_vec();
        if !request.rules.has(Rule::Depth) {
            layers.push(self.model.n_layers() - 1);
        }
        layers.sort_unstable();
        layers.dedup();
        layers
    }

    pub(super) fn visit(&self, request: &SourceRequest<'_>, monitor: &Monitor, sink: &mut ChunkSink<'_>) -> Result<()> {
        if request.samples.is_empty() {
            return Ok(());
        }
        monitor.add_tokens(self.n_tokens(request.samples));
        let mut batching = self.batching(request)?;
        let mut done: HashSet<usize> = HashSet::new();
        let mut left = request.samples.to_vec();
        loop {
            let request_left = SourceRequest { samples: &left, ..*request };
            let mut emit = |samples: &[usize], chunk: ActTensor| {
                sink(samples, chunk)?;
                done.extend(samples);
                monitor.report_samples(done.len(), request.samples.len());
                Ok(())
            };
            let Err(failure) = self.run(&request_left, batching, monitor, &mut emit) else { return Ok(()) };
            let Some((samples, tokens)) = failure.half() else { return Err(failure.error) };
            tracing::debug!(samples, tokens, error = %failure.error, "batches are halved");
            if batching.padded {
                batching.max_samples = samples;
            } else {
                batching.max_tokens = tokens;
            }
            monitor.add_halving();
            // Prefix tokens cached from batches that succeeded are computed again. A token has the same bits in any batch.
            left.retain(|sample| !done.contains(sample));
        }
    }

    /// Runs all samples of `request`, batch by batch, and emits the samples of each batch in its order.
    fn run(
        &self,
        request: &SourceRequest<'_>,
        batching: Batching,
        monitor: &Monitor,
        emit: &mut ChunkSink<'_>,
    ) -> std::result::Result<(), BatchError> {
        let layers = self.run_layers(request);
        let mut streams = self.divided(request, batching)?;
        let positions: HashMap<usize, usize> =
            request.layers.iter().enumerate().map(|(position, layer)| (*layer, position)).collect();
        let mut on_layer = |batch: &mut InFlightBatch<BatchResults>, layer: usize, vectors: &mut LayerBytes<'_>| {
            let Some(position) = positions.get(&layer) else { return vectors.wait().map(drop) };
            let signature = request.chunk_signature(&self.signature, batch.scheduled.samples.len())?;
            check_output(vectors.n_bytes(), batch.n_vectors, &signature)?;
            let results = &mut batch.state;
            if results.n_layers == 0 {
                // Zeros of the system, which are not written twice: almost all of them are overwritten, by several threads.
                results.bytes = vec![0; signature.n_bytes()];
            }
            results.n_layers += 1;
            match request.pool {
                Some(_) => {
                    let vectors = vectors.wait()?;
                    fill_blocks(&mut results.bytes, &signature, *position, |sample, block| {
                        block.copy_from_slice(&vectors[sample * block.len()..(sample + 1) * block.len()]);
                    });
                }
                None => {
                    let (whole, len) = (&batch.scheduled.whole, signature.vector_bytes());
                    let sample_bytes = signature.sample_bytes();
                    for_landed_groups(vectors, whole, len, &mut |samples, landed| {
                        let bytes = &mut results.bytes[samples.start * sample_bytes..samples.end * sample_bytes];
                        fill_blocks(bytes, &signature, *position, |index, block| {
                            copy_positions(landed, whole, samples.start + index, len, block);
                        });
                    })?;
                }
            }
            Ok(())
        };
        let mut on_complete = |batch: InFlightBatch<BatchResults>| {
            let ScheduledBatch { samples, .. } = &batch.scheduled;
            if batch.state.n_layers != request.layers.len() {
                let what = format!("emitted {} of {} layers", batch.state.n_layers, request.layers.len());
                return Err(KernelError::shape("model", what).into());
            }
            monitor.add_batch(batch.n_tokens, batch.flops);
            let signature = request.chunk_signature(&self.signature, samples.len())?;
            let mask = signature.has_mask.then(|| SequenceMask::of_tokens(&self.tokens, samples, signature.seq_len));
            emit(samples, ActTensor::from_signature(signature, mask, Bytes::from(batch.state.bytes))?)
        };
        let mut next = |stream: usize| streams.get_mut(stream).and_then(Iterator::next);
        run_batches(self.model.as_ref(), &layers, request.pool, &mut next, &mut on_layer, &mut on_complete)
    }
}

/// The results of a batch, filled layer by layer.
#[derive(Default)]
struct BatchResults {
    bytes: Vec<u8>,
    n_layers: usize,
}

/// Bytes that one thread fills at least: for fewer, waking another thread takes longer.
const MIN_BYTES_PER_TASK: usize = 256 << 10;

/// Calls `fill` with each sample's block at `layer`, a position along `l`, from several threads if there is much to fill.
fn fill_blocks(bytes: &mut [u8], signature: &Signature, layer: usize, fill: impl Fn(usize, &mut [u8]) + Sync) {
    let (sample_bytes, block_bytes) = (signature.sample_bytes(), signature.block_bytes());
    let samples_per_task = MIN_BYTES_PER_TASK.div_ceil(block_bytes.max(1));
    let samples = bytes.par_chunks_exact_mut(sample_bytes.max(1)).enumerate().with_min_len(samples_per_task);
    samples.for_each(|(sample, bytes)| fill(sample, &mut bytes[layer * block_bytes..(layer + 1) * block_bytes]));
}

/// Copies a sample's vectors, of `len` bytes each, to the start of its block; the padding at the end stays zero.
fn copy_positions(vectors: &[u8], whole: &PoolGroups, sample: usize, len: usize, block: &mut [u8]) {
    for (token, out) in whole.rows_of(sample).iter().zip(block.chunks_exact_mut(len)) {
        out.copy_from_slice(&vectors[*token as usize * len..(*token as usize + 1) * len]);
    }
}

/// Refuses a model's output of another size than the batch has.
fn check_output(n_bytes: usize, n_vectors: usize, signature: &Signature) -> Result<()> {
    let expected = n_vectors * signature.vector_bytes();
    if n_bytes == expected {
        return Ok(());
    }
    let what = format!("emitted {n_bytes} bytes for {n_vectors} vectors of {expected} bytes in all");
    Err(KernelError::shape("model", what).into())
}

/// Checks that `model` can be run on `sequences` in batches of `batch_size`.
///
/// # Errors
/// A batch size of 0; an empty sequence, a mask of another length, or a token outside the model's vocabulary.
pub(crate) fn check_tokens<'a>(
    model: &dyn ActivationModel,
    sequences: impl Iterator<Item = &'a TokenSequence>,
    batch_size: usize,
) -> Result<()> {
    if batch_size == 0 {
        return Err(Error::usage("batch size 0: use at least 1"));
    }
    let vocab_size = model.vocab_size();
    for (sample, sequence) in sequences.enumerate() {
        let wrong = if sequence.is_empty() {
            "it has no tokens".to_owned()
        } else if sequence.mask.len() != sequence.ids.len() {
            format!("{} tokens but {} mask flags", sequence.ids.len(), sequence.mask.len())
        } else if let Some(id) = sequence.ids.iter().find(|id| **id as usize >= vocab_size) {
            format!("token {id} is not in the model's vocabulary of {vocab_size}; use the model's own tokenizer")
        } else {
            continue;
        };
        return Err(Error::usage(format!("sample {sample}: {wrong}")));
    }
    Ok(())
}

impl fmt::Debug for ModelSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelSource")
            .field("model", &self.model.describe())
            .field("signature", &self.signature)
            .field("batch_size", &self.batch_size)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use actbench_kernels::DType;

    use super::*;

    #[test]
    fn blocks_of_all_samples_are_filled_at_their_layer() {
        // Blocks of less than a task and of more than one.
        for seq_len in [2, 3 * MIN_BYTES_PER_TASK / 8] {
            let signature = Signature {
                axes: Axes::BLSH,
                n_samples: 5,
                layer_ids: [4, 7, 9].into(),
                seq_len,
                hidden_size: 2,
                dtype: DType::F32,
                has_mask: true,
            };
            let signature = signature.checked().unwrap();
            let mut bytes = vec![0; signature.n_bytes()];
            fill_blocks(&mut bytes, &signature, 1, |sample, block| block.fill(sample as u8 + 1));
            let blocks: Vec<&[u8]> = bytes.chunks(signature.block_bytes()).collect();
            assert_eq!(blocks.len(), 15);
            for (index, block) in blocks.into_iter().enumerate() {
                let expected = if index % 3 == 1 { index as u8 / 3 + 1 } else { 0 };
                assert!(block.len() == 8 * seq_len && block.iter().all(|byte| *byte == expected), "{index}");
            }
        }
    }
}
