//! Activations in host memory, and the reference semantics of each operation.
//!
//! Plans are tested against the methods in `operations`: one operation gives one new tensor, without optimization.

use std::sync::Arc;

use actbench_kernels::DType;
use bytes::Bytes;

use super::axes::{Axes, Axis};
use super::mask::SequenceMask;
use super::signature::Signature;
use crate::error::{Error, Result};

mod operations;

pub(crate) use operations::contiguous;

/// A dense tensor with named axes in the order `b l s h`, native-endian. Cloning shares the bytes.
#[derive(Clone, Debug)]
pub struct ActTensor {
    signature: Signature,
    mask: Option<SequenceMask>,
    bytes: Bytes,
}

impl ActTensor {
    /// Wraps `bytes` as a tensor of `shape`, one extent for each of `axes`.
    ///
    /// `layer_ids` are the layers along `l`; without `l` those that the values were computed from, which may be empty.
    /// `mask` marks the positions along `s` that are pooled; without it `s` cannot be pooled.
    ///
    /// # Errors
    /// The parts do not fit each other.
    pub fn new(
        axes: Axes,
        shape: &[usize],
        dtype: DType,
        layer_ids: impl Into<Arc<[usize]>>,
        mask: Option<SequenceMask>,
        bytes: Bytes,
    ) -> Result<Self> {
        let layer_ids = layer_ids.into();
        if shape.len() != axes.count() {
            return Err(Error::usage(format!("axes {axes} do not fit shape {shape:?}")));
        }
        let extent = |axis: Axis| {
            let index = axes.name().find(axis.letter());
            index.and_then(|index| shape.get(index)).copied().unwrap_or(1)
        };
        if axes.has(Axis::Layer) && extent(Axis::Layer) != layer_ids.len() {
            return Err(Error::usage(format!("{} layer numbers for shape {shape:?} of {axes}", layer_ids.len())));
        }
        let signature = Signature {
            axes,
            n_samples: extent(Axis::Batch),
            layer_ids,
            seq_len: extent(Axis::Sequence),
            hidden_size: extent(Axis::Hidden),
            dtype,
            has_mask: mask.is_some(),
        };
        Self::from_signature(signature.checked()?, mask, bytes)
    }

    /// Wraps `bytes` as a tensor of a signature that was checked.
    pub(crate) fn from_signature(signature: Signature, mask: Option<SequenceMask>, bytes: Bytes) -> Result<Self> {
        if bytes.len() != signature.n_bytes() {
            return Err(Error::usage(format!(
                "activations {signature} need {} bytes, got {}",
                signature.n_bytes(),
                bytes.len()
            )));
        }
        if signature.has_mask != mask.is_some() {
            return Err(Error::usage(format!("activations {signature}: the mask is missing or unexpected")));
        }
        if let Some(mask) = &mask
            && (mask.n_samples(), mask.seq_len()) != (signature.n_samples, signature.seq_len)
        {
            return Err(Error::usage(format!(
                "a mask of {} x {} does not fit activations {signature}",
                mask.n_samples(),
                mask.seq_len()
            )));
        }
        Ok(ActTensor { signature, mask, bytes })
    }

    /// Rounds `values` to `dtype`; the rest is as in [`ActTensor::new`].
    ///
    /// # Errors
    /// The parts do not fit each other.
    pub fn from_f32(
        axes: Axes,
        shape: &[usize],
        dtype: DType,
        layer_ids: impl Into<Arc<[usize]>>,
        mask: Option<SequenceMask>,
        values: &[f32],
    ) -> Result<Self> {
        Self::new(axes, shape, dtype, layer_ids, mask, Bytes::from(dtype.from_f32_slice(values)))
    }

    /// Axes, extents, layers and dtype.
    pub fn signature(&self) -> &Signature {
        &self.signature
    }

    /// The axes.
    pub fn axes(&self) -> Axes {
        self.signature.axes
    }

    /// The extents of the axes, in order.
    pub fn shape(&self) -> Vec<usize> {
        self.signature.shape()
    }

    /// The storage type.
    pub fn dtype(&self) -> DType {
        self.signature.dtype
    }

