//! Launches of the GEMMs with weights: `linear.cu` and, on tensor cores, `linear_mma.cu` or `linear_wgmma.cu`.

use super::folded_norm::RowSquares;
use super::registry::{Kernel, LINEAR_MMA_TILE, LINEAR_WGMMA_BOX, LINEAR_WGMMA_TILE, Operation, Variant, require};
use super::tiles::fits_tensor_cores;
use super::{Argument, CudaBackend, CudaTensor, CudaVector, CudaWeights, Device, Tiles, count};
use crate::backend::Activation;
use crate::error::KernelError;

/// The name of a GEMM in errors.
fn op_name(operation: Operation) -> &'static str {
    match operation {
        Operation::LinearResidual => "linear_residual",
        Operation::LinearGated => "linear_gated",
        _ => "linear",
    }
}

/// The value of `enum Activation` of the kernels: none, and then [`Activation::ALL`].
fn activation_argument(activation: Option<Activation>) -> u32 {
    match activation {
        None => 0,
        Some(Activation::Silu) => 1,
        Some(Activation::Gelu) => 2,
        Some(Activation::GeluTanh) => 3,
    }
}

/// The numbers that a GEMM's kernel takes: M, N and K, the columns of the result, half of N for a gated GEMM, and the
/// activation.
#[derive(Clone, Copy)]
struct GemmNumbers {
    m: u32,
    n: u32,
    k: u32,
    out_features: u32,
    activation: u32,
}

impl<D: Device> CudaBackend<D> {
    /// The GEMM of `x` and `weight` with the epilogue of `operation`. [`Operation::LinearResidual`] has no activation, and only it
    /// writes sums of squares.
    #[expect(clippy::too_many_arguments, reason = "the operands of a GEMM and of its epilogue")]
    pub(super) fn matmul(
        &self,
        operation: Operation,
        x: &CudaTensor<D::Buffer>,
        weight: &CudaWeights<D::Buffer>,
        bias: Option<&CudaVector<D::Buffer>>,
        activation: Option<Activation>,
        out: &mut CudaTensor<D::Buffer>,
        squares: RowSquares<'_, D::Buffer>,
    ) -> Result<(), KernelError> {
        let op = op_name(operation);
        let (m, k) = (count(op, x.rows)?, count(op, weight.shape.in_features)?);
        let out_features = count(op, weight.shape.out_features)?;
        let n = if weight.shape.gated { count(op, 2 * weight.shape.out_features)? } else { out_features };
        let activation = activation_argument(activation);
        let numbers = GemmNumbers { m, n, k, out_features, activation };
        let bias = bias.map_or(Argument::Null, |bias| Argument::Read(&bias.buffer));
        let variant = match self.uses_tensor_cores() && fits_tensor_cores(x.dtype, k) {
            // TMA takes rows of multiples of 16 bytes.
            true if self.uses_wgmma() && k > 0 && out_features.is_multiple_of(8) => Variant::Wgmma,
            true => Variant::Mma,
            false => Variant::Plain,
        };
        let kernel = require(op, operation, variant, x.dtype)?;
        match variant {
            Variant::Wgmma => self.launch_wgmma(op, kernel, numbers, x, weight, bias, out, squares),
            Variant::Mma => {
                let tile = LINEAR_MMA_TILE;
                let launch = kernel.launch([n.div_ceil(tile.n), m.div_ceil(tile.m), 1]);
                let [squares, eps] = squares.arguments();
                let mut arguments = [
                    Argument::Read(&x.buffer),
                    Argument::Read(&weight.buffer),
                    bias,
                    Argument::U32(m),
                    Argument::U32(k),
                    Argument::U32(out_features),
                    Argument::U32(activation),
                    Argument::Write(&mut out.buffer),
                    squares,
                    eps,
                ];
                self.launch(&launch, &mut arguments)
            }
            _ if matches!(squares, RowSquares::Scale(..)) => {
                Err(KernelError::shape(op, format!("a folded norm of {k} columns of {}", x.dtype)))
            }
            _ => {
                let launch = kernel.launch([m, out_features.div_ceil(kernel.threads), 1]);
                let mut arguments = [
                    Argument::Read(&x.buffer),
                    Argument::Read(&weight.buffer),
                    bias,
                    Argument::U32(k),
                    Argument::U32(out_features),
                    Argument::U32(activation),
                    Argument::Write(&mut out.buffer),
                ];
                self.launch(&launch, &mut arguments)?;
                match squares {
                    RowSquares::Write(squares) => self.sum_squares(out, x.rows, squares),
                    _ => Ok(()),
                }
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the operands of a GEMM and its launch")]
    fn launch_wgmma(
        &self,
        op: &'static str,
        kernel: &Kernel,
        numbers: GemmNumbers,
        x: &CudaTensor<D::Buffer>,
        weight: &CudaWeights<D::Buffer>,
        bias: Argument<'_, D::Buffer>,
        out: &mut CudaTensor<D::Buffer>,
        squares: RowSquares<'_, D::Buffer>,
    ) -> Result<(), KernelError> {
        let [squares, eps] = squares.arguments();
        let GemmNumbers { m, n, k, out_features, activation } = numbers;
        let tile = LINEAR_WGMMA_TILE;
        let tiles = |buffer, rows: u32, columns: u32, tile_rows, tile_columns| {
            let (rows, columns) = (rows as usize, columns as usize);
            Argument::Tiles(Tiles { buffer, dtype: x.dtype, rows, columns, tile_rows, tile_columns, swizzled: true })
        };
        let blocks = tile.persistent_blocks(m, n, self.device.multiprocessors());
        let launch = kernel.launch([count(op, blocks)?, 1, 1]);
        let mut arguments = [
            tiles(&x.buffer, m, k, tile.m, tile.k),
            tiles(&weight.buffer, n, k, tile.multicast_n(), tile.k),
            tiles(&out.buffer, m, out_features, LINEAR_WGMMA_BOX, LINEAR_WGMMA_BOX),
            bias,
            Argument::U32(m),
            Argument::U32(k),
            Argument::U32(out_features),
            Argument::U32(activation),
            squares,
            eps,
        ];
        self.launch(&launch, &mut arguments)
    }
}
