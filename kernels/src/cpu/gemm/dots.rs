//! The micro-kernel for processors with dot products of bf16 pairs (`vdpbf16ps`) and without AMX.

use std::arch::x86_64::*;

use super::micro::{MicroKernel, MicroTile, by_rows};
use super::pack::{PANEL, ROWS};
use crate::dtype::DType;

/// AVX-512 BF16: 12 x 2 accumulators of 16 lanes. For bf16 alone; a packed word of activations is a pair of inputs.
pub(super) struct Bf16Dots;

impl MicroKernel for Bf16Dots {
    const DOTS: bool = true;

    #[inline(always)]
    unsafe fn tile(_: DType, inputs: usize, rows: usize, activations: &[u32], panel: &[u8], tile: &mut MicroTile) {
        // SAFETY: the caller grants the features and the sizes.
        unsafe { by_rows!(rows, accumulate, (inputs, activations, panel, tile), 1 2 3 4 5 6 7 8 9 10 11 12) }
    }
}

/// # Safety
/// As [`MicroKernel::tile`], with `R` rows.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c")]
unsafe fn accumulate<const R: usize>(inputs: usize, activations: &[u32], panel: &[u8], tile: &mut MicroTile) {
    let mut accumulators = [[_mm512_setzero_ps(); 2]; R];
    let mut x = activations.as_ptr();
    let mut step = panel.as_ptr();
    // SAFETY: the caller grants `inputs / 2 * ROWS` pairs of activations and `inputs * PANEL` weights, 64-byte aligned;
    // both vector types are 64 plain bytes.
    unsafe {
        for (row, acc) in tile.iter().zip(&mut accumulators) {
            *acc = [_mm512_loadu_ps(row.as_ptr()), _mm512_loadu_ps(row.as_ptr().add(16))];
        }
        let pairs = |words: __m512i| std::mem::transmute::<__m512i, __m512bh>(words);
        for _ in 0..inputs / 2 {
            let weights = [_mm512_load_si512(step.cast()), _mm512_load_si512(step.add(64).cast())].map(pairs);
            for (row, acc) in accumulators.iter_mut().enumerate() {
                let pair = pairs(_mm512_set1_epi32((*x.add(row)).cast_signed()));
                acc[0] = _mm512_dpbf16_ps(acc[0], pair, weights[0]);
                acc[1] = _mm512_dpbf16_ps(acc[1], pair, weights[1]);
            }
            x = x.add(ROWS);
            step = step.add(2 * PANEL * size_of::<u16>());
        }
        for (row, acc) in tile.iter_mut().zip(&accumulators) {
            _mm512_storeu_ps(row.as_mut_ptr(), acc[0]);
            _mm512_storeu_ps(row.as_mut_ptr().add(16), acc[1]);
        }
    }
}
