//! A tensor in host memory: a dtype, a shape and bytes, which may be those of a mapped file.

use bytes::Bytes;

use crate::dtype::DType;
use crate::error::KernelError;

/// A dense row-major tensor in host memory. Cloning shares the bytes.
#[derive(Clone, Debug)]
pub struct HostTensor {
    dtype: DType,
    shape: Vec<usize>,
    bytes: Bytes,
}

impl HostTensor {
    /// Wraps `bytes` (native-endian) as a tensor of `shape`.
    ///
    /// # Errors
    /// When the number of bytes does not match the shape and the dtype, or the shape overflows.
    pub fn new(dtype: DType, shape: Vec<usize>, bytes: Bytes) -> Result<Self, KernelError> {
        let needed = shape
            .iter()
            .try_fold(dtype.size(), |bytes, &dimension| bytes.checked_mul(dimension))
            .ok_or_else(|| KernelError::shape("host tensor", format!("shape {shape:?} overflows")))?;
        if needed != bytes.len() {
            return Err(KernelError::shape(
                "host tensor",
                format!("shape {shape:?} of {dtype} needs {needed} bytes, got {}", bytes.len()),
            ));
        }
        Ok(HostTensor { dtype, shape, bytes })
    }

    /// Rounds `values`, in row-major order, to `dtype`.
    ///
    /// # Errors
    /// When the number of values does not match the shape.
    pub fn from_f32(dtype: DType, shape: Vec<usize>, values: &[f32]) -> Result<Self, KernelError> {
        Self::new(dtype, shape, Bytes::from(dtype.from_f32_slice(values)))
    }

    /// The storage type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The dimensions, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The elements, row-major and native-endian.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The elements widened to `f32`, in row-major order.
    pub fn to_f32_vec(&self) -> Vec<f32> {
        self.dtype.to_f32_vec(&self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_byte_count_error_has_both_numbers() {
        let error = HostTensor::new(DType::Bf16, vec![2, 3], Bytes::from(vec![0u8; 10])).unwrap_err();
        assert!(error.to_string().contains("needs 12 bytes, got 10"), "{error}");
    }

    #[test]
    fn overflowing_shape_is_an_error() {
        let error = HostTensor::new(DType::F32, vec![usize::MAX, 8], Bytes::new()).unwrap_err();
        assert!(error.to_string().contains("overflows"), "{error}");
    }
}
