//! Launches of the fused projection of queries, keys and values, and the choice of the kernel that rotates them.

use super::folded_norm::RowSquares;
use super::registry::{Kernel, LINEAR_MMA_TILE, LINEAR_WGMMA_BOX, LINEAR_WGMMA_TILE, Operation, Variant, require};
use super::tiles::fits_tensor_cores;
use super::{Argument, CudaBackend, CudaTensor, CudaVector, CudaWeights, Device, Tiles, count};
use crate::backend::{AttentionShape, QkvPart, QkvProjection, Rotation};
use crate::error::KernelError;
use crate::folded_norm::FoldedNorm;

const OP: &str = "project qkv";

/// The columns of the GEMM that a launch computes: `first` to `end - 1`.
#[derive(Clone, Copy)]
struct QkvColumns {
    first: usize,
    end: usize,
    query_width: usize,
    total: usize,
}

impl QkvColumns {
    fn of(shape: AttentionShape, part: QkvPart) -> Self {
        let (query_width, total) = (shape.query_width(), shape.query_width() + 2 * shape.kv_width());
        let (first, end) = match part {
            QkvPart::All => (0, total),
            QkvPart::Query => (0, query_width),
            QkvPart::KeyValue => (query_width, total),
        };
        QkvColumns { first, end, query_width, total }
    }
}

/// Whether a kernel finds both columns of a pair in one thread: see the headers of the sources.
fn rotates(variant: Variant, head_dim: usize, rotary_dim: usize) -> bool {
    match variant {
        Variant::Mma => head_dim.is_multiple_of(16) && rotary_dim.is_multiple_of(16),
        Variant::Wgmma => {
            let half = rotary_dim / 2;
            head_dim.is_power_of_two()
                && head_dim <= LINEAR_WGMMA_TILE.n as usize
                && half.is_power_of_two()
                && half >= 8
        }
        Variant::Plain | Variant::Wide => true,
    }
}

fn read_vector<B>(vector: Option<&CudaVector<B>>) -> Argument<'_, B> {
    vector.map_or(Argument::Null, |vector| Argument::Read(&vector.buffer))
}

fn numbers<'a, B>(values: &[usize]) -> Result<Vec<Argument<'a, B>>, KernelError> {
    values.iter().map(|value| Ok(Argument::U32(count(OP, *value)?))).collect()
}

