//! The micro-kernel for processors with dot products of bf16 pairs (`vdpbf16ps`) and without AMX.

use std::arch::x86_64::*;

use super::epilogue::BF16;
use super::micro::{MicroKernel, MicroRow, TileBlock, WidePanel, by_rows};
use super::pack::PANEL;
use super::packed_rows::STRIDE;

/// AVX-512 BF16: 12 x 2 accumulators of 16 lanes. For bf16 alone; a packed word of activations is a pair of inputs.
pub(super) struct Bf16Dots;

impl MicroKernel for Bf16Dots {
    const DOTS: bool = true;
    const CONVERSIONS: u8 = BF16;
    const ROWS: usize = 12;

    #[inline(always)]
    unsafe fn tile(block: &TileBlock<'_>, rows: usize, _: &mut WidePanel, tile: *mut MicroRow) {
        // SAFETY: the caller grants the features and the sizes.
        unsafe { by_rows!(rows, accumulate, (block, tile), 1 2 3 4 5 6 7 8 9 10 11 12) }
    }
}

/// # Safety
/// As [`MicroKernel::tile`], with `R` rows.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c")]
unsafe fn accumulate<const R: usize>(block: &TileBlock<'_>, tile: *mut MicroRow) {
    let mut accumulators = [[_mm512_setzero_ps(); 2]; R];
    let mut x = block.activations.as_ptr();
    let mut step = block.panel.as_ptr();
    // SAFETY: the caller grants `R` rows of `words` pairs of activations and `words` pairs of inputs of the panel, 64-byte
    // aligned; both vector types are 64 plain bytes.
    unsafe {
        if !block.is_first {
            for (row, acc) in accumulators.iter_mut().enumerate() {
                let row: *const f32 = tile.add(row).cast();
                *acc = [_mm512_loadu_ps(row), _mm512_loadu_ps(row.add(16))];
            }
        }
        let pairs = |words: __m512i| std::mem::transmute::<__m512i, __m512bh>(words);
        let mut next = block.next;
        for _ in 0..block.words {
            next.advance::<1>();
            let weights = [_mm512_load_si512(step.cast()), _mm512_load_si512(step.add(64).cast())].map(pairs);
            for (row, acc) in accumulators.iter_mut().enumerate() {
                let pair = pairs(_mm512_set1_epi32((*x.add(row * STRIDE)).cast_signed()));
                acc[0] = _mm512_dpbf16_ps(acc[0], pair, weights[0]);
                acc[1] = _mm512_dpbf16_ps(acc[1], pair, weights[1]);
            }
            x = x.add(1);
            step = step.add(2 * PANEL * size_of::<u16>());
        }
        for (row, acc) in accumulators.iter().enumerate() {
            let row: *mut f32 = tile.add(row).cast();
            _mm512_storeu_ps(row, acc[0]);
            _mm512_storeu_ps(row.add(16), acc[1]);
        }
    }
}
