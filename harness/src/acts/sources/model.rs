//! Activations that a model has yet to compute.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use actbench_kernels::{KernelError, PoolGroups};
use bytes::Bytes;

use super::{ChunkSink, SourceRequest, list};
use crate::acts::axes::Axes;
use crate::acts::batches::{Batches, Batching, ScheduledBatch};
use crate::acts::fingerprint::Fingerprint;
use crate::acts::mask::SequenceMask;
use crate::acts::prefix::SharedPrefixes;
use crate::acts::progress::Monitor;
use crate::acts::rules::Rule;
use crate::acts::signature::Signature;
use crate::acts::tensor::ActTensor;
use crate::error::{Error, Result};
use crate::model::{ActivationModel, LayerOutput};
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
        let rules = request.rules;
        let packed = rules.has(Rule::Packing);
        let prefixes = match packed && rules.has(Rule::Prefix) {
            true => SharedPrefixes::of(&self.tokens, request.samples),
            false => SharedPrefixes::none(request.samples),
        };
        let masked_only = rules.has(Rule::Mask) && request.pool.is_some();
        // A packed batch has as many rows as the largest padded one could have, so that it needs no more memory;
        // with rows shared that is many samples, of which no more are taken than results have room.
        let max_rows = self.batch_size.saturating_mul(self.signature.seq_len);
        let sample_bytes = request.chunk_signature(&self.signature, 1)?.sample_bytes();
        let room = BATCH_RESULT_BYTES / sample_bytes.max(1);
        let batching = match packed {
            true => Batching { max_samples: room.max(self.batch_size), max_rows, padded: false, masked_only },
            false => Batching { max_samples: self.batch_size, max_rows: usize::MAX, padded: true, masked_only },
        };
        Ok(Batches::new(&self.tokens, &prefixes, batching))
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
        let layers = self.run_layers(request);
        let mut done = 0;
        for scheduled in self.batches(request)? {
            let chunk = self.run(&scheduled, request, &layers)?;
            let n_blocks = layers.last().map_or(0, |deepest| deepest + 1);
            monitor.add_batch(scheduled.batch.ids.len(), self.model.flops(&scheduled.batch, n_blocks));
            sink(&scheduled.samples, chunk)?;
            done += scheduled.samples.len();
            monitor.report_samples(done, request.samples.len());
        }
        Ok(())
    }

    /// Runs one batch; the samples that end in it come back, in its order.
    fn run(&self, scheduled: &ScheduledBatch, request: &SourceRequest<'_>, layers: &[usize]) -> Result<ActTensor> {
        let signature = request.chunk_signature(&self.signature, scheduled.samples.len())?;
        let positions: HashMap<usize, usize> =
            request.layers.iter().enumerate().map(|(position, layer)| (*layer, position)).collect();
        let mut bytes = vec![0; signature.n_bytes()];
        let whole = &scheduled.whole;
        let (output, n_rows) = match request.pool {
            Some(method) => {
                let deepest_groups = scheduled.masked_deepest.as_ref();
                let output = LayerOutput::Pooled { groups: &scheduled.masked, deepest_groups, method };
                (output, scheduled.masked.len())
            }
            None => (LayerOutput::Rows, scheduled.batch.ids.len() + scheduled.batch.n_carried),
        };
        let mut handed_out = 0;
        self.model.run(&scheduled.batch, layers, output, &mut |layer, rows| {
            let Some(position) = positions.get(&layer) else { return Ok(()) };
            check_rows(rows, n_rows, &signature)?;
            handed_out += 1;
            match request.pool {
                Some(_) => place(&mut bytes, &signature, *position, |sample, out| {
                    out.copy_from_slice(&rows[sample * out.len()..(sample + 1) * out.len()]);
                }),
                None => place(&mut bytes, &signature, *position, |sample, out| {
                    copy_rows(rows, whole, sample, signature.vector_bytes(), out);
                }),
            }
            Ok(())
        })?;
        if handed_out != request.layers.len() {
            let what = format!("{handed_out} layers were handed out where {} were asked for", request.layers.len());
            return Err(KernelError::shape("model", what).into());
        }
        let mask =
            signature.has_mask.then(|| SequenceMask::of_tokens(&self.tokens, &scheduled.samples, signature.seq_len));
        ActTensor::from_signature(signature, mask, Bytes::from(bytes))
    }
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
