//! Activations that a model has yet to compute.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use actbench_kernels::{KernelError, PoolGroups};
use bytes::Bytes;

use super::{ChunkSink, SourceRequest, list};
use crate::error::{Error, Result};
use crate::model::ActivationModel;
use crate::plan::axes::Axes;
use crate::plan::batches::{Batches, Batching};
use crate::plan::fingerprint::Fingerprint;
use crate::plan::flight::{Crash, Flight, fly};
use crate::plan::mask::SequenceMask;
use crate::plan::prefix::SharedPrefixes;
use crate::plan::progress::Monitor;
use crate::plan::rules::Rule;
use crate::plan::signature::Signature;
use crate::plan::tensor::ActTensor;
use crate::tokens::TokenSet;

/// Bytes of results that one batch may hand out, unless the caller's own batch size asks for more.
const BATCH_RESULT_BYTES: usize = 8 << 20;

/// A model, the tokens to run it on and the layers to take.
pub struct ModelSource {
    model: Arc<dyn ActivationModel>,
    tokens: Arc<TokenSet>,
    batch_size: usize,
    /// `blsh`, padded to the longest of all sequences, so that selecting samples does not change `s`.
    signature: Signature,
}

impl ModelSource {
    /// Checks that the model can be run on `tokens` and has `layers`.
    ///
    /// # Errors
    /// No layer, one twice, one too deep; a batch size of 0; an empty sequence, a mask of another length, or a token
    /// that the model does not know.
    pub fn new(
        model: Arc<dyn ActivationModel>,
        tokens: Arc<TokenSet>,
        layers: &[usize],
        batch_size: usize,
    ) -> Result<Self> {
        check_tokens(model.as_ref(), &tokens, batch_size)?;
        if layers.is_empty() {
            return Err(Error::usage("collect: name at least one layer"));
        }
        if let Some(layer) = layers.iter().find(|layer| **layer >= model.n_layers()) {
            return Err(crate::model::llama::too_deep(*layer, model.n_layers()));
        }
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
        Ok(ModelSource { model, tokens, batch_size, signature })
    }

