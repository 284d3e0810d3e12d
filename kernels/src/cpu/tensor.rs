//! Tensors of the CPU backend: rows of 16- or 32-bit elements in aligned memory.

use half::{bf16, f16};

use super::aligned::AlignedBytes;
use crate::check::TensorShape;
use crate::dtype::DType;
use crate::error::KernelError;

/// A `[rows, columns]` tensor in host memory, row-major and native-endian.
pub struct CpuTensor {
    dtype: DType,
    rows: usize,
    columns: usize,
    data: AlignedBytes,
}

impl CpuTensor {
    /// A tensor with unspecified contents: NaN with debug assertions, so that an unwritten row is visible.
    pub(crate) fn new(dtype: DType, rows: usize, columns: usize) -> Result<Self, KernelError> {
        let mut tensor = CpuTensor { dtype, rows: 0, columns, data: AlignedBytes::zeroed("alloc", 0)? };
        tensor.resize(rows)?;
        Ok(tensor)
    }

    /// Changes the number of rows. The memory grows if necessary and never shrinks.
    pub(crate) fn resize(&mut self, rows: usize) -> Result<(), KernelError> {
        let bytes = rows
            .checked_mul(self.columns)
            .and_then(|elements| elements.checked_mul(self.dtype.size()))
            .ok_or_else(|| KernelError::shape("alloc", format!("{rows} x {} overflows", self.columns)))?;
        if bytes > self.data.as_slice().len() {
            // Should the allocation fail, the tensor is empty.
            self.rows = 0;
            self.data.replace("alloc", bytes)?;
        }
        self.rows = rows;
        if cfg!(debug_assertions) {
            // All ones are a NaN in each of the three types.
            self.data.as_mut_slice().fill(0xff);
        }
        Ok(())
    }

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

    /// The bytes of all rows.
    pub fn bytes(&self) -> &[u8] {
        &self.data.as_slice()[..self.rows * self.row_bytes()]
    }

    /// The bytes of all rows, for writing.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        let len = self.rows * self.row_bytes();
        &mut self.data.as_mut_slice()[..len]
    }

    /// The bytes of row `row`.
    pub fn row(&self, row: usize) -> &[u8] {
        &self.bytes()[row * self.row_bytes()..(row + 1) * self.row_bytes()]
    }
}

impl TensorShape for CpuTensor {
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

/// An element type of the CPU kernels, with conversions to and from `f32` that inline into vectorized loops.
pub trait Element: bytemuck::Pod + Send + Sync {
    /// The dtype of the type.
    const DTYPE: DType;
    /// Widens the element, exactly.
    fn to_f32(self) -> f32;
    /// Rounds to the nearest element, ties to even.
    fn from_f32(value: f32) -> Self;
}

impl Element for f32 {
    const DTYPE: DType = DType::F32;

    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }

    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        value
    }
}

impl Element for bf16 {
    const DTYPE: DType = DType::Bf16;

    #[inline(always)]
    fn to_f32(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    /// Rounding to nearest even in integer arithmetic: without branches except for NaN, so that loops vectorize.
    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        let bits = value.to_bits();
        let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
        let quiet_nan = (bits >> 16) | 0x40;
        bf16::from_bits(if value.is_nan() { quiet_nan } else { rounded } as u16)
    }
}

impl Element for f16 {
    const DTYPE: DType = DType::F16;

    #[inline(always)]
    fn to_f32(self) -> f32 {
        f16::to_f32(self)
    }

    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        f16::from_f32(value)
    }
}

/// Evaluates `$body` with `$element` as the Rust type of the dtype `$dtype`.
macro_rules! with_element {
    ($dtype:expr, $element:ident => $body:expr) => {
        match $dtype {
            $crate::dtype::DType::F32 => {
                type $element = f32;
                $body
            }
            $crate::dtype::DType::F16 => {
                type $element = half::f16;
                $body
            }
            $crate::dtype::DType::Bf16 => {
                type $element = half::bf16;
                $body
            }
        }
    };
}
pub(crate) use with_element;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bf16_rounding_equals_half_crate() {
        let mut bits = 1u32;
        for _ in 0..200_000 {
            bits = bits.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let value = f32::from_bits(bits);
            let ours = <bf16 as Element>::from_f32(value);
            let theirs = bf16::from_f32(value);
            assert!(ours == theirs || (ours.is_nan() && theirs.is_nan()), "{value:e}");
        }
        for value in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 0.0, -0.0, f32::MAX, f32::MIN_POSITIVE] {
            let (ours, theirs) = (<bf16 as Element>::from_f32(value), bf16::from_f32(value));
            assert_eq!(ours.to_bits(), theirs.to_bits(), "{value}");
        }
    }

    #[test]
    fn unwritten_rows_are_nan_with_debug_assertions() {
        let tensor = CpuTensor::new(DType::Bf16, 3, 5).unwrap();
        if cfg!(debug_assertions) {
            assert!(DType::Bf16.to_f32_vec(tensor.bytes()).iter().all(|value| value.is_nan()));
        }
        assert_eq!((tensor.rows(), tensor.columns(), tensor.row(2).len()), (3, 5, 10));
    }
}
