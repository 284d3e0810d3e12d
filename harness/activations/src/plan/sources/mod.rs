//! Where activations come from: a tensor, a model, or a cache file. All answer the same request.

use std::ops::Range;
use std::sync::Arc;

use actbench_kernels::PoolMethod;
use bytes::Bytes;

use super::axes::Axis;
use super::cache_file::CacheFile;
use super::fingerprint::Fingerprint;
use super::mask::SequenceMask;
use super::operation::{Operation, abbreviate};
use super::pooling::pool_groups;
use super::progress::Monitor;
use super::rules::Rules;
use super::signature::Signature;
use super::tensor::ActTensor;
use crate::error::Result;

mod cached;
mod model;
mod tensor;

pub use model::ModelSource;
pub(crate) use model::check_tokens;
pub use tensor::TensorSource;

/// Bytes that a source in memory or on disk hands out at a time, about: enough to keep every thread busy, little
/// beside the activations themselves.
const CHUNK_BYTES: usize = 8 << 20;

/// What is asked of a source.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SourceRequest<'a> {
    /// Distinct samples of the source.
    pub(crate) samples: &'a [usize],
    /// Layers by number, in the order wanted; the source's own where it has no axis `l`.
    pub(crate) layers: &'a [usize],
    /// Pool axis `s` this way.
    pub(crate) pool: Option<PoolMethod>,
    /// The rules that are on.
    pub(crate) rules: Rules,
}

impl SourceRequest<'_> {
    /// The signature of `n_samples` samples before they are pooled.
    fn rows_signature(&self, source: &Signature, n_samples: usize) -> Signature {
        Signature { layer_ids: self.layers.into(), ..source.with_samples(n_samples) }
    }

    /// The signature of `n_samples` samples as they are handed out.
    fn chunk_signature(&self, source: &Signature, n_samples: usize) -> Result<Signature> {
        let rows = self.rows_signature(source, n_samples);
        match self.pool {
            Some(method) => rows.after(&Operation::Pool { method, axis: Axis::Sequence }),
            None => Ok(rows),
        }
    }
}

/// Receives samples of the source (by number, in any order, each once) and their activations.
pub(crate) type ChunkSink<'a> = dyn FnMut(&[usize], ActTensor) -> Result<()> + 'a;

/// The start of a plan. Cloning shares it.
#[derive(Clone, Debug)]
pub enum Source {
    /// Activations in memory.
    Tensor(Arc<TensorSource>),
    /// A model and the tokens to run it on.
    Model(Arc<ModelSource>),
    /// Activations in a file.
    CacheFile(Arc<CacheFile>),
}

impl Source {
    /// The whole source's axes, extents, layers and dtype.
    pub fn signature(&self) -> &Signature {
        match self {
            Source::Tensor(source) => source.signature(),
            Source::Model(source) => source.signature(),
            Source::CacheFile(file) => file.signature(),
        }
    }

    /// What decides the source's values, part by part.
    pub(crate) fn fingerprint(&self, samples: &[usize]) -> Fingerprint {
        match self {
            Source::Tensor(source) => source.fingerprint(samples),
            Source::Model(source) => source.fingerprint(samples),
            Source::CacheFile(file) => cached::fingerprint(file, samples),
        }
    }

    /// Hands out what `request` asks for, in pieces.
    ///
    /// # Errors
    /// A failure of the model, of the file, or of `sink`.
    pub(crate) fn visit(&self, request: &SourceRequest<'_>, monitor: &Monitor, sink: &mut ChunkSink<'_>) -> Result<()> {
        match self {
            Source::Tensor(source) => source.visit(request, monitor, sink),
            Source::Model(source) => source.visit(request, monitor, sink),
            Source::CacheFile(file) => cached::visit(file, request, monitor, sink),
        }
    }

    /// The samples in `range` of `layers` without a copy, where they lie in one piece.
    ///
    /// # Errors
    /// A damaged file.
    pub(crate) fn share(&self, layers: &[usize], range: Range<usize>) -> Result<Option<ActTensor>> {
        match self {
            Source::Tensor(source) => source.share(layers, range),
            Source::Model(_) => Ok(None),
            Source::CacheFile(file) => cached::share(file, layers, range),
        }
    }

    /// What the source is, for people, in one line.
    pub fn describe(&self) -> String {
        match self {
            Source::Tensor(source) => format!("tensor {}", source.signature()),
            Source::Model(source) => source.describe(),
            Source::CacheFile(file) => format!("cache file {} {}", file.path().display(), file.signature()),
        }
    }
}

/// Puts blocks (`[s, h]` or `[h]`, one a sample and layer) together, pooled or as they are.
///
/// `signature` is that of the unpooled chunk, `mask` its mask, `block` gives the block of a sample and layer, both
/// counted within the chunk.
fn assemble<'a>(
    signature: Signature,
    request: &SourceRequest<'_>,
    mask: Option<SequenceMask>,
    block: impl Fn(usize, usize) -> &'a [u8] + Sync,
) -> Result<ActTensor> {
    let (n_samples, n_layers) = (signature.n_samples, signature.n_layers());
    let (Some(method), Some(mask)) = (request.pool, mask.as_ref()) else {
        let mut bytes = Vec::with_capacity(signature.n_bytes());
        for sample in 0..n_samples {
            (0..n_layers).for_each(|layer| bytes.extend_from_slice(block(sample, layer)));
        }
        return ActTensor::from_signature(signature, mask, Bytes::from(bytes));
    };
    let pooled = request.chunk_signature(&signature, n_samples)?;
    let mut bytes = vec![0; pooled.n_bytes()];
    let len = signature.vector_bytes();
    let rows_of = |group: usize| {
        let sample = group / n_layers;
        let block = block(sample, group % n_layers);
        mask.positions(sample).map(move |position| &block[position * len..(position + 1) * len])
    };
    pool_groups(signature.dtype, method, signature.hidden_size, rows_of, &mut bytes);
    ActTensor::from_signature(pooled, None, Bytes::from(bytes))
}

/// How many samples of `signature` make a chunk.
fn samples_per_chunk(signature: &Signature) -> usize {
    (CHUNK_BYTES / signature.sample_bytes().max(1)).max(1)
}

/// Samples for people: `[0, 1, 2]`.
fn list(numbers: &[usize]) -> String {
    format!("[{}]", abbreviate(numbers))
}
