//! A tensor in host memory: a type, a shape and bytes that may be a mapped file's.

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
    /// When the number of bytes is not what the shape and the type ask for.
    pub fn new(dtype: DType, shape: Vec<usize>, bytes: Bytes) -> Result<Self, KernelError> {
        let wanted = shape
            .iter()
            .try_fold(dtype.size(), |product, &extent| product.checked_mul(extent))
            .ok_or_else(|| KernelError::shape("host tensor", format!("shape {shape:?} overflows")))?;
        if wanted != bytes.len() {
            return Err(KernelError::shape(
                "host tensor",
                format!("shape {shape:?} of {dtype} needs {wanted} bytes, got {}", bytes.len()),
            ));
        }
        Ok(HostTensor { dtype, shape, bytes })
    }

    /// Rounds `values` to `dtype`.
    ///
    /// # Errors
    /// When the shape asks for another number of elements.
    pub fn from_f32(dtype: DType, shape: Vec<usize>, values: &[f32]) -> Result<Self, KernelError> {
        Self::new(dtype, shape, Bytes::from(dtype.from_f32_slice(values)))
    }

    /// The storage type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The extents, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The elements' bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The elements widened to `f32`.
    pub fn to_f32_vec(&self) -> Vec<f32> {
        self.dtype.to_f32_vec(&self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_byte_count_is_refused_with_both_numbers() {
        let error = HostTensor::new(DType::Bf16, vec![2, 3], Bytes::from(vec![0u8; 10])).unwrap_err();
        assert!(error.to_string().contains("needs 12 bytes, got 10"), "{error}");
    }

    #[test]
    fn an_overflowing_shape_is_refused() {
        let error = HostTensor::new(DType::F32, vec![usize::MAX, 8], Bytes::new()).unwrap_err();
        assert!(error.to_string().contains("overflows"), "{error}");
    }
}
