//! Launches of the GEMMs with weights: `linear.cu` and, on tensor cores, `linear_mma.cu` or `linear_wgmma.cu`.

use super::registry::{Kernel, LINEAR_MMA_TILE, LINEAR_WGMMA_TILE, Operation, Variant, require};
use super::{Argument, CudaBackend, CudaTensor, CudaVector, CudaWeights, Device, Tiles, count};
use crate::dtype::DType;
use crate::error::KernelError;

/// The name of a GEMM in errors.
fn op_name(operation: Operation) -> &'static str {
    match operation {
        Operation::LinearResidual => "linear_residual",
        Operation::LinearSwiGlu => "linear_swiglu",
        _ => "linear",
    }
}

/// Whether the tensor-core kernels take rows of `width` elements of `dtype`: they copy 16 bytes at a time.
pub(super) fn fits_tensor_cores(dtype: DType, width: u32) -> bool {
    dtype != DType::F32 && width.is_multiple_of(8)
}

/// M, N and K of a GEMM, and the columns of its result: half of N for a gated one.
#[derive(Clone, Copy)]
struct GemmSize {
    m: u32,
    n: u32,
    k: u32,
    out_features: u32,
}

impl<D: Device> CudaBackend<D> {
    /// The GEMM of `x` and `weight` with the epilogue of `operation`.
    pub(super) fn matmul(
        &self,
        operation: Operation,
        x: &CudaTensor<D::Buffer>,
        weight: &CudaWeights<D::Buffer>,
        bias: Option<&CudaVector<D::Buffer>>,
        out: &mut CudaTensor<D::Buffer>,
    ) -> Result<(), KernelError> {
        let op = op_name(operation);
        let (m, k) = (count(op, x.rows)?, count(op, weight.shape.in_features)?);
        let out_features = count(op, weight.shape.out_features)?;
        let n = if weight.shape.gated { count(op, 2 * weight.shape.out_features)? } else { out_features };
        let size = GemmSize { m, n, k, out_features };
        let bias = bias.map_or(Argument::Null, |bias| Argument::Read(&bias.buffer));
        let variant = match self.uses_tensor_cores() && fits_tensor_cores(x.dtype, k) {
            true if self.uses_wgmma() && k > 0 => Variant::Wgmma,
            true => Variant::Mma,
            false => Variant::Plain,
        };
        let kernel = require(op, operation, variant, x.dtype)?;
        match variant {
            Variant::Wgmma => self.launch_wgmma(op, kernel, size, x, weight, bias, out),
            Variant::Mma => {
                let tile = LINEAR_MMA_TILE;
                let launch = kernel.launch([n.div_ceil(tile.n), m.div_ceil(tile.m), 1]);
                let mut arguments = [
                    Argument::Read(&x.buffer),
                    Argument::Read(&weight.buffer),
                    bias,
                    Argument::U32(m),
                    Argument::U32(k),
                    Argument::U32(out_features),
                    Argument::Write(&mut out.buffer),
                ];
                self.launch(&launch, &mut arguments)
            }
            _ => {
                let launch = kernel.launch([m, out_features.div_ceil(kernel.threads), 1]);
                let mut arguments = [
                    Argument::Read(&x.buffer),
                    Argument::Read(&weight.buffer),
                    bias,
                    Argument::U32(k),
                    Argument::U32(out_features),
                    Argument::Write(&mut out.buffer),
                ];
                self.launch(&launch, &mut arguments)
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the operands of a GEMM and its launch")]
    fn launch_wgmma(
        &self,
        op: &'static str,
        kernel: &Kernel,
        size: GemmSize,
        x: &CudaTensor<D::Buffer>,
        weight: &CudaWeights<D::Buffer>,
        bias: Argument<'_, D::Buffer>,
        out: &mut CudaTensor<D::Buffer>,
    ) -> Result<(), KernelError> {
        let GemmSize { m, n, k, out_features } = size;
        let tile = LINEAR_WGMMA_TILE;
        let tiles = |buffer, rows: u32, tile_rows| Tiles {
            buffer,
            dtype: x.dtype,
            rows: rows as usize,
            columns: k as usize,
            tile_rows,
            tile_columns: tile.k,
            swizzled: true,
        };
        let launch = kernel.launch([count(op, tile.blocks(m, n))?, 1, 1]);
        let mut arguments = [
            Argument::Tiles(tiles(&x.buffer, m, tile.m)),
            Argument::Tiles(tiles(&weight.buffer, n, tile.multicast_n())),
            bias,
            Argument::U32(m),
            Argument::U32(k),
            Argument::U32(out_features),
            Argument::Write(&mut out.buffer),
        ];
        self.launch(&launch, &mut arguments)
    }
}
