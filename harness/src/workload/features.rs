//! The features of both sides of a split: what the probes are trained on, and what one truth is checked by.

use actbench_kernels::DType;
use ndarray::Array2;

use super::prepare::Prepared;
use crate::acts::{ActTensor, Axes};
use crate::error::{Error, Result};

/// Pooled activations of one layer, `[n, h]` on each side.
pub struct LayerFeatures {
    /// The layer.
    pub layer: usize,
    /// Of the training samples.
    pub train: ActTensor,
    /// Of the test samples.
    pub test: ActTensor,
}

impl LayerFeatures {
    /// Checks that the tensors are pooled and belong to the split.
    ///
    /// # Errors
    /// Other axes than `bh`, or another number of samples.
    pub fn new(layer: usize, train: ActTensor, test: ActTensor, prepared: &Prepared) -> Result<Self> {
        for (tensor, side) in [(&train, &prepared.train), (&test, &prepared.test)] {
            if tensor.axes() != Axes::BH || tensor.shape()[0] != side.tokens.len() {
                return Err(Error::Disagreement(format!(
                    "features of layer {layer} are {} {:?} for {} samples",
                    tensor.axes(),
                    tensor.shape(),
                    side.tokens.len()
                )));
            }
        }
        Ok(LayerFeatures { layer, train, test })
    }
}

/// The values of a `bh` tensor in `f32`, `[n, h]`.
///
/// # Errors
/// When the tensor has other axes.
pub fn to_matrix(tensor: &ActTensor) -> Result<Array2<f32>> {
    let shape = tensor.shape();
    let &[rows, columns] = shape.as_slice() else {
        return Err(Error::Disagreement(format!("features have axes {}, not bh", tensor.axes())));
    };
    Array2::from_shape_vec((rows, columns), tensor.to_f32_vec()).map_err(|error| Error::Numeric(error.to_string()))
}

/// A digest of the features of all layers in order: shapes, dtype and bytes, training side first.
///
/// Two cases that agree on it trained their probes on the same bits.
pub fn digest(layers: &[LayerFeatures]) -> String {
    let mut hasher = blake3::Hasher::new();
    for features in layers {
        for tensor in [&features.train, &features.test] {
            let dtype: DType = tensor.dtype();
            hasher.update(format!("{} {dtype} {:?};", features.layer, tensor.shape()).as_bytes());
            hasher.update(tensor.bytes());
        }
    }
    hasher.finalize().to_hex().to_string()
}
