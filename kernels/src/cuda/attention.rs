//! Launches of attention, `attention.cu` and, on tensor cores, `attention_mma.cu`, and the tables of tiles and key rows.

use super::linear::fits_tensor_cores;
use super::registry::{MAX_HEAD_DIM, Tile, Variant, find_attention};
use super::{Argument, CudaBackend, CudaTensor, Device, count};
use crate::backend::{AttentionLayout, AttentionShape, ScoreRule};
use crate::error::KernelError;

const OP: &str = "attention";

/// A layout in the form of the kernels.
struct LayoutTables {
    /// `[first query row, its position, rows, first entry of the sequence in key_rows]` of each tile.
    tiles: Vec<[u32; 4]>,
    /// Row of the keys and values at each position of each sequence, sequence after sequence.
    key_rows: Vec<u32>,
}

impl LayoutTables {
    /// Splits each segment into tiles of at most `tile` rows.
    fn new(layout: &AttentionLayout, tile: usize) -> Result<Self, KernelError> {
        let mut tables = LayoutTables { tiles: Vec::new(), key_rows: Vec::new() };
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

/// The window for the kernels: 0 if all rows see all positions before them, also where a window is as long as every sequence.
fn window_argument(layout: &AttentionLayout, window: Option<usize>) -> usize {
    let longest = layout.segments.iter().map(|segment| segment.start_position + segment.len).max().unwrap_or(0);
    window.filter(|window| *window < longest).unwrap_or(0)
}

impl<D: Device> CudaBackend<D> {
    /// Causal attention of the rows of `layout`, with the scores of `scores`.
    pub(super) fn attend(
        &self,
        query: &CudaTensor<D::Buffer>,
        keys_values: &CudaTensor<D::Buffer>,
        layout: &AttentionLayout,
        shape: AttentionShape,
        scores: ScoreRule,
        out: &mut CudaTensor<D::Buffer>,
    ) -> Result<(), KernelError> {
        // The tensor-core kernel scales after it has taken the largest score, so it needs a positive scale.
        let fast = self.uses_tensor_cores()
            && fits_tensor_cores(query.dtype, count(OP, shape.head_dim)?)
            && scores.scale > 0.0;
        let variant = if fast { Variant::Mma } else { Variant::Plain };
        let kernel = find_attention(variant, query.dtype, shape.head_dim).ok_or_else(|| {
            let what = format!("heads of {} elements, the kernels take at most {MAX_HEAD_DIM}", shape.head_dim);
            KernelError::shape(OP, what)
        })?;
        let rows_per_tile = if let Tile::Attention { queries, .. } = kernel.tile { queries } else { 1 };
        let tables = LayoutTables::new(layout, rows_per_tile)?;
        let launch = kernel.launch([count(OP, tables.tiles.len())?, count(OP, shape.n_heads)?, 1]);
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
            Argument::F32(scores.scale),
            Argument::U32(count(OP, window_argument(layout, scores.window))?),
            Argument::F32(scores.soft_cap.unwrap_or(0.0)),
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
        let tables = LayoutTables::new(&layout, 2).unwrap();
        assert_eq!(tables.tiles, [[4, 2, 2, 0], [6, 4, 1, 0], [0, 0, 1, 5]]);
        assert_eq!(tables.key_rows, [9, 10, 4, 5, 6, 0, 0, 1, 2, 3, 4]);
    }

    #[test]
    fn windows_as_long_as_every_sequence_are_none() {
        let segment = |start_position, len| AttentionSegment { query_row: 0, start_position, len, keys: Vec::new() };
        let layout = AttentionLayout { segments: vec![segment(0, 3), segment(4, 2)] };
        let argument = |window| window_argument(&layout, window);
        assert_eq!([None, Some(1), Some(5), Some(6), Some(usize::MAX)].map(argument), [0, 1, 5, 0, 0]);
        assert_eq!(window_argument(&AttentionLayout::default(), Some(1)), 0);
    }
}
