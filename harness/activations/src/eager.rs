//! The eager baseline: extraction without a plan. Full layers are copied to host memory and pooled there. Samples whose
//! vectors have landed are pooled, or copied to the full tensor, while the copies of the others are in flight.
//!
//! Batches are cut in the order given and padded on the right to their longest sample, as transformers pads them;
//! with causal attention padding changes no other token. As in the lazy plan, no block past the deepest layer is run, so
//! that the baseline is not slower than necessary.

mod full_tensor;

use actbench_kernels::PoolMethod;
use bytes::Bytes;
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::model::{ActivationModel, LayerBytes, check_layer};
use crate::plan::batches::{Batches, Batching, ScheduledBatch};
use crate::plan::in_flight::{InFlightBatch, run_batches};
use crate::plan::landed::{for_landed_groups, min_groups_per_task};
use crate::plan::pooling::pool_groups_in_tasks;
use crate::plan::prefix::SharedPrefixes;
use crate::plan::progress::Monitor;
use crate::plan::sources::check_tokens;
use crate::plan::{ActTensor, Axes, ExtractionStats, LargestBatch, PlanCost, ProgressSink, SequenceMask, Signature};
use crate::tokens::TokenSet;

use full_tensor::{FullTensor, out_of_memory};
pub use full_tensor::{observe_reservations, reserved_bytes};

/// Activations, and the counters of their extraction.
#[derive(Clone, Debug)]
pub struct EagerExtraction {
    /// The activations.
    pub tensor: ActTensor,
    /// Tokens asked for and computed, padding included.
    pub stats: ExtractionStats,
}

/// One layer of every sample, `[b, h]`: for each batch the layer's full `[b, s, h]` output is copied to host memory and
/// its masked positions are pooled there.
///
/// # Errors
/// A layer that the model does not have, tokens it cannot be run on, batch size 0, or a failure of the model.
pub fn extract_layer_pooled(
    model: &dyn ActivationModel,
    tokens: &TokenSet,
    layer: usize,
    batch_size: usize,
    method: PoolMethod,
    progress: Option<&ProgressSink>,
) -> Result<EagerExtraction> {
    let run = EagerRun::new(model, tokens, &[layer], batch_size, progress)?;
    let (dtype, hidden_size) = (model.dtype(), model.hidden_size());
    let vector_bytes = hidden_size * dtype.size();
    let signature = Signature { axes: Axes::BH, seq_len: 1, has_mask: false, ..run.signature(&[layer])? };
    let mut bytes = reserve(&signature)?;
    run.batches(|scheduled, _, output| {
        let out = batch_bytes(&mut bytes, scheduled, vector_bytes);
        let groups = &scheduled.masked;
        let min_groups = min_groups_per_task(groups, vector_bytes);
        for_landed_groups(output, groups, vector_bytes, &mut |samples, landed| {
            let out = &mut out[samples.start * vector_bytes..samples.end * vector_bytes];
            let group_vectors = |index: usize| {
                groups.rows_of(samples.start + index).iter().map(|token| vector(landed, *token, vector_bytes))
            };
            pool_groups_in_tasks(dtype, method, hidden_size, min_groups, group_vectors, out);
        })
    })?;
    let tensor = ActTensor::new(Axes::BH, &signature.shape(), dtype, [layer], None, Bytes::from(bytes))?;
    Ok(EagerExtraction { tensor, stats: run.monitor.stats() })
}

