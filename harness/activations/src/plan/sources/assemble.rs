//! Chunks of a source that is in memory or on disk.

use actbench_kernels::PoolMethod;
use bytes::Bytes;

use super::request::SourceRequest;
use crate::error::Result;
use crate::plan::mask::SequenceMask;
use crate::plan::pooling::pool_groups;
use crate::plan::signature::Signature;
use crate::plan::tensor::ActTensor;

/// About how many bytes a chunk has: enough to keep every thread busy, and little compared with the activations themselves.
const CHUNK_BYTES: usize = 8 << 20;

/// Puts blocks (`[s, h]` or `[h]`, one a sample and layer) together, pooled if `request` asks for it.
///
/// `signature` is that of the unpooled chunk, `mask` its mask; `block` gives the block of a sample and layer, both counted
/// within the chunk.
pub(super) fn assemble<'a>(
    signature: Signature,
    request: &SourceRequest<'_>,
    mask: Option<SequenceMask>,
    block: impl Fn(usize, usize) -> &'a [u8] + Sync,
) -> Result<ActTensor> {
    let n_layers = signature.n_layers();
    if let (Some(method), Some(mask)) = (request.pool, &mask) {
        return pool_blocks(&signature, request, method, mask, block);
    }
    let mut bytes = Vec::with_capacity(signature.n_bytes());
    for sample in 0..signature.n_samples {
        (0..n_layers).for_each(|layer| bytes.extend_from_slice(block(sample, layer)));
    }
    ActTensor::from_signature(signature, mask, Bytes::from(bytes))
}

fn pool_blocks<'a>(
    signature: &Signature,
    request: &SourceRequest<'_>,
    method: PoolMethod,
    mask: &SequenceMask,
    block: impl Fn(usize, usize) -> &'a [u8] + Sync,
) -> Result<ActTensor> {
    let (n_layers, vector_bytes) = (signature.n_layers(), signature.vector_bytes());
    let pooled = request.chunk_signature(signature, signature.n_samples)?;
    let mut bytes = vec![0; pooled.n_bytes()];
    let group_vectors = |group: usize| {
        let sample = group / n_layers;
        let block = block(sample, group % n_layers);
        mask.positions(sample).map(move |position| &block[position * vector_bytes..(position + 1) * vector_bytes])
    };
    pool_groups(signature.dtype, method, signature.hidden_size, group_vectors, &mut bytes);
    ActTensor::from_signature(pooled, None, Bytes::from(bytes))
}

/// How many samples of `signature` make a chunk.
pub(super) fn samples_per_chunk(signature: &Signature) -> usize {
    (CHUNK_BYTES / signature.sample_bytes().max(1)).max(1)
}
