//! Launches of products with weights: `linear.cu`.

use super::{Argument, CudaBackend, CudaTensor, CudaVector, CudaWeights, Device, Launch, count};
use crate::error::KernelError;

/// Threads of a block of the plain kernels, one an output.
const PLAIN_THREADS: u32 = 128;

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
