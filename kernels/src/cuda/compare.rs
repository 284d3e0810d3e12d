//! Two results compared on the device that holds them: `compare.cu`.

use super::names::typed;
use super::{Argument, CudaBackend, CudaTensor, Device, Launch, count};
use crate::check;
use crate::error::KernelError;

/// Threads of a block, and the most blocks: each goes over as many elements as it takes.
const THREADS: usize = 256;
const MAX_BLOCKS: usize = 1024;

/// How one tensor differs from another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DeviceDifference {
    /// Elements with other bits.
    pub elements: u64,
    /// The first of them, counted row after row.
    pub first: Option<u64>,
    /// The largest difference of elements with other bits; NaN if one is not a number.
    pub farthest: f32,
    /// The largest absolute value expected; NaN if one is not a number.
    pub largest: f32,
}

impl<D: Device> CudaBackend<D> {
    /// Compares the first `rows` rows of `got` with those of `expected`.
    ///
    /// # Errors
    /// Tensors of other types or widths, too few rows, or a failure of the device.
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
        let mut words = [0, u64::MAX, 0, 0];
        let mut found = self.device.alloc(size_of_val(&words))?;
        self.device.write(&mut found, bytemuck::cast_slice(&words))?;
        let launch = Launch {
            kernel: typed!("compare", got.dtype).into(),
            grid: [count(OP, elements.div_ceil(THREADS).min(MAX_BLOCKS))?, 1, 1],
            threads: THREADS as u32,
            shared_bytes: 0,
        };
        let mut arguments = [
            Argument::Read(&got.buffer),
            Argument::Read(&expected.buffer),
            Argument::U64(elements as u64),
            Argument::Write(&mut found),
        ];
        self.launch(&launch, &mut arguments)?;
        self.device.read(&found, bytemuck::cast_slice_mut(&mut words))?;
        let [elements, first, farthest, largest] = words;
        let number = |bits: u64| f32::from_bits(bits as u32);
        Ok(DeviceDifference {
            elements,
            first: (elements > 0).then_some(first),
            farthest: number(farthest),
            largest: number(largest),
        })
    }
}
