//! The features of both sides of a split: the input of the probes, and their digest.

use actbench_kernels::DType;
use half::bf16;
use ndarray::{Array2, ArrayView2};

use super::prepare::Prepared;
use crate::error::{Error, Result};
use actbench_activations::plan::{ActTensor, Acts, Axes};

/// Pooled activations of one layer, `[n, h]` on each side.
///
/// Each side is a plan over the extracted features, in memory or in a cache file, and becomes a tensor only while it is
/// used: tensors of all layers at once would be a second copy of the features, or keep all pages of a cache file resident.
pub struct LayerFeatures {
    /// The layer.
    pub layer: usize,
    train: Acts,
    test: Acts,
}

impl LayerFeatures {
    /// Checks that the tensors are pooled and match the split.
    ///
    /// # Errors
    /// Axes other than `bh`, or another number of samples.
    pub fn new(layer: usize, train: Acts, test: Acts, prepared: &Prepared) -> Result<Self> {
        for (acts, side) in [(&train, &prepared.train), (&test, &prepared.test)] {
            let signature = acts.signature();
            if signature.axes != Axes::BH || signature.n_samples != side.tokens.len() {
                return Err(Error::internal(format!(
                    "the features of layer {layer} are {signature} for {} samples",
                    side.tokens.len()
                )));
            }
        }
        Ok(LayerFeatures { layer, train, test })
    }

    /// Columns of the features.
    pub fn hidden_size(&self) -> usize {
        self.train.signature().hidden_size
    }

    /// The features of the training samples. Dropping the tensor frees its memory.
    ///
    /// # Errors
    /// A cache file that cannot be read or is damaged, or too little memory.
    pub fn train(&self) -> Result<ActTensor> {
        self.train.realize()
    }

    /// The features of the test samples, as [`LayerFeatures::train`].
    ///
    /// # Errors
    /// As [`LayerFeatures::train`].
    pub fn test(&self) -> Result<ActTensor> {
        self.test.realize()
    }
}

/// The values of a `bh` tensor in `f32`, `[n, h]`.
///
/// # Errors
/// When the tensor has other axes.
pub fn to_matrix(tensor: &ActTensor) -> Result<Array2<f32>> {
    Array2::from_shape_vec(shape(tensor)?, tensor.to_f32_vec())
        .map_err(|error| Error::internal(format!("the features are not a matrix: {error}")))
}

/// A view of the values of a bf16 `bh` tensor, `[n, h]`; none if they have another type or are not aligned.
///
/// # Errors
/// When the tensor has other axes.
pub fn bf16_matrix(tensor: &ActTensor) -> Result<Option<ArrayView2<'_, bf16>>> {
    let shape = shape(tensor)?;
    let values = match tensor.dtype() {
        DType::Bf16 => bytemuck::try_cast_slice(tensor.bytes()).ok(),
        _ => None,
    };
    Ok(values.and_then(|values| ArrayView2::from_shape(shape, values).ok()))
}

fn shape(tensor: &ActTensor) -> Result<(usize, usize)> {
    match tensor.shape().as_slice() {
        &[rows, columns] => Ok((rows, columns)),
        _ => Err(Error::internal(format!("the features have axes {}, not bh", tensor.axes()))),
    }
}

/// A digest of the features of all layers in order: shapes, dtype and bytes, training side first.
///
/// Two cases with the same digest trained their probes on bit-identical features.
///
/// # Errors
/// As [`LayerFeatures::train`].
pub fn digest(layers: &[LayerFeatures]) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    for features in layers {
        for side in [&features.train, &features.test] {
            let tensor = side.realize()?;
            let dtype: DType = tensor.dtype();
            hasher.update(format!("{} {dtype} {:?};", features.layer, tensor.shape()).as_bytes());
            hasher.update(tensor.bytes());
        }
    }
    Ok(hasher.finalize().to_hex().to_string())
}