/// Every layer asked for, of every sample and position: the full `[b, l, s, h]` in host memory, padded with zeros.
/// [`ActTensor::pool_layer`] then selects and pools.
///
/// # Errors
/// As for [`extract_layer_pooled`], and not enough memory: all of it is reserved before the model runs.
pub fn extract_full(
    model: &dyn ActivationModel,
    tokens: &TokenSet,
    layers: &[usize],
    batch_size: usize,
    progress: Option<&ProgressSink>,
) -> Result<EagerExtraction> {
    let run = EagerRun::new(model, tokens, layers, batch_size, progress)?;
    let signature = run.signature(layers)?;
    let mut tensor = FullTensor::reserve(&signature)?;
    let (sample_bytes, block_bytes, vector_bytes) =
        (signature.sample_bytes(), signature.block_bytes(), signature.vector_bytes());
    run.batches(|scheduled, layer, output| {
        // Samples of a batch are consecutive.
        let first = scheduled.samples.first().map_or(0, |sample| sample * sample_bytes);
        let block = first..first + scheduled.samples.len() * sample_bytes;
        if layer == run.layers[0] {
            // Pages are touched batch by batch: peak memory is then that of the batches so far.
            tensor.touch(block.clone());
        }
        let Some(position) = signature.layer_position(layer) else { return output.wait().map(drop) };
        let (whole, block_tensor) = (&scheduled.whole, &mut tensor[block]);
        for_landed_groups(output, whole, vector_bytes, &mut |samples, landed| {
            let out = &mut block_tensor[samples.start * sample_bytes..samples.end * sample_bytes];
            // A single thread is slower than the copy from a device.
            out.par_chunks_exact_mut(sample_bytes).zip(samples).for_each(|(out, sample)| {
                let block = out[position * block_bytes..].chunks_exact_mut(vector_bytes);
                for (token, out) in whole.rows_of(sample).iter().zip(block) {
                    out.copy_from_slice(vector(landed, *token, vector_bytes));
                }
            });
        })
    })?;
    let samples: Vec<usize> = (0..tokens.len()).collect();
    let mask = SequenceMask::of_tokens(tokens, &samples, signature.seq_len);
    let tensor =
        ActTensor::new(Axes::BLSH, &signature.shape(), signature.dtype, layers, Some(mask), tensor.into_bytes())?;
    Ok(EagerExtraction { tensor, stats: run.monitor.stats() })
}

/// The cost of [`extract_layer_pooled`] or [`extract_full`] for `layers`, counted from the same batches without running
/// any.
///
/// # Errors
/// As for [`extract_layer_pooled`], except failures of the model.
pub fn cost(model: &dyn ActivationModel, tokens: &TokenSet, layers: &[usize], batch_size: usize) -> Result<PlanCost> {
    let run = EagerRun::new(model, tokens, layers, batch_size, None)?;
    let blocks = run.layers.last().map_or(0, |deepest| deepest + 1);
    let mut cost = PlanCost {
        samples: tokens.len() as u64,
        tokens: tokens.n_tokens() as u64,
        blocks: blocks as u64,
        ..PlanCost::default()
    };
    let vector_bytes = model.hidden_size() * model.dtype().size();
    for scheduled in batches(tokens, batch_size, &(0..tokens.len()).collect::<Vec<_>>()) {
        let n_tokens = scheduled.batch.ids.len();
        cost.tokens_computed += n_tokens as u64;
        cost.last_layer_tokens += n_tokens as u64;
        cost.batches += 1;
        cost.flops += model.flops(&scheduled.batch, blocks);
        cost.bytes_out += (n_tokens * layers.len() * vector_bytes) as u64;
        cost.largest = cost.largest.or(LargestBatch::of(&scheduled.batch, scheduled.samples.len()));
    }
    cost.streams = cost.batches.min(model.streams() as u64);
    Ok(cost)
}

/// All samples in the order given, padded to the longest of each batch.
pub fn batches<'a>(tokens: &'a TokenSet, batch_size: usize, all: &[usize]) -> Batches<'a> {
    let batching = Batching { max_samples: batch_size, max_tokens: usize::MAX, padded: true, masked_only: false };
    Batches::new(tokens, &SharedPrefixes::none(all), batching)
}

/// A pass of a model over all samples.
struct EagerRun<'a> {
    model: &'a dyn ActivationModel,
    tokens: &'a TokenSet,
    /// Increasing.
    layers: Vec<usize>,
    batch_size: usize,
    monitor: Monitor,
}

