//! Activations in memory as the source of a plan.

use std::ops::Range;
use std::sync::OnceLock;

use super::assemble::{assemble, samples_per_chunk};
use super::request::{ChunkSink, SourceRequest};
use crate::error::Result;
use crate::plan::axes::Axis;
use crate::plan::fingerprint::{PlanFingerprint, hash_samples};
use crate::plan::operation::BatchSelection;
use crate::plan::progress::Monitor;
use crate::plan::signature::Signature;
use crate::plan::tensor::{ActTensor, digest};

/// A tensor as the start of a plan.
#[derive(Debug)]
pub struct TensorSource {
    tensor: ActTensor,
    /// Computed once and on demand: reading all of a large tensor takes a while.
    digest: OnceLock<String>,
}

impl TensorSource {
    /// Starts from `tensor`.
    pub fn new(tensor: ActTensor) -> Self {
        TensorSource { tensor, digest: OnceLock::new() }
    }

    /// The tensor's signature.
    pub fn signature(&self) -> &Signature {
        self.tensor.signature()
    }

    pub(super) fn fingerprint(&self, samples: &[usize]) -> PlanFingerprint {
        let digest = self.digest.get_or_init(|| digest(&self.tensor));
        let mut fingerprint = PlanFingerprint::default();
        fingerprint.set("model", format!("none, tensor {digest}"));
        fingerprint.set("tokens", hash_samples("tensor", samples));
        let mask = self.tensor.mask().map(|mask| mask.select(samples));
        fingerprint.set_mask(samples.iter().enumerate().map(|(index, _)| match &mask {
            Some(mask) => mask.row(index),
            None => &[],
        }));
        fingerprint
    }

    pub(super) fn visit(&self, request: &SourceRequest<'_>, monitor: &Monitor, sink: &mut ChunkSink<'_>) -> Result<()> {
        let signature = self.tensor.signature();
        let positions: Vec<usize> = if signature.axes.has(Axis::Layer) {
            request.layers.iter().filter_map(|id| signature.layer_position(*id)).collect()
        } else {
            vec![0]
        };
        let one_sample = request.unpooled_signature(signature, 1);
        let mut done = 0;
        for samples in request.samples.chunks(samples_per_chunk(&one_sample)) {
            let mask = self.tensor.mask().map(|mask| mask.select(samples));
            let block = |sample: usize, layer: usize| self.tensor.block(samples[sample], positions[layer]);
            sink(samples, assemble(one_sample.with_samples(samples.len()), request, mask, block)?)?;
            done += samples.len();
            monitor.report_samples(done, request.samples.len());
        }
        Ok(())
    }

    pub(super) fn view(&self, layers: &[usize], range: Range<usize>) -> Result<Option<ActTensor>> {
        if *layers != *self.tensor.layer_ids() {
            return Ok(None);
        }
        let range = BatchSelection::Range { start: Some(range.start as i64), end: Some(range.end as i64) };
        self.tensor.slice_batch(range).map(Some)
    }
}
