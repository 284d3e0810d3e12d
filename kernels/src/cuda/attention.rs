//! Launches of attention, `attention.cu` and, on tensor cores, `attention_mma.cu` or `attention_wgmma.cu`, and their tables of tiles
//! and key rows.

use std::cmp::Reverse;

use super::registry::{ATTENTION_WGMMA_BOX, Kernel, MAX_HEAD_DIM, Tile, Variant, find_attention};
use super::tiles::fits_tensor_cores;
use super::{Argument, CudaBackend, CudaTensor, Device, Tiles, count};
use crate::backend::{AttentionLayout, AttentionSegment, AttentionShape, ScoreRule};
use crate::dtype::DType;
use crate::error::KernelError;

const OP: &str = "attention";

/// A layout in the form of `attention.cu`.
struct LayoutTables {
    /// `[query row, its position, 1, first entry of the sequence in key_rows]` of each row.
    tiles: Vec<[u32; 4]>,
    /// Row of the keys and values at each position of each sequence, sequence after sequence.
    key_rows: Vec<u32>,
}

impl LayoutTables {
    fn new(layout: &AttentionLayout) -> Result<Self, KernelError> {
        let mut tables = LayoutTables { tiles: Vec::new(), key_rows: Vec::new() };
        for segment in &layout.segments {
            let first_key = count(OP, tables.key_rows.len())?;
            push_key_rows(segment, &mut tables.key_rows)?;
            for row in 0..segment.len {
                let [query_row, position] = [segment.query_row + row, segment.start_position + row];
                tables.tiles.push([count(OP, query_row)?, count(OP, position)?, 1, first_key]);
            }
        }
        Ok(tables)
    }
}

/// A layout in the form of `attention_mma.cu` and `attention_wgmma.cu`.
struct PackedTables {
    /// `[first query row, its position, head of the group in the first row, rows, first key, whether it is an entry of
    /// key_rows]` of each tile, those with the most keys first.
    tiles: Vec<[u32; 6]>,
    /// Row of the keys and values at each position of each sequence whose keys are not consecutive rows.
    key_rows: Vec<u32>,
}

impl PackedTables {
    /// Numbers the rows of each segment, `group` for each query, and splits them into tiles of at most `tile` rows.
    fn new(layout: &AttentionLayout, group: usize, tile: usize) -> Result<Self, KernelError> {
        let mut tables = PackedTables { tiles: Vec::new(), key_rows: Vec::new() };
        // A segment without rows has no tiles, and its keys are not needed.
        for segment in layout.segments.iter().filter(|segment| segment.len > 0) {
            let (first_key, in_key_rows) = match first_of_consecutive_keys(segment) {
                Some(row) => (row, 0),
                None => (tables.key_rows.len(), 1),
            };
            if in_key_rows == 1 {
                push_key_rows(segment, &mut tables.key_rows)?;
            }
            let rows = segment.len.saturating_mul(group);
            for first in (0..rows).step_by(tile) {
                tables.tiles.push([
                    count(OP, segment.query_row + first / group)?,
                    count(OP, segment.start_position + first / group)?,
                    count(OP, first % group)?,
                    count(OP, tile.min(rows - first))?,
                    count(OP, first_key)?,
                    in_key_rows,
                ]);
            }
        }
        // A device starts blocks in order: the longest last would run alone. The position is the number of keys without a window;
        // with one it is the same order for all layers, which then share a table.
        tables.tiles.sort_by_key(|[_, position, ..]| Reverse(*position));
        Ok(tables)
    }
}

/// Appends the key row of each position up to the segment's last row.
fn push_key_rows(segment: &AttentionSegment, key_rows: &mut Vec<u32>) -> Result<(), KernelError> {
    let n_keys = segment.start_position + segment.len;
    for row in segment.keys.iter().flat_map(|&(first, len)| first..first + len).take(n_keys) {
        key_rows.push(count(OP, row)?);
    }
    Ok(())
}