    /// The layers along `l`, or those that the values were computed from.
    pub fn layer_ids(&self) -> &[usize] {
        &self.signature.layer_ids
    }

    /// The positions that are pooled; only with axis `s`.
    pub fn mask(&self) -> Option<&SequenceMask> {
        self.mask.as_ref()
    }

    /// All elements, row-major, native-endian.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// All elements, widened.
    pub fn to_f32_vec(&self) -> Vec<f32> {
        self.dtype().to_f32_vec(&self.bytes)
    }

    /// A copy of the bytes: a slice would keep the memory of the larger tensor alive.
    pub(crate) fn detached(&self) -> ActTensor {
        ActTensor { bytes: Bytes::copy_from_slice(&self.bytes), ..self.clone() }
    }

    /// The bytes of one sample.
    pub(crate) fn sample(&self, sample: usize) -> &[u8] {
        let len = self.signature.sample_bytes();
        &self.bytes[sample * len..(sample + 1) * len]
    }

    /// The bytes of one layer of one sample, `[s, h]` or `[h]`; without axis `l` there is only layer position 0.
    pub(crate) fn block(&self, sample: usize, layer: usize) -> &[u8] {
        let len = self.signature.block_bytes();
        &self.sample(sample)[layer * len..(layer + 1) * len]
    }
}

/// Digest of shape, axes, dtype and elements: equal for equal values, however they were computed.
pub fn digest(tensor: &ActTensor) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(format!("{}\n", tensor.signature).as_bytes());
    hasher.update(&tensor.bytes);
    hasher.finalize().to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mismatched_parts_are_refused() {
        let bytes = |n: usize| Bytes::from(vec![0u8; n]);
        let mask = |n: usize, s: usize| Some(SequenceMask::new(n, s, vec![true; n * s]).unwrap());
        let new = |axes, shape: &[usize], layers: &[usize], mask, n| {
            ActTensor::new(axes, shape, DType::F32, layers, mask, bytes(n))
        };
        assert!(new(Axes::BLSH, &[2, 1, 3, 4], &[7], mask(2, 3), 96).is_ok());
        assert!(new(Axes::BH, &[0, 4], &[], None, 0).is_ok());
        let wrong = [
            new(Axes::BLSH, &[2, 3, 4], &[7], None, 96),
            new(Axes::BLSH, &[2, 1, 3, 4], &[7, 8], None, 96),
            new(Axes::BLSH, &[2, 2, 3, 4], &[7, 7], None, 192),
            new(Axes::BLSH, &[2, 1, 3, 4], &[7], mask(3, 2), 96),
            new(Axes::BLSH, &[2, 1, 3, 4], &[7], None, 95),
            new(Axes::BH, &[2, 4], &[], mask(2, 1), 32),
            new(Axes::BH, &[usize::MAX, 4], &[], None, 0),
        ];
        for (index, result) in wrong.into_iter().enumerate() {
            assert_eq!(result.expect_err(&format!("case {index}")).exit_code(), 2);
        }
        assert!(SequenceMask::new(2, 3, vec![true; 5]).is_err());
    }

    #[test]
    fn digest_distinguishes_shapes_dtypes_and_values() {
        let tensor = |axes, shape: &[usize], dtype, values: &[f32]| {
            digest(&ActTensor::from_f32(axes, shape, dtype, [1], None, values).unwrap())
        };
        let digests = [
            tensor(Axes::BH, &[1, 2], DType::F32, &[0.0, 0.0]),
            tensor(Axes::BH, &[2, 1], DType::F32, &[0.0, 0.0]),
            tensor(Axes::BSH, &[1, 2, 1], DType::F32, &[0.0, 0.0]),
            tensor(Axes::BH, &[1, 2], DType::F16, &[0.0, 0.0]),
            tensor(Axes::BH, &[1, 2], DType::Bf16, &[0.0, 0.0]),
            tensor(Axes::BH, &[1, 2], DType::F32, &[0.0, -0.0]),
        ];
        let distinct: std::collections::BTreeSet<&String> = digests.iter().collect();
        assert_eq!(distinct.len(), digests.len());
        assert_eq!(tensor(Axes::BH, &[1, 2], DType::F32, &[0.0, 0.0]), digests[0]);
    }
}
