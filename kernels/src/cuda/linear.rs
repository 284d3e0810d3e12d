//! Launches of products with weights: `linear.cu` and, on tensor cores, `linear_mma.cu` or `linear_wgmma.cu`.

use std::borrow::Cow;

use super::names::typed;
use super::{Argument, CudaBackend, CudaTensor, CudaVector, CudaWeights, Device, Launch, Tiles, count};
use crate::dtype::DType;
use crate::error::KernelError;

/// Threads of a block of the plain kernels, one an output.
const PLAIN_THREADS: u32 = 128;

/// How the kernels on tensor cores cut a product into blocks. Never by the number of rows: a row's bits are its own.
pub(super) struct Tiling {
    rows: u32,
    weight_rows: u32,
    /// Inputs of a step.
    inputs: u32,
    /// Blocks with consecutive rows and the same weight rows, of which each copies its part for all.
    cluster_blocks: u32,
    pub(super) threads: u32,
    pub(super) shared_bytes: u32,
}

/// Of `linear_mma.cu`: three stages of both tiles, of 2-byte elements.
pub(super) const MMA: Tiling =
    Tiling { rows: 128, weight_rows: 128, inputs: 32, cluster_blocks: 1, threads: 256, shared_bytes: 3 * 256 * 32 * 2 };

/// Of `linear_wgmma.cu`: four stages, which the kernel moves to the next multiple of 1024 bytes.
pub(super) const WGMMA: Tiling = Tiling {
    rows: 128,
    weight_rows: 256,
    inputs: 64,
    cluster_blocks: 2,
    threads: 384,
    shared_bytes: 4 * 384 * 64 * 2 + 1024,
};

impl Tiling {
    /// Blocks of a product: whole clusters of them for each tile of weight rows.
    fn blocks(&self, rows: u32, weight_rows: u32) -> usize {
        let row_tiles = rows.div_ceil(self.rows).next_multiple_of(self.cluster_blocks);
        row_tiles as usize * weight_rows.div_ceil(self.weight_rows) as usize
    }

    /// Rows of weights that a block copies at a time, of the tile that its cluster shares.
    fn copied_weight_rows(&self) -> u32 {
        self.weight_rows / self.cluster_blocks
    }
}

/// What happens to the result of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Product {
    /// It is stored.
    Plain,
    /// It is added to what is there.
    Residual,
    /// Two of them become one by the gated unit.
    Gated,
}

/// What a product is computed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Plain,
    Mma,
    Wgmma,
}

impl Product {
    fn name(self) -> &'static str {
        match self {
            Product::Plain => "linear",
            Product::Residual => "linear_residual",
            Product::Gated => "linear_swiglu",
        }
    }

    fn kernel(self, unit: Unit, dtype: DType) -> Cow<'static, str> {
        Cow::Borrowed(match (self, unit) {
            (Product::Plain, Unit::Plain) => typed!("linear", dtype),
            (Product::Plain, Unit::Mma) => typed!("linear_mma", dtype),
            (Product::Plain, Unit::Wgmma) => typed!("linear_wgmma", dtype),
            (Product::Residual, Unit::Plain) => typed!("linear_residual", dtype),
            (Product::Residual, Unit::Mma) => typed!("linear_residual_mma", dtype),
            (Product::Residual, Unit::Wgmma) => typed!("linear_residual_wgmma", dtype),
            (Product::Gated, Unit::Plain) => typed!("linear_swiglu", dtype),
            (Product::Gated, Unit::Mma) => typed!("linear_swiglu_mma", dtype),
            (Product::Gated, Unit::Wgmma) => typed!("linear_swiglu_wgmma", dtype),
        })
    }
}

/// Whether the fast kernels take rows of `width` elements of `dtype`: they copy 16 bytes at a time.
pub(super) fn fits_tensor_cores(dtype: DType, width: u32) -> bool {
    dtype != DType::F32 && width.is_multiple_of(8)
}

impl<D: Device> CudaBackend<D> {
    /// The product of `x` and `weight`, with what happens to it.
    pub(super) fn multiply(
        &self,
        product: Product,
        x: &CudaTensor<D::Buffer>,
        weight: &CudaWeights<D::Buffer>,
        bias: Option<&CudaVector<D::Buffer>>,
        out: &mut CudaTensor<D::Buffer>,
    ) -> Result<(), KernelError> {
        let op = product.name();
        let (rows, inputs) = (count(op, x.rows)?, count(op, weight.shape.in_features)?);
        let outputs = count(op, weight.shape.out_features)?;
        let bias = bias.map_or(Argument::Null, |bias| Argument::Read(&bias.buffer));
        if self.uses_tensor_cores() && fits_tensor_cores(x.dtype, inputs) {
            let weight_rows = if weight.shape.gated { count(op, 2 * weight.shape.out_features)? } else { outputs };
            if self.uses_wgmma() && inputs > 0 {
                let tiles = |buffer, rows: u32, tile_rows| Tiles {
                    buffer,
                    dtype: x.dtype,
                    rows: rows as usize,
                    columns: inputs as usize,
                    tile_rows,
                    tile_columns: WGMMA.inputs,
                    swizzled: true,
                };
                let launch = Launch {
                    kernel: product.kernel(Unit::Wgmma, x.dtype),
                    grid: [count(op, WGMMA.blocks(rows, weight_rows))?, 1, 1],
                    threads: WGMMA.threads,
                    shared_bytes: WGMMA.shared_bytes,
                };
                let mut arguments = [
                    Argument::Tiles(tiles(&x.buffer, rows, WGMMA.rows)),
                    Argument::Tiles(tiles(&weight.buffer, weight_rows, WGMMA.copied_weight_rows())),
                    bias,
                    Argument::U32(rows),
                    Argument::U32(inputs),
                    Argument::U32(outputs),
                    Argument::Write(&mut out.buffer),
                ];
                return self.launch(&launch, &mut arguments);
            }
            let launch = Launch {
                kernel: product.kernel(Unit::Mma, x.dtype),
                grid: [weight_rows.div_ceil(MMA.weight_rows), rows.div_ceil(MMA.rows), 1],
                threads: MMA.threads,
                shared_bytes: MMA.shared_bytes,
            };
            let mut arguments = [
                Argument::Read(&x.buffer),
                Argument::Read(&weight.buffer),
                bias,
                Argument::U32(rows),
                Argument::U32(inputs),
                Argument::U32(outputs),
                Argument::Write(&mut out.buffer),
            ];
            return self.launch(&launch, &mut arguments);
        }
        let launch = Launch {
            kernel: product.kernel(Unit::Plain, x.dtype),
            grid: [rows, outputs.div_ceil(PLAIN_THREADS), 1],
            threads: PLAIN_THREADS,
            shared_bytes: 0,
        };
        let mut arguments = [
            Argument::Read(&x.buffer),
            Argument::Read(&weight.buffer),
            bias,
            Argument::U32(inputs),
            Argument::U32(outputs),
            Argument::Write(&mut out.buffer),
        ];
        self.launch(&launch, &mut arguments)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_whole_clusters_for_each_tile_of_weight_rows() {
        let grids = [(1, 1), (128, 256), (129, 256), (257, 257), (1867, 2048)];
        assert_eq!(grids.map(|(rows, weight_rows)| WGMMA.blocks(rows, weight_rows)), [2, 2, 2, 8, 128]);
        assert_eq!(grids.map(|(rows, weight_rows)| MMA.blocks(rows, weight_rows)), [1, 2, 4, 9, 240]);
        assert_eq!((WGMMA.copied_weight_rows(), MMA.copied_weight_rows()), (128, 128));
    }
}