/// The row of the segment's first key, if each next key is in the next row.
fn first_of_consecutive_keys(segment: &AttentionSegment) -> Option<usize> {
    let mut left = segment.start_position + segment.len;
    let mut consecutive: Option<(usize, usize)> = None;
    for &(first, len) in segment.keys.iter().filter(|(_, len)| *len > 0) {
        if left == 0 {
            break;
        }
        let start = match consecutive {
            Some((_, end)) if end != first => return None,
            Some((start, _)) => start,
            None => first,
        };
        left -= len.min(left);
        consecutive = Some((start, first + len));
    }
    consecutive.map(|(start, _)| start)
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
        let kernel = self.attention_kernel(query.dtype, shape.head_dim, scores.scale)?;
        // Of a persistent kernel.
        let mut n_tiles = 0;
        let (tiles, key_rows, grid) = match kernel.tile {
            Tile::Attention { rows, .. } if kernel.uses_tensor_cores() => {
                let tables = PackedTables::new(layout, shape.n_heads / shape.n_kv_heads, rows)?;
                let mut blocks = count(OP, tables.tiles.len().saturating_mul(shape.n_kv_heads))?;
                if kernel.variant == Variant::Wgmma {
                    blocks = blocks.min(count(OP, self.device.multiprocessors().max(1))?);
                    n_tiles = count(OP, tables.tiles.len())?;
                }
                (tables.tiles.into_flattened(), tables.key_rows, [blocks, 1, 1])
            }
            _ => {
                let tables = LayoutTables::new(layout)?;
                let grid = [count(OP, tables.tiles.len())?, count(OP, shape.n_heads)?, 1];
                (tables.tiles.into_flattened(), tables.key_rows, grid)
            }
        };
        let launch = kernel.launch(grid);
        let tiles = self.upload(&tiles)?;
        let key_rows = if key_rows.is_empty() { None } else { Some(self.upload(&key_rows)?) };
        let key_rows = key_rows.as_deref().map_or(Argument::Null, Argument::Read);
        let [n_heads, n_kv_heads] = [shape.n_heads, shape.n_kv_heads].map(|heads| count(OP, heads));
        let [n_heads, n_kv_heads] = [Argument::U32(n_heads?), Argument::U32(n_kv_heads?)];
        let (scale, soft_cap) = (Argument::F32(scores.scale), Argument::F32(scores.soft_cap.unwrap_or(0.0)));
        let window = Argument::U32(count(OP, window_argument(layout, scores.window))?);
        let [query, rows] = [Argument::Read(&query.buffer), Argument::Read(&keys_values.buffer)];
        let (tiles, out) = (Argument::Read(&*tiles), Argument::Write(&mut out.buffer));
        if kernel.variant == Variant::Wgmma {
            let boxes = Argument::Tiles(Tiles {
                buffer: &keys_values.buffer,
                dtype: keys_values.dtype,
                rows: keys_values.rows,
                columns: keys_values.columns,
                tile_rows: ATTENTION_WGMMA_BOX,
                tile_columns: ATTENTION_WGMMA_BOX,
                swizzled: true,
            });
            let n_tiles = Argument::U32(n_tiles);
            let mut arguments =
                [boxes, query, rows, tiles, key_rows, n_tiles, n_heads, n_kv_heads, scale, window, soft_cap, out];
            return self.launch(&launch, &mut arguments);
        }
        let head_dim = Argument::U32(count(OP, shape.head_dim)?);
        let mut arguments = [query, rows, tiles, key_rows, n_heads, n_kv_heads, head_dim, scale, window, soft_cap, out];
        self.launch(&launch, &mut arguments)
    }

    /// The kernel for heads of `head_dim` elements.
    ///
    /// # Errors
    /// Heads that are too wide.
    fn attention_kernel(&self, dtype: DType, head_dim: usize, scale: f32) -> Result<&'static Kernel, KernelError> {
        // The tensor-core kernels scale after they have taken the largest score, so they need a positive scale.
        let fast = self.uses_tensor_cores() && fits_tensor_cores(dtype, count(OP, head_dim)?) && scale > 0.0;
        let variants = match fast {
            true if self.uses_wgmma() => &[Variant::Wgmma, Variant::Mma][..],
            true => &[Variant::Mma],
            false => &[Variant::Plain],
        };
        variants.iter().find_map(|variant| find_attention(*variant, dtype, head_dim)).ok_or_else(|| {
            let what = format!("heads of {head_dim} elements, the kernels take at most {MAX_HEAD_DIM}");
            KernelError::shape(OP, what)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::AttentionSegment;

    #[test]
    fn segments_become_rows_and_positions_key_rows() {
        let layout = AttentionLayout {
            segments: vec![
                AttentionSegment { query_row: 4, start_position: 2, len: 2, keys: vec![(9, 2), (4, 6)] },
                AttentionSegment { query_row: 0, start_position: 0, len: 1, keys: vec![(0, 1)] },
                AttentionSegment { query_row: 0, start_position: 5, len: 0, keys: vec![(0, 5)] },
            ],
        };
        let tables = LayoutTables::new(&layout).unwrap();
        assert_eq!(tables.tiles, [[4, 2, 1, 0], [5, 3, 1, 0], [0, 0, 1, 4]]);
        assert_eq!(tables.key_rows, [9, 10, 4, 5, 0, 0, 1, 2, 3, 4]);
    }

    #[test]
    fn heads_of_a_group_are_packed_longest_first() {
        let layout = AttentionLayout {
            segments: vec![
                AttentionSegment { query_row: 4, start_position: 2, len: 3, keys: vec![(9, 2), (4, 6)] },
                AttentionSegment { query_row: 0, start_position: 0, len: 1, keys: vec![(7, 1)] },
                AttentionSegment { query_row: 0, start_position: 5, len: 0, keys: vec![(0, 4), (9, 1)] },
                AttentionSegment { query_row: 8, start_position: 9, len: 1, keys: vec![(30, 5), (1, 0), (35, 6)] },
            ],
        };
        // Rows of three heads: tiles of four begin at head 0 of the first query and at heads 1 and 2 of the next ones.
        let tables = PackedTables::new(&layout, 3, 4).unwrap();
        let expected =
            [[8, 9, 0, 3, 30, 0], [6, 4, 2, 1, 0, 1], [5, 3, 1, 4, 0, 1], [4, 2, 0, 4, 0, 1], [0, 0, 0, 3, 7, 0]];
        assert_eq!(tables.tiles, expected);
        assert_eq!(tables.key_rows, [9, 10, 4, 5, 6]);
        let heads = PackedTables::new(&layout, 1, 64).unwrap();
        assert_eq!(heads.tiles, [[8, 9, 0, 1, 30, 0], [4, 2, 0, 3, 0, 1], [0, 0, 0, 1, 7, 0]]);
    }

    #[test]
    fn keys_are_consecutive_up_to_last_row() {
        let first = |len, keys: &[(usize, usize)]| {
            let segment = AttentionSegment { query_row: 0, start_position: 0, len, keys: keys.to_vec() };
            first_of_consecutive_keys(&segment)
        };
        assert_eq!(first(3, &[(5, 3)]), Some(5));
        assert_eq!(first(3, &[(5, 2), (7, 9)]), Some(5));
        assert_eq!(first(3, &[(1, 0), (5, 3), (1, 1)]), Some(5));
        assert_eq!(first(4, &[(5, 3), (1, 1)]), None);
        assert_eq!(first(4, &[(5, 3), (9, 1)]), None);
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
