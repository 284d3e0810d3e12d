//! Orders of the 16-bit elements of vectors, and rounding to pairs in such an order.

use std::arch::x86_64::*;

use super::LANES;

/// Elements of a cache line of bf16.
pub(super) const LINE_ELEMENTS: usize = 32;

/// The order that interleaves two halves of a vector.
static HALVES: Line16 = interleaving(0, LANES as u16);

/// A cache line of 16-bit indices.
#[repr(align(64))]
pub(super) struct Line16(pub(super) [u16; LINE_ELEMENTS]);

/// The order that interleaves [`LANES`] elements from `even` on with those from `odd` on.
pub(super) const fn interleaving(even: u16, odd: u16) -> Line16 {
    let mut index = [0; LINE_ELEMENTS];
    let mut pair = 0;
    while pair < LANES {
        index[2 * pair] = even + pair as u16;
        index[2 * pair + 1] = odd + pair as u16;
        pair += 1;
    }
    Line16(index)
}

/// Rounds two vectors to bf16: lane `i` of the result is the pair of their lanes `i`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c")]
pub(super) fn rounded_pairs(even: __m512, odd: __m512) -> __m512i {
    // SAFETY: both types are 64 plain bytes, and so is the order.
    unsafe {
        let rounded = std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(odd, even));
        _mm512_permutexvar_epi16(_mm512_load_si512(HALVES.0.as_ptr().cast()), rounded)
    }
}
