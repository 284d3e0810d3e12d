//! Tensors, weights and vectors of the CUDA backend, in device memory.

use crate::check::{TensorShape, WeightShape};
use crate::dtype::DType;
use crate::error::KernelError;

/// A `[rows, columns]` tensor on a device.
pub struct CudaTensor<B> {
    pub(super) buffer: B,
    /// Bytes of the buffer.
    pub(super) capacity: usize,
    pub(super) dtype: DType,
    pub(super) rows: usize,
    pub(super) columns: usize,
}

impl<B> CudaTensor<B> {
    /// The storage type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The number of columns.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Bytes of one row.
    pub fn row_bytes(&self) -> usize {
        self.columns * self.dtype.size()
    }
}

impl<B> TensorShape for CudaTensor<B> {
    fn dtype(&self) -> DType {
        self.dtype
    }

    fn rows(&self) -> usize {
        self.rows
    }

    fn columns(&self) -> usize {
        self.columns
    }
}

/// A weight matrix `[out_features, in_features]` on a device, row-major, in the run's dtype. Gated weights are `[2 *
/// out_features, in_features]` with the rows of the gate and of the up projection interleaved, so that one thread has
/// both accumulators of an output.
pub struct CudaWeights<B> {
    pub(super) buffer: B,
    pub(super) shape: WeightShape,
}

/// A vector of `len` elements of `f32` on a device.
pub struct CudaVector<B> {
    pub(super) buffer: B,
    pub(super) len: usize,
}

/// Bytes of a `[rows, columns]` tensor.
///
/// # Errors
/// A size that overflows.
pub(super) fn bytes(dtype: DType, rows: usize, columns: usize) -> Result<usize, KernelError> {
    rows.checked_mul(columns)
        .and_then(|elements| elements.checked_mul(dtype.size()))
        .ok_or_else(|| KernelError::shape("alloc", format!("{rows} x {columns} overflows")))
}
