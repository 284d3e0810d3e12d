//! The changes of an adapter to the tensors of its base model, computed when a tensor is read.
//!
//! PEFT merges `W + scale * B A` in the type of the base model. Here the sum is computed and kept in f32, and rounded once, to the
//! type of the run. The weights of a bf16 model that PEFT merged have been rounded twice, so they differ in the last bits.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use actbench_kernels::{DType, HostTensor};
use bytes::Bytes;
use rayon::prelude::*;

use crate::error::{Error, Result};

/// A tensor of the adapter's file.
#[derive(Clone, Debug)]
pub(super) struct AdapterTensor {
    /// Its name in the file.
    pub(super) stored: String,
    /// Its elements, which share the mapped file.
    pub(super) tensor: HostTensor,
}

/// A change by the product of two factors.
#[derive(Clone, Debug)]
pub(super) struct LowRankUpdate {
    /// `[rank, in_features]`.
    pub(super) a: AdapterTensor,
    /// `[out_features, rank]`.
    pub(super) b: AdapterTensor,
    /// The factor of the product: alpha by the rank or its root.
    pub(super) scale: f32,
    /// Whether the changed tensor is `[in_features, out_features]`: an embedding, or the `Conv1D` of GPT-2.
    pub(super) transposed: bool,
}

/// The change of one tensor: another tensor in its place, the sum with a low-rank update, or both in this order.
#[derive(Clone, Debug, Default)]
pub(super) struct TensorChange {
    /// Replaces the base model's tensor.
    pub(super) replacement: Option<AdapterTensor>,
    /// Is added.
    pub(super) update: Option<LowRankUpdate>,
}

impl TensorChange {
    /// Whether nothing changes.
    pub(super) fn is_empty(&self) -> bool {
        self.replacement.is_none() && self.update.is_none()
    }
}

/// An adapter whose tensors fit its base model.
#[derive(Debug)]
pub struct Adapter {
    /// The safetensors file, for errors.
    pub(super) path: PathBuf,
    /// The changes by the name that transformers gives the tensor.
    pub(super) changes: BTreeMap<String, TensorChange>,
    /// The bytes of the configuration.
    pub(super) config: Bytes,
    /// The bytes of the safetensors file.
    pub(super) file: Bytes,
    /// The base model, as the configuration names it.
    pub(super) base_model: Option<String>,
    /// Warnings for the user.
    pub(super) warnings: Vec<String>,
    pub(super) fingerprint: OnceLock<String>,
}

impl Adapter {
    /// Whether the adapter changes the tensor `name`.
    pub fn changes(&self, name: &str) -> bool {
        self.changes.contains_key(name)
    }

    /// The tensor that replaces the base model's tensor `name`, if the adapter has one.
    pub fn replacement(&self, name: &str) -> Option<&HostTensor> {
        Some(&self.changes.get(name)?.replacement.as_ref()?.tensor)
    }

    /// The tensor `name` with the adapter's update, in f32; `tensor` itself if there is none. `tensor` is the replacement where the
    /// adapter has one.
    ///
    /// # Errors
    /// An element of a factor that is not finite.
    pub fn apply(&self, name: &str, tensor: HostTensor) -> Result<HostTensor> {
        match self.changes.get(name).and_then(|change| change.update.as_ref()) {
            Some(update) => update.added_to(&tensor, &self.path),
            None => Ok(tensor),
        }
    }

    /// A digest of the adapter's two files. The first call reads them; later calls return the same text.
    pub fn fingerprint(&self) -> &str {
        self.fingerprint.get_or_init(|| {
            // The digest of each file has a fixed length, so that no byte can move from one to the other.
            let digests = [&self.config, &self.file].map(|bytes| blake3::hash(bytes).to_hex().to_string());
            blake3::hash(digests.concat().as_bytes()).to_hex().to_string()
        })
    }

    /// The digest of a model whose base model has the digest `base`.
    pub fn fingerprint_with(&self, base: &str) -> String {
        blake3::hash(format!("{base} with the adapter {}", self.fingerprint()).as_bytes()).to_hex().to_string()
    }

    /// The safetensors file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The base model, by a name or by a path of the machine that trained the adapter.
    pub fn base_model(&self) -> Option<&str> {
        self.base_model.as_deref()
    }

    /// Warnings about the adapter and this model.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

impl LowRankUpdate {
    /// `base` plus the update, in f32.
    fn added_to(&self, base: &HostTensor, path: &Path) -> Result<HostTensor> {
        let (rank, inputs) = extents(&self.a.tensor);
        let (outputs, _) = extents(&self.b.tensor);
        let (a, b) = (self.a.finite_values(path)?, self.b.finite_values(path)?);
        // Rows of the changed tensor are sums of rows of `right`, weighted by a row of `left`.
        let (left, right, columns) = if self.transposed {
            (transposed(&a, rank, inputs), transposed(&b, outputs, rank), outputs)
        } else {
            (b, a, inputs)
        };
        let mut merged = base.to_f32_vec();
        let rows = merged.par_chunks_exact_mut(columns.max(1)).zip(left.par_chunks_exact(rank.max(1)));
        rows.for_each(|(row, factors)| {
            pulp::Arch::new().dispatch(MergedRow { row, factors, right: &right, scale: self.scale });
        });
        // Without a copy: an embedding of f32 takes gigabytes.
        let bytes = Bytes::from_owner(MergedValues(merged));
        Ok(HostTensor::new(DType::F32, base.shape().to_vec(), bytes)?)
    }
}

impl AdapterTensor {
    /// The elements in f32.
    ///
    /// # Errors
    /// An element that is not finite.
    fn finite_values(&self, path: &Path) -> Result<Vec<f32>> {
        let values = self.tensor.to_f32_vec();
        match values.iter().position(|value| !value.is_finite()) {
            None => Ok(values),
            Some(element) => {
                let (name, value) = (&self.stored, values[element]);
                let what = format!(
                    "tensor '{name}': element {element} is {value}, but an adapter must be finite; save the adapter again"
                );
                Err(Error::file(path, what))
            }
        }
    }
}

/// The elements of a merged tensor as the owner of its bytes.
struct MergedValues(Vec<f32>);

impl AsRef<[u8]> for MergedValues {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

/// One row of a merged tensor. All instruction sets give the same bits, because no multiplication is fused with an addition.
struct MergedRow<'a> {
    /// The row of the base model, which becomes the merged one.
    row: &'a mut [f32],
    /// A factor for each row of `right`.
    factors: &'a [f32],
    /// Rows as long as `row`, one after the other.
    right: &'a [f32],
    scale: f32,
}

impl pulp::WithSimd for MergedRow<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let MergedRow { row, factors, right, scale } = self;
        // The product first and its scale after it, in the order of PEFT.
        let mut product = vec![0.0f32; row.len()];
        for (factor, values) in factors.iter().zip(right.chunks_exact(row.len())) {
            for (sum, value) in product.iter_mut().zip(values) {
                *sum += factor * value;
            }
        }
        for (weight, product) in row.iter_mut().zip(&product) {
            *weight += product * scale;
        }
    }
}

/// The rows and the columns of a matrix.
pub(super) fn extents(matrix: &HostTensor) -> (usize, usize) {
    match matrix.shape() {
        [rows, columns] => (*rows, *columns),
        _ => (0, 0),
    }
}

/// The columns of a row-major matrix, one after the other.
fn transposed(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let mut columns_first = Vec::with_capacity(values.len());
    for column in 0..columns {
        columns_first.extend((0..rows).map(|row| values[row * columns + column]));
    }
    columns_first
}
