//! Launches of products with weights: `linear.cu` and, on tensor cores, `linear_mma.cu`.

use super::{Argument, CudaBackend, CudaTensor, CudaVector, CudaWeights, Device, KernelSet, Launch, count};
use crate::dtype::DType;
use crate::error::KernelError;

/// Threads of a block of the plain kernels, one an output.
const PLAIN_THREADS: u32 = 128;

/// Rows and weight rows of a tile of the fast kernels.
const FAST_TILE: u32 = 128;

/// Threads of a block of the fast kernels.
const FAST_THREADS: u32 = 256;

/// Three stages of 128 rows and 128 weight rows by 32 inputs of 2 bytes.
const FAST_SHARED_BYTES: u32 = 3 * 2 * FAST_TILE * 32 * 2;

/// Whether the fast kernels take rows of `width` elements of `dtype`: they copy 16 bytes at a time.
pub(super) fn fits_tensor_cores(dtype: DType, width: u32) -> bool {
    dtype != DType::F32 && width.is_multiple_of(8)
}

impl<D: Device> CudaBackend<D> {
    /// The product of `kernel`, which is `linear`, `linear_residual` or `linear_swiglu`.
    pub(super) fn multiply(
        &self,
        kernel: &'static str,
        x: &CudaTensor<D::Buffer>,
        weight: &CudaWeights<D::Buffer>,
        bias: Option<&CudaVector<D::Buffer>>,
        out: &mut CudaTensor<D::Buffer>,
    ) -> Result<(), KernelError> {
        let (rows, inputs) = (count(kernel, x.rows)?, count(kernel, weight.shape.in_features)?);
        let outputs = count(kernel, weight.shape.out_features)?;
        if self.kernels == KernelSet::Fast && fits_tensor_cores(x.dtype, inputs) {
            let weight_rows = if weight.shape.gated { count(kernel, 2 * weight.shape.out_features)? } else { outputs };
            let launch = Launch {
                kernel: format!("{kernel}_mma_{}", x.dtype),
                grid: [weight_rows.div_ceil(FAST_TILE), rows.div_ceil(FAST_TILE), 1],
                threads: FAST_THREADS,
                shared_bytes: FAST_SHARED_BYTES,
            };
            let mut arguments = [
                Argument::Read(&x.buffer),
                Argument::Read(&weight.buffer),
                bias.map_or(Argument::Null, |bias| Argument::Read(&bias.buffer)),
                Argument::U32(rows),
                Argument::U32(inputs),
                Argument::U32(outputs),
                Argument::Write(&mut out.buffer),
            ];
            return self.launch(&launch, &mut arguments);
        }
        let launch = Launch {
            kernel: format!("{kernel}_{}", x.dtype),
            grid: [rows, outputs.div_ceil(PLAIN_THREADS), 1],
            threads: PLAIN_THREADS,
            shared_bytes: 0,
        };
        let mut arguments = [
            Argument::Read(&x.buffer),
            Argument::Read(&weight.buffer),
            bias.map_or(Argument::Null, |bias| Argument::Read(&bias.buffer)),
            Argument::U32(inputs),
            Argument::U32(outputs),
            Argument::Write(&mut out.buffer),
        ];
        self.launch(&launch, &mut arguments)
    }
}