impl<D: Device> CudaBackend<D> {
    /// The projection, and the rotation by a launch of its own where the kernel of the GEMM does not rotate. Both depend on
    /// widths alone, so that parts of the projection and batches have the same bits.
    #[expect(clippy::too_many_arguments, reason = "the operands of a GEMM with two outputs")]
    pub(super) fn qkv(
        &self,
        x: &CudaTensor<D::Buffer>,
        norm: Option<FoldedNorm<'_, CudaTensor<D::Buffer>>>,
        weight: &CudaWeights<D::Buffer>,
        bias: Option<&CudaVector<D::Buffer>>,
        projection: &QkvProjection<'_, CudaVector<D::Buffer>>,
        query: &mut CudaTensor<D::Buffer>,
        key_value: &mut CudaTensor<D::Buffer>,
    ) -> Result<(), KernelError> {
        let QkvProjection { shape, part, rotation } = projection;
        let QkvColumns { query_width, total, .. } = QkvColumns::of(*shape, *part);
        let variant = match self.uses_tensor_cores() && fits_tensor_cores(x.dtype, count(OP, x.columns)?) {
            // TMA takes rows of multiples of 16 bytes.
            true if self.uses_wgmma()
                && x.columns > 0
                && [query_width, total].iter().all(|width| width.is_multiple_of(8)) =>
            {
                Variant::Wgmma
            }
            true => Variant::Mma,
            false => Variant::Plain,
        };
        if norm.is_some() && variant == Variant::Plain {
            return Err(KernelError::shape(OP, format!("a folded norm of {} columns of {}", x.columns, x.dtype)));
        }
        let fused = rotation.as_ref().filter(|rotation| rotates(variant, shape.head_dim, rotation.rotary_dim));
        // A box of the wgmma kernel belongs to one of the outputs.
        let splits = variant == Variant::Wgmma && !query_width.is_multiple_of(LINEAR_WGMMA_BOX as usize);
        let parts: &[QkvPart] = match part {
            QkvPart::All if splits => &[QkvPart::Query, QkvPart::KeyValue],
            part => std::slice::from_ref(part),
        };
        for part in parts {
            let columns = QkvColumns::of(*shape, *part);
            let squares = norm.as_ref().map_or(RowSquares::None, |norm| RowSquares::Scale(norm.squares, norm.eps));
            self.launch_qkv(variant, x, squares, weight, bias, (*shape, columns), fused, query, key_value)?;
        }
        let Some(Rotation { rotary_dim, positions, cos, sin }) = rotation.as_ref().filter(|_| fused.is_none()) else {
            return Ok(());
        };
        if part.has_query() {
            self.rotate_rows(query, shape.n_heads, shape.head_dim, *rotary_dim, positions, cos, sin)?;
        }
        if part.has_key_value() {
            self.rotate_rows(key_value, shape.n_kv_heads, shape.head_dim, *rotary_dim, positions, cos, sin)?;
        }
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "the operands of a GEMM and its launch")]
    fn launch_qkv(
        &self,
        variant: Variant,
        x: &CudaTensor<D::Buffer>,
        squares: RowSquares<'_, D::Buffer>,
        weight: &CudaWeights<D::Buffer>,
        bias: Option<&CudaVector<D::Buffer>>,
        (shape, columns): (AttentionShape, QkvColumns),
        rotation: Option<&Rotation<'_, CudaVector<D::Buffer>>>,
        query: &mut CudaTensor<D::Buffer>,
        key_value: &mut CudaTensor<D::Buffer>,
    ) -> Result<(), KernelError> {
        let kernel = require(OP, Operation::LinearQkv, variant, x.dtype)?;
        let QkvColumns { first, end, query_width, total } = columns;
        let (m, n) = (count(OP, x.rows)?, count(OP, end - first)?);
        let positions = rotation.map(|rotation| self.upload(rotation.positions)).transpose()?;
        let rotated = rotation.map_or(0, |_| query_width + shape.kv_width());
        let rotary_dim = rotation.map_or(0, |rotation| rotation.rotary_dim);
        let rotary = [
            positions.as_deref().map_or(Argument::Null, Argument::Read),
            read_vector(rotation.map(|rotation| rotation.cos)),
            read_vector(rotation.map(|rotation| rotation.sin)),
            Argument::U32(count(OP, rotated)?),
            Argument::U32(count(OP, shape.head_dim)?),
            Argument::U32(count(OP, rotary_dim)?),
        ];
        let launch = kernel.launch(self.qkv_grid(kernel, m, n)?);
        let mut arguments = Vec::with_capacity(19);
        if variant == Variant::Wgmma {
            let tile = LINEAR_WGMMA_TILE;
            let tiles = |buffer, rows: usize, columns: usize, tile_rows, tile_columns| {
                Argument::Tiles(Tiles {
                    buffer,
                    dtype: x.dtype,
                    rows,
                    columns,
                    tile_rows,
                    tile_columns,
                    swizzled: true,
                })
            };
            let output = |buffer, columns| tiles(buffer, x.rows, columns, LINEAR_WGMMA_BOX, LINEAR_WGMMA_BOX);
            // An output without columns of this launch may have fewer rows: its map is that of the other one.
            let queries = (&query.buffer, query_width);
            let keys_values = (&key_value.buffer, total - query_width);
            let has_query = first < query_width;
            let has_key_value = end > query_width;
            let (to_query, to_key_value) =
                (if has_query { queries } else { keys_values }, if has_key_value { keys_values } else { queries });
            arguments.push(tiles(&x.buffer, x.rows, x.columns, tile.m, tile.k));
            arguments.push(tiles(&weight.buffer, total, x.columns, tile.multicast_n(), tile.k));
            arguments.push(output(to_query.0, to_query.1));
            arguments.push(output(to_key_value.0, to_key_value.1));
            arguments.push(read_vector(bias));
            arguments.extend(numbers(&[x.rows, x.columns, first, end, query_width])?);
            arguments.extend(rotary);
        } else {
            arguments.extend([Argument::Read(&x.buffer), Argument::Read(&weight.buffer), read_vector(bias)]);
            if variant == Variant::Mma {
                arguments.extend(numbers(&[x.rows, x.columns, total, first, end, query_width])?);
            } else {
                arguments.extend(numbers(&[x.columns, first, end, query_width, total - query_width])?);
            }
            arguments.extend(rotary);
            arguments.extend([Argument::Write(&mut query.buffer), Argument::Write(&mut key_value.buffer)]);
        }
        if variant != Variant::Plain {
            arguments.extend(squares.arguments());
        }
        self.launch(&launch, &mut arguments)
    }

    fn qkv_grid(&self, kernel: &Kernel, m: u32, n: u32) -> Result<[u32; 3], KernelError> {
        Ok(match kernel.variant {
            Variant::Wgmma => {
                let blocks = LINEAR_WGMMA_TILE.persistent_blocks(m, n, self.device.multiprocessors());
                [count(OP, blocks)?, 1, 1]
            }
            Variant::Mma => [n.div_ceil(LINEAR_MMA_TILE.n), m.div_ceil(LINEAR_MMA_TILE.m), 1],
            Variant::Plain | Variant::Wide => [m, n.div_ceil(kernel.threads), 1],
        })
    }
}