    /// Everything the model could be asked for here.
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
            "model {}: {} samples, {} tokens, layers {}, batch size {}",
            self.model.describe(),
            self.tokens.len(),
            self.tokens.n_tokens(),
            list(&self.signature.layer_ids),
            self.batch_size
        )
    }

    pub(super) fn fingerprint(&self, samples: &[usize]) -> Fingerprint {
        let mut fingerprint = Fingerprint::default();
        fingerprint.set("model", self.model.fingerprint());
        fingerprint.set_tokens(samples.iter().map(|sample| &self.tokens.sequences[*sample].ids[..]));
        fingerprint.set_mask(samples.iter().map(|sample| &self.tokens.sequences[*sample].mask[..]));
        fingerprint
    }

    /// Tokens of `samples`.
    pub(crate) fn n_tokens(&self, samples: &[usize]) -> usize {
        samples.iter().map(|sample| self.tokens.sequences[*sample].len()).sum()
    }

    /// The batches that `request` runs as: one at a time, so that memory holds one.
    pub(crate) fn batches(&self, request: &SourceRequest<'_>) -> Result<Batches<'_>> {
        let prefixes = self.prefixes(request);
        Ok(Batches::new(&self.tokens, &prefixes, self.batching(request)?))
    }

    /// The order in which samples are visited, and what each shares with the one before.
    fn prefixes(&self, request: &SourceRequest<'_>) -> SharedPrefixes {
        match request.rules.has(Rule::Packing) && request.rules.has(Rule::Prefix) {
            true => SharedPrefixes::of(&self.tokens, request.samples),
            false => SharedPrefixes::none(request.samples),
        }
    }

    /// How large batches are: as the caller asked, or less where a device has no room for as much.
    fn batching(&self, request: &SourceRequest<'_>) -> Result<Batching> {
        let rules = request.rules;
        let packed = rules.has(Rule::Packing);
        let masked_only = rules.has(Rule::Mask) && request.pool.is_some();
        let fitting = self.model.rows_that_fit()?.unwrap_or(usize::MAX).max(1);
        // A packed batch has as many rows as the largest padded one could have, so that it needs no more memory;
        // with rows shared that is many samples, of which no more are taken than results have room.
        let max_rows = self.batch_size.saturating_mul(self.signature.seq_len).min(fitting);
        let sample_bytes = request.chunk_signature(&self.signature, 1)?.sample_bytes();
        let room = BATCH_RESULT_BYTES / sample_bytes.max(1);
        Ok(match packed {
            true => Batching { max_samples: room.max(self.batch_size), max_rows, padded: false, masked_only },
            false => {
                let fitting_samples = (fitting / self.signature.seq_len.max(1)).max(1);
                let max_samples = self.batch_size.min(fitting_samples);
                Batching { max_samples, max_rows: usize::MAX, padded: true, masked_only }
            }
        })
    }

    /// Samples dealt to the lanes of the model, in the order of their visits, so that those who share rows stay together.
    fn deal(&self, request: &SourceRequest<'_>) -> Vec<Vec<usize>> {
        let prefixes = self.prefixes(request);
        let rows = |(sample, shared): (usize, usize)| self.tokens.sequences[sample].len() - shared;
        let n_lanes = self.model.lanes().max(1);
        let total: usize = prefixes.visits().map(rows).sum();
        let mut lanes = vec![Vec::new(); n_lanes];
        let mut before = 0;
        for visit in prefixes.visits() {
            lanes[(before * n_lanes / total.max(1)).min(n_lanes - 1)].push(visit.0);
            before += rows(visit);
        }
        lanes
    }

    /// The layers that `request` runs, increasing: one past the needed ones if the rule that stops there is off.
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
            let mut deliver = |samples: &[usize], chunk: ActTensor| {
                sink(samples, chunk)?;
                done.extend(samples);
                monitor.report_samples(done.len(), request.samples.len());
                Ok(())
            };
            let Err(crash) = self.pass(&request_left, batching, monitor, &mut deliver) else { return Ok(()) };
            let Some((samples, rows)) = crash.half() else { return Err(crash.error) };
            tracing::debug!(samples, rows, error = %crash.error, "batches are halved");
            match batching.padded {
                true => batching.max_samples = samples,
                false => batching.max_rows = rows,
            }
            monitor.add_halving();
            // What a batch was given of the one before is computed anew: rows have the same bits in any batch.
            left.retain(|sample| !done.contains(sample));
        }
    }

    /// Runs all samples of `request`, batch by batch; the samples of each come to `deliver` in its order.
    fn pass(
        &self,
        request: &SourceRequest<'_>,
        batching: Batching,
        monitor: &Monitor,
        deliver: &mut ChunkSink<'_>,
    ) -> std::result::Result<(), Crash> {
        let layers = self.run_layers(request);
        let lanes = self.deal(request);
        let mut lanes: Vec<Batches<'_>> = lanes
            .iter()
            .map(|samples| {
                let prefixes = self.prefixes(&SourceRequest { samples, ..*request });
                Batches::new(&self.tokens, &prefixes, batching)
            })
            .collect();
        let positions: HashMap<usize, usize> =
            request.layers.iter().enumerate().map(|(position, layer)| (*layer, position)).collect();
        let mut take = |flight: &mut Flight<Chunk>, layer: usize, rows: &[u8]| {
            let Some(position) = positions.get(&layer) else { return Ok(()) };
            let signature = request.chunk_signature(&self.signature, flight.scheduled.samples.len())?;
            check_rows(rows, flight.n_rows_out, &signature)?;
            let chunk = &mut flight.state;
            chunk.bytes.resize(signature.n_bytes(), 0);
            chunk.n_layers += 1;
            match request.pool {
                Some(_) => place(&mut chunk.bytes, &signature, *position, |sample, out| {
                    out.copy_from_slice(&rows[sample * out.len()..(sample + 1) * out.len()]);
                }),
                None => place(&mut chunk.bytes, &signature, *position, |sample, out| {
                    copy_rows(rows, &flight.scheduled.whole, sample, signature.vector_bytes(), out);
                }),
            }
            Ok(())
        };
        let mut landed = |flight: Flight<Chunk>| {
            let samples = &flight.scheduled.samples;
            if flight.state.n_layers != request.layers.len() {
                let (got, wanted) = (flight.state.n_layers, request.layers.len());
                let what = format!("{got} layers were handed out where {wanted} were asked for");
                return Err(KernelError::shape("model", what).into());
            }
            monitor.add_batch(flight.n_rows, flight.flops);
            let signature = request.chunk_signature(&self.signature, samples.len())?;
            let mask = signature.has_mask.then(|| SequenceMask::of_tokens(&self.tokens, samples, signature.seq_len));
            deliver(samples, ActTensor::from_signature(signature, mask, Bytes::from(flight.state.bytes))?)
        };
        let mut next = |lane: usize| lanes.get_mut(lane).and_then(Iterator::next);
        fly(self.model.as_ref(), &layers, request.pool, &mut next, &mut take, &mut landed)
    }
}

