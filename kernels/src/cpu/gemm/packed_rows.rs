//! Activations as the micro-kernels read them: rows in blocks of inputs, in `f32`, or in pairs of bf16 for dot products.
//!
//! Rows are copied once for each matmul and read by all panels and threads. In a block the rows lie [`STRIDE`] words
//! apart, a constant, so that a micro-kernel needs one pointer for all rows of a tile. The rows of a tile are adjacent
//! lines, which no cache maps to a few sets, whatever K is.

use std::ops::Range;

use rayon::prelude::*;

use super::pack::PANEL;
use crate::cpu::cache::cache_sizes;
use crate::cpu::isa::{Isa, dispatch};
use crate::cpu::tensor::{CpuTensor, Element, with_element};
use crate::dtype::DType;

/// 32-bit words from a row of a block to the next, and the maximum number of words of a block: 36 KiB of a panel.
pub(super) const STRIDE: usize = 288;

/// Bytes of packed activations at a time: they stay in a shared cache together with the weights.
const PACKED_BYTES: usize = 4 << 20;

/// Rows of a block that one task packs.
const TASK_ROWS: usize = 32;

/// Words of a block that the calling thread packs alone: less work than handing it out.
const SERIAL_WORDS: usize = 32 << 10;

/// How the inputs of a matmul are divided into blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Blocking {
    /// Words of a row.
    words: usize,
    /// Words of a block; the last one may have fewer.
    block_words: usize,
}

impl Blocking {
    /// Nearly equal blocks of a row of `words` words.
    ///
    /// A block of a panel takes three quarters of the L1 cache; the rest is for the activations of a tile.
    pub(super) fn new(words: usize) -> Self {
        Self::with_l1(words, cache_sizes().l1)
    }

    fn with_l1(words: usize, l1: usize) -> Self {
        /// Words of a cache line.
        const LINE: usize = 16;
        let limit = (l1 / 4 * 3 / (PANEL * size_of::<f32>())).clamp(LINE, STRIDE) / LINE * LINE;
        let blocks = words.div_ceil(limit).max(1);
        // Even, because the weights of bf16 are in pairs.
        let block_words = words.div_ceil(blocks).next_multiple_of(LINE).min(limit).max(1);
        Blocking { words, block_words }
    }

    /// The number of blocks.
    pub(super) fn blocks(self) -> usize {
        self.words.div_ceil(self.block_words)
    }

    /// The words of block `block`.
    pub(super) fn block(self, block: usize) -> Range<usize> {
        block * self.block_words..self.words.min((block + 1) * self.block_words)
    }

    /// Bytes of a packed row.
    pub(super) fn row_bytes(self) -> usize {
        self.blocks() * STRIDE * size_of::<u32>()
    }

    /// Rows that are packed at a time, of `rows`.
    pub(super) fn rows_at_once(self, rows: usize) -> usize {
        let limit = (PACKED_BYTES / self.row_bytes().max(1)).max(1);
        rows.div_ceil(rows.div_ceil(limit).max(1))
    }
}

/// Some packed rows of activations.
#[derive(Clone, Copy)]
pub(super) struct PackedRows<'a> {
    words: &'a [u32],
    rows: usize,
    /// How a row is divided.
    pub(super) blocking: Blocking,
}

impl<'a> PackedRows<'a> {
    /// Packs `rows` of `x`. With `dots`, words are pairs of bf16.
    ///
    /// # Panics
    /// `packed` is too small.
    pub(super) fn new(
        isa: Isa,
        x: &CpuTensor,
        rows: Range<usize>,
        dots: bool,
        blocking: Blocking,
        packed: &'a mut [u32],
    ) -> Self {
        let count = rows.len();
        let packed = &mut packed[..blocking.blocks() * count * STRIDE];
        let pack = |first: usize, lines: &mut [u32]| {
            for (line, out) in (first..).zip(lines.chunks_exact_mut(STRIDE)) {
                let (block, row) = (blocking.block(line / count), x.row(rows.start + line % count));
                let out = &mut out[..block.len()];
                match dots {
                    true => copy_pairs(row, block.start, out),
                    false => with_element!(x.dtype(), E => {
                        let row: &[E] = bytemuck::cast_slice(row);
                        let inputs = block.start.min(row.len())..block.end.min(row.len());
                        let (values, zeros) = out.split_at_mut(inputs.len());
                        widen_row::<E>(isa, &row[inputs], bytemuck::cast_slice_mut(values));
                        zeros.fill(0);
                    }),
                }
            }
        };
        if packed.len() <= SERIAL_WORDS {
            pack(0, packed);
        } else {
            let tasks = packed.par_chunks_mut(TASK_ROWS * STRIDE).enumerate();
            tasks.for_each(|(task, lines)| pack(task * TASK_ROWS, lines));
        }
        PackedRows { words: packed, rows: count, blocking }
    }

    /// Block `block` of `rows`, which are [`STRIDE`] apart.
    #[inline(always)]
    pub(super) fn tile(&self, block: usize, rows: Range<usize>) -> &'a [u32] {
        let first = block * self.rows;
        &self.words[(first + rows.start) * STRIDE..(first + rows.end) * STRIDE]
    }
}

/// Copies the words from `first` on of a row of bf16, whose last input may have no pair. The even input is in the lower
/// half of a word, where `vdpbf16ps` has the first of a pair.
fn copy_pairs(row: &[u8], first: usize, out: &mut [u32]) {
    let out: &mut [u8] = bytemuck::cast_slice_mut(out);
    let from = (first * size_of::<u32>()).min(row.len());
    let source = &row[from..row.len().min(from + out.len())];
    let (copy, zeros) = out.split_at_mut(source.len());
    copy.copy_from_slice(source);
    zeros.fill(0);
}

dispatch!(fn widen_row<E: Element>(row: &[E], out: &mut [f32]) = widen_row_body);

#[inline(always)]
fn widen_row_body<E: Element>(row: &[E], out: &mut [f32]) {
    if E::DTYPE == DType::F16 {
        // The conversion of whole slices uses vectors, that of an element does not.
        E::DTYPE.widen(bytemuck::cast_slice(row), out);
        return;
    }
    for (out, value) in out.iter_mut().zip(row) {
        *out = value.to_f32();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_cover_every_word_once() {
        for l1 in [0, 32 << 10, 48 << 10, 1 << 20] {
            for words in [1, 2, 15, 16, 17, 287, 288, 289, 576, 1000, 2048, 8192] {
                let blocking = Blocking::with_l1(words, l1);
                let mut covered = 0;
                for block in (0..blocking.blocks()).map(|block| blocking.block(block)) {
                    assert_eq!(block.start, covered);
                    assert!(!block.is_empty() && block.len() <= STRIDE, "{words} {l1}: {block:?}");
                    assert!(block.start.is_multiple_of(2), "a pair of inputs is in one block");
                    covered = block.end;
                }
                assert_eq!(covered, words);
            }
        }
        // The same blocks as the constant of 24 KiB where L1 has 32 KiB.
        assert_eq!(Blocking::with_l1(576, 32 << 10).block_words, 192);
        assert_eq!(Blocking::with_l1(576, 48 << 10).block_words, 288);
    }
}
