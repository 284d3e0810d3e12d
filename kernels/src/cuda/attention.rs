//! Launches of attention, `attention.cu` and, on tensor cores, `attention_mma.cu`, and the tables that tell a block which rows are its own.

use super::linear::fits_tensor_cores;
use super::names::typed;
use super::{Argument, CudaBackend, CudaTensor, Device, Launch, count};
use crate::backend::{AttentionLayout, AttentionShape};
use crate::error::KernelError;

const OP: &str = "attention";

/// The widest head that the kernels have registers for.
const MAX_HEAD_DIM: usize = 256;

/// Query rows of a tile of the plain kernels.
const PLAIN_TILE: usize = 1;

/// Query rows of a tile of the fast kernels.
const FAST_TILE: usize = 64;

/// Widths that the fast kernels are compiled for; narrower heads are filled with zeros in shared memory.
const FAST_HEAD_DIMS: [u32; 3] = [64, 128, 256];

/// Threads of a block.
pub(super) const THREADS: u32 = 128;

/// Shared memory of a block of the fast kernels of heads of `width`: tiles of queries, keys and values, 64 rows of 2-byte
/// elements each.
pub(super) const fn fast_shared_bytes(width: u32) -> u32 {
    3 * 64 * width * 2
}

/// A layout as the kernels read it.
struct Tables {
    /// `[first query row, its position, rows, first entry of the sequence in key_rows]` of each tile.
    tiles: Vec<[u32; 4]>,
    /// Row of the keys and values at each position of each sequence, sequence after sequence.
    key_rows: Vec<u32>,
}

impl Tables {
    /// Cuts each segment into tiles of at most `tile` rows.
    fn new(layout: &AttentionLayout, tile: usize) -> Result<Self, KernelError> {
        let mut tables = Tables { tiles: Vec::new(), key_rows: Vec::new() };
        for segment in &layout.segments {
            let first_key = count(OP, tables.key_rows.len())?;
            let n_keys = segment.start_position + segment.len;
            let rows = segment.keys.iter().flat_map(|&(first, len)| first..first + len).take(n_keys);
            for row in rows {
                tables.key_rows.push(count(OP, row)?);
            }
            for first in (0..segment.len).step_by(tile) {
                tables.tiles.push([
                    count(OP, segment.query_row + first)?,
                    count(OP, segment.start_position + first)?,
                    count(OP, tile.min(segment.len - first))?,
                    first_key,
                ]);
            }
        }
        Ok(tables)
    }
}

impl<D: Device> CudaBackend<D> {
    /// Causal attention of the rows that `layout` names.
    pub(super) fn attend(
        &self,
        query: &CudaTensor<D::Buffer>,
        keys_values: &CudaTensor<D::Buffer>,
        layout: &AttentionLayout,
        shape: AttentionShape,
        out: &mut CudaTensor<D::Buffer>,
    ) -> Result<(), KernelError> {
        if shape.head_dim > MAX_HEAD_DIM {
            let what = format!("heads of {} elements, the kernels take {MAX_HEAD_DIM} at most", shape.head_dim);
            return Err(KernelError::shape(OP, what));
        }
        let fast = self.uses_tensor_cores() && fits_tensor_cores(query.dtype, count(OP, shape.head_dim)?);
        let tables = Tables::new(layout, if fast { FAST_TILE } else { PLAIN_TILE })?;
        let padded = FAST_HEAD_DIMS.into_iter().find(|width| shape.head_dim <= *width as usize).unwrap_or_default();
        let launch = Launch {
            kernel: match (fast, padded) {
                (false, _) => typed!("attention", query.dtype),
                (true, 64) => typed!("attention_mma", query.dtype, "_64"),
                (true, 128) => typed!("attention_mma", query.dtype, "_128"),
                (true, _) => typed!("attention_mma", query.dtype, "_256"),
            }
            .into(),
            grid: [count(OP, tables.tiles.len())?, count(OP, shape.n_heads)?, 1],
            threads: THREADS,
            shared_bytes: if fast { fast_shared_bytes(padded) } else { 0 },
        };
        let tiles = self.upload(tables.tiles.as_flattened())?;
        let key_rows = self.upload(&tables.key_rows)?;
        let mut arguments = [
            Argument::Read(&query.buffer),
            Argument::Read(&keys_values.buffer),
            Argument::Read(&*tiles),
            Argument::Read(&*key_rows),
            Argument::U32(count(OP, shape.n_heads)?),
            Argument::U32(count(OP, shape.n_kv_heads)?),
            Argument::U32(count(OP, shape.head_dim)?),
            Argument::F32(1.0 / (shape.head_dim as f32).sqrt()),
            Argument::Write(&mut out.buffer),
        ];
        self.launch(&launch, &mut arguments)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::AttentionSegment;

    #[test]
    fn segments_become_tiles_and_positions_become_rows() {
        let layout = AttentionLayout {
            segments: vec![
                AttentionSegment { query_row: 4, start_position: 2, len: 3, keys: vec![(9, 2), (4, 6)] },
                AttentionSegment { query_row: 0, start_position: 0, len: 1, keys: vec![(0, 1)] },
                AttentionSegment { query_row: 0, start_position: 5, len: 0, keys: vec![(0, 5)] },
            ],
        };
        let tables = Tables::new(&layout, 2).unwrap();
        assert_eq!(tables.tiles, [[4, 2, 2, 0], [6, 4, 1, 0], [0, 0, 1, 5]]);
        assert_eq!(tables.key_rows, [9, 10, 4, 5, 6, 0, 0, 1, 2, 3, 4]);
    }
}
