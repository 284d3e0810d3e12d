//! The matmuls of attention on `vdpbf16ps`.

use std::arch::x86_64::*;

use half::bf16;

use super::{AttentionInputs, AttentionTask, LANES, Line, PairRows, PairScratch, PairTiles, attend};

/// Tiles of 8 rows by up to 3 vectors of lanes: 24 accumulators, 3 vectors and a broadcast pair fit 32 registers.
struct DotTiles;

/// Rows of a tile.
const ROWS: usize = 8;

/// Computes the output rows of `task`.
///
/// # Safety
/// The processor has AVX-512 BF16.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c")]
pub(in crate::cpu::attention) unsafe fn attend_dots(
    inputs: &AttentionInputs<'_, bf16>,
    task: &AttentionTask<'_>,
    scratch: &mut PairScratch,
) {
    // SAFETY: the caller guarantees the instructions.
    unsafe { attend::<DotTiles>(inputs, task, scratch) }
}

impl PairTiles for DotTiles {
    const GROUP: usize = 3;
    const ROWS: usize = ROWS;
    const PAIRS: usize = 1;
    const VALUES_BY_ELEMENT: bool = false;

    #[inline(always)]
    unsafe fn multiply<const V: usize, const ADD: bool>(a: PairRows, b: [*const Line; V], c: [*mut Line; V]) {
        // SAFETY: the caller guarantees the instructions and the sizes.
        unsafe { multiply::<V, ADD>(a, b, c) }
    }
}

/// Multiplies `a`, `[row][pair]`; with `ADD`, `a` is `[pair][row]` and the result is added to `c`.
///
/// # Safety
/// The processor has AVX-512 BF16, and the operands have the sizes of `a`.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c")]
unsafe fn multiply<const V: usize, const ADD: bool>(a: PairRows, b: [*const Line; V], c: [*mut Line; V]) {
    const { assert!(size_of::<__m512bh>() == size_of::<Line>() && size_of::<Line>() == LANES * 4) };
    for first in (0..a.rows).step_by(ROWS) {
        let mut acc = [[_mm512_setzero_ps(); V]; ROWS];
        // SAFETY: the caller guarantees the sizes; both vector types are 64 plain bytes.
        unsafe {
            if ADD {
                for (row, acc) in acc.iter_mut().enumerate() {
                    for (c, acc) in c.iter().zip(acc) {
                        *acc = _mm512_load_ps(c.add(first + row).cast());
                    }
                }
            }
            let pairs = |words: __m512i| std::mem::transmute::<__m512i, __m512bh>(words);
            let (row_words, pair_words) = if ADD { (1, a.stride) } else { (a.stride, 1) };
            let rows: [*const u32; ROWS] = std::array::from_fn(|row| a.start.add((first + row) * row_words));
            for pair in 0..a.pairs {
                let b = b.map(|b| pairs(_mm512_load_si512(b.add(pair).cast())));
                for (row, acc) in rows.iter().zip(&mut acc) {
                    let word = pairs(_mm512_set1_epi32((*row.add(pair * pair_words)).cast_signed()));
                    for (b, acc) in b.iter().zip(acc) {
                        *acc = _mm512_dpbf16_ps(*acc, word, *b);
                    }
                }
            }
            for (row, acc) in acc.iter().enumerate() {
                for (c, acc) in c.iter().zip(acc) {
                    _mm512_store_ps(c.add(first + row).cast(), *acc);
                }
            }
        }
    }
}