/// The results of a batch, while its layers come.
#[derive(Default)]
struct Chunk {
    bytes: Vec<u8>,
    n_layers: usize,
}

/// Lets `fill` write each sample's block at `layer`, a position along `l`.
fn place(bytes: &mut [u8], signature: &Signature, layer: usize, fill: impl Fn(usize, &mut [u8])) {
    let (sample_bytes, block_bytes) = (signature.sample_bytes(), signature.block_bytes());
    for (sample, bytes) in bytes.chunks_exact_mut(sample_bytes.max(1)).enumerate() {
        fill(sample, &mut bytes[layer * block_bytes..(layer + 1) * block_bytes]);
    }
}

/// Copies a sample's rows to the head of its block; the padding behind stays zero.
fn copy_rows(rows: &[u8], whole: &PoolGroups, sample: usize, len: usize, out: &mut [u8]) {
    for (row, out) in whole.rows_of(sample).iter().zip(out.chunks_exact_mut(len)) {
        out.copy_from_slice(&rows[*row as usize * len..(*row as usize + 1) * len]);
    }
}

/// Refuses a model's output of another size than the batch has.
fn check_rows(rows: &[u8], n_rows: usize, signature: &Signature) -> Result<()> {
    let expected = n_rows * signature.vector_bytes();
    if rows.len() == expected {
        return Ok(());
    }
    let what = format!("handed out {} bytes for {n_rows} rows, which are {expected}", rows.len());
    Err(KernelError::shape("model", what).into())
}

/// Checks that `model` can be run on `tokens` in batches of `batch_size`.
///
/// # Errors
/// A batch size of 0; an empty sequence, a mask of another length, or a token that the model does not know.
pub(crate) fn check_tokens(model: &dyn ActivationModel, tokens: &TokenSet, batch_size: usize) -> Result<()> {
    if batch_size == 0 {
        return Err(Error::usage("batch size 0: use at least 1"));
    }
    let vocabulary = model.vocab_size();
    for (sample, sequence) in tokens.sequences.iter().enumerate() {
        let wrong = if sequence.is_empty() {
            "it has no tokens".to_owned()
        } else if sequence.mask.len() != sequence.ids.len() {
            format!("{} tokens but {} mask flags", sequence.ids.len(), sequence.mask.len())
        } else if let Some(id) = sequence.ids.iter().find(|id| **id as usize >= vocabulary) {
            format!("token {id} is not in the model's vocabulary of {vocabulary}; use the model's own tokenizer")
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
