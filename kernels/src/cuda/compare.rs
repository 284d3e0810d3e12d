//! Comparison of two tensors on their device: `compare.cu`.

use super::registry::{Operation, Variant, require};
use super::{Argument, CudaBackend, CudaTensor, Device, count};
use crate::check;
use crate::error::KernelError;

/// The largest grid; the kernel loops over the elements.
const MAX_BLOCKS: usize = 1024;

/// How one tensor differs from another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DeviceDifference {
    /// Elements with different bits.
    pub elements: u64,
    /// The flat index of the first of them.
    pub first: Option<u64>,
    /// The largest absolute difference; NaN if an element is NaN.
    pub max_difference: f32,
    /// The largest absolute value expected; NaN if an element is NaN.
    pub max_expected: f32,
}

impl<D: Device> CudaBackend<D> {
    /// Compares the first `rows` rows of `got` with those of `expected`.
    ///
    /// # Errors
    /// Tensors of different types or widths, too few rows, or a device error.
    pub fn compare(
        &self,
        got: &CudaTensor<D::Buffer>,
        expected: &CudaTensor<D::Buffer>,
        rows: usize,
    ) -> Result<DeviceDifference, KernelError> {
        const OP: &str = "compare";
        check::same_dtype(OP, got, expected)?;
        check::fits(OP, "got", got, rows, expected.columns)?;
        check::fits(OP, "expected", expected, rows, got.columns)?;
        let elements = rows * got.columns;
        let mut result = [0, u64::MAX, 0, 0];
        let mut buffer = self.device.alloc(size_of_val(&result))?;
        self.device.write(&mut buffer, bytemuck::cast_slice(&result))?;
        let kernel = require(OP, Operation::Compare, Variant::Plain, got.dtype)?;
        let blocks = elements.div_ceil(kernel.threads as usize).min(MAX_BLOCKS);
        let launch = kernel.launch([count(OP, blocks)?, 1, 1]);
        let mut arguments = [
            Argument::Read(&got.buffer),
            Argument::Read(&expected.buffer),
            Argument::U64(elements as u64),
            Argument::Write(&mut buffer),
        ];
        self.launch(&launch, &mut arguments)?;
        self.device.read(&buffer, bytemuck::cast_slice_mut(&mut result))?;
        let [elements, first, max_difference, max_expected] = result;
        let float = |bits: u64| f32::from_bits(bits as u32);
        Ok(DeviceDifference {
            elements,
            first: (elements > 0).then_some(first),
            max_difference: float(max_difference),
            max_expected: float(max_expected),
        })
    }
}