impl<'a> EagerRun<'a> {
    fn new(
        model: &'a dyn ActivationModel,
        tokens: &'a TokenSet,
        layers: &[usize],
        batch_size: usize,
        progress: Option<&ProgressSink>,
    ) -> Result<Self> {
        check_tokens(model, tokens.sequences.iter(), batch_size)?;
        if layers.is_empty() {
            return Err(Error::usage("eager extraction: name at least one layer"));
        }
        layers.iter().try_for_each(|layer| check_layer(*layer, model.n_layers()))?;
        let mut layers = layers.to_vec();
        layers.sort_unstable();
        let monitor = Monitor::reporting_to(progress.cloned());
        Ok(EagerRun { model, tokens, layers, batch_size, monitor })
    }

    /// The signature of everything, with `layers` in the caller's order.
    fn signature(&self, layers: &[usize]) -> Result<Signature> {
        let signature = Signature {
            axes: Axes::BLSH,
            n_samples: self.tokens.len(),
            layer_ids: layers.into(),
            seq_len: self.tokens.max_len(),
            hidden_size: self.model.hidden_size(),
            dtype: self.model.dtype(),
            has_mask: true,
        };
        signature.checked()
    }

    /// Runs the model batch by batch; `on_layer` receives each layer's full output, padding included, which may be
    /// landing.
    fn batches(
        &self,
        mut on_layer: impl FnMut(&ScheduledBatch, usize, &mut LayerBytes<'_>) -> Result<()>,
    ) -> Result<()> {
        self.monitor.add_tokens(self.tokens.n_tokens());
        let all: Vec<usize> = (0..self.tokens.len()).collect();
        let vector_bytes = self.model.hidden_size() * self.model.dtype().size();
        // Batches share no prefixes, so any stream can run any of them.
        let mut batches = batches(self.tokens, self.batch_size, &all);
        let mut checked = |batch: &mut InFlightBatch<()>, layer: usize, output: &mut LayerBytes<'_>| {
            let n_bytes = output.n_bytes();
            if n_bytes != batch.n_tokens * vector_bytes {
                let what = format!("emitted {n_bytes} bytes for {} tokens of {vector_bytes}", batch.n_tokens);
                return Err(actbench_kernels::KernelError::shape("model", what).into());
            }
            on_layer(&batch.scheduled, layer, output)
        };
        let mut done = 0;
        let mut on_complete = |batch: InFlightBatch<()>| {
            self.monitor.add_batch(batch.n_tokens, batch.flops);
            done += batch.scheduled.samples.len();
            self.monitor.report_samples(done, self.tokens.len());
            Ok(())
        };
        run_batches(self.model, &self.layers, None, &mut |_| batches.next(), &mut checked, &mut on_complete)
            .map_err(|failure| failure.error)
    }
}

/// The bytes of a batch's samples, which are consecutive, `sample_bytes` each. Pages are touched batch by batch.
fn batch_bytes<'a>(bytes: &'a mut Vec<u8>, scheduled: &ScheduledBatch, sample_bytes: usize) -> &'a mut [u8] {
    let first = scheduled.samples.first().map_or(0, |sample| sample * sample_bytes);
    let end = first + scheduled.samples.len() * sample_bytes;
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    &mut bytes[first..end]
}

/// Memory for all of `signature`, not yet touched.
fn reserve(signature: &Signature) -> Result<Vec<u8>> {
    let wanted = signature.n_bytes();
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(wanted).map_err(|_| out_of_memory(signature))?;
    Ok(bytes)
}

fn vector(output: &[u8], token: u32, vector_bytes: usize) -> &[u8] {
    &output[token as usize * vector_bytes..(token as usize + 1) * vector_bytes]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_reservation_names_its_bytes() {
        let signature = Signature {
            axes: Axes::BLSH,
            n_samples: 1 << 30,
            layer_ids: [0, 1].into(),
            seq_len: 1 << 20,
            hidden_size: 1 << 9,
            dtype: actbench_kernels::DType::Bf16,
            has_mask: true,
        };
        let signature = signature.checked().unwrap();
        for error in [reserve(&signature).unwrap_err(), FullTensor::reserve(&signature).err().unwrap()] {
            assert!(matches!(error, Error::OutOfMemory { bytes, .. } if bytes == 1 << 61), "{error}");
            assert!(error.to_string().contains("blsh [1073741824, 2, 1048576, 512] bf16"), "{error}");
        }
    }
}
