//! The request that every source answers.

use actbench_kernels::PoolMethod;

use crate::error::Result;
use crate::plan::axes::Axis;
use crate::plan::operation::Operation;
use crate::plan::rules::Rules;
use crate::plan::signature::Signature;
use crate::plan::tensor::ActTensor;

/// A part of a source, and how the source is to pool it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SourceRequest<'a> {
    /// Distinct samples of the source.
    pub(crate) samples: &'a [usize],
    /// Layers by number, in the order wanted; the source's own where it has no axis `l`.
    pub(crate) layers: &'a [usize],
    /// Pool axis `s` by this method.
    pub(crate) pool: Option<PoolMethod>,
    /// Leave out the tokens after a sample's last masked one: nothing reads their activations.
    pub(crate) cut_tails: bool,
    /// The rules that are on.
    pub(crate) rules: Rules,
}

impl SourceRequest<'_> {
    /// The signature of `n_samples` samples before they are pooled.
    pub(super) fn unpooled_signature(&self, source: &Signature, n_samples: usize) -> Signature {
        Signature { layer_ids: self.layers.into(), ..source.with_samples(n_samples) }
    }

    /// The signature of `n_samples` samples as they are emitted.
    pub(super) fn chunk_signature(&self, source: &Signature, n_samples: usize) -> Result<Signature> {
        let unpooled = self.unpooled_signature(source, n_samples);
        match self.pool {
            Some(method) => unpooled.after(&Operation::Pool { method, axis: Axis::Sequence }),
            None => Ok(unpooled),
        }
    }
}

/// Receives samples of the source (by number, in any order, each once) and their activations.
pub(crate) type ChunkSink<'a> = dyn FnMut(&[usize], ActTensor) -> Result<()> + 'a;
