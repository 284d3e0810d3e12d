//! The online softmax of a vector of lanes.

use std::arch::x86_64::*;
use std::ops::Range;

use super::orders::rounded_pairs;
use super::{LANES, Line, TILE_KEYS};
use crate::backend::ScoreRule;
use crate::cpu::math::soft_cap;

/// How a product of a query and a key becomes an exponent of 2.
#[derive(Clone, Copy)]
pub(super) struct Exponent {
    /// The factor of a product, or of a capped score. Positive: the sign of the scale is that of the packed queries.
    factor: f32,
    /// The scale before the cap, and the cap.
    cap: Option<(f32, f32)>,
}

impl Exponent {
    pub(super) fn of(rule: ScoreRule) -> Self {
        const LOG2_E: f32 = std::f32::consts::LOG2_E;
        // The queries are 0 for the scale 0; another factor would make a NaN of a masked score, minus infinity.
        let scale = if rule.scale == 0.0 { 1.0 } else { rule.scale.abs() };
        match rule.soft_cap {
            Some(cap) => Exponent { factor: LOG2_E, cap: Some((scale, cap)) },
            None => Exponent { factor: (scale * LOG2_E).clamp(f32::MIN_POSITIVE, f32::MAX), cap: None },
        }
    }
}

/// The state of the online softmax of a vector.
#[repr(C, align(64))]
pub(super) struct VectorState {
    /// The largest exponent so far.
    max: [f32; LANES],
    /// The sum of the rounded weights so far.
    sum: [f32; LANES],
    /// Position of each lane, not decreasing.
    positions: [u32; LANES],
    /// The first position that each lane sees.
    first_visible: [u32; LANES],
}

impl VectorState {
    /// Lanes at `positions`, each of which sees `window` positions.
    pub(super) fn new(positions: [usize; LANES], window: Option<usize>) -> Self {
        let first_visible = |position: usize| window.map_or(0, |window| (position + 1).saturating_sub(window));
        VectorState {
            max: [f32::NEG_INFINITY; LANES],
            sum: [0.0; LANES],
            positions: positions.map(|position| position as u32),
            first_visible: positions.map(|position| first_visible(position) as u32),
        }
    }

    /// The first position that any lane sees.
    #[inline(always)]
    pub(super) fn first_visible(&self) -> usize {
        self.first_visible[0] as usize
    }

    /// The last position that any lane sees.
    #[inline(always)]
    pub(super) fn last_position(&self) -> usize {
        self.positions[LANES - 1] as usize
    }

    /// The keys that a lane sees, as indices in the block from position `first_key` on.
    pub(super) fn visible(&self, lane: usize, first_key: usize) -> Range<usize> {
        let index = |position: u32| (position as usize).saturating_sub(first_key);
        index(self.first_visible[lane])..index(self.positions[lane] + 1)
    }

    /// Whether a lane does not see one of the `keys` of the block from position `first_key` on.
    #[inline(always)]
    pub(super) fn masks(&self, first_key: usize, keys: &Range<usize>) -> bool {
        (self.positions[0] as usize) + 1 < first_key + keys.end
            || self.first_visible[LANES - 1] as usize > first_key + keys.start
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c")]
    pub(super) fn weight_sums(&self) -> __m512 {
        // SAFETY: the array is 64 readable bytes.
        unsafe { _mm512_loadu_ps(self.sum.as_ptr()) }
    }
}

/// Replaces the scores of `keys`, whole tiles of the block from position `first_key` on, by weights in pairs of keys: the line
/// of pair `i` is line `i`. Rescales the state and the outputs to the new maximum.
///
/// # Safety
/// The processor has AVX-512 BF16.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c")]
pub(super) unsafe fn update(
    scores: &mut [Line],
    keys: Range<usize>,
    first_key: usize,
    exponent: Exponent,
    state: &mut VectorState,
    outputs: &mut [Line],
) {
    if let Some((scale, cap)) = exponent.cap {
        for line in &mut scores[keys.clone()] {
            for score in &mut line.0 {
                *score = soft_cap(*score * scale, cap);
            }
        }
    }
    for first in keys.clone().step_by(TILE_KEYS) {
        if state.masks(first_key, &(first..first + TILE_KEYS)) {
            mask(&mut scores[first..first + TILE_KEYS], first_key + first, state);
        }
    }
    let lowest = _mm512_set1_ps(f32::NEG_INFINITY);
    let mut maxima = [lowest; 4];
    for lines in scores[keys.clone()].as_chunks::<4>().0 {
        for (line, max) in lines.iter().zip(&mut maxima) {
            // The second operand is the result where the first one is NaN: it stays a NaN in the weights.
            *max = _mm512_max_ps(load(line), *max);
        }
    }
    let max = _mm512_max_ps(_mm512_max_ps(maxima[0], maxima[1]), _mm512_max_ps(maxima[2], maxima[3]));
    let factor = _mm512_set1_ps(exponent.factor);
    // SAFETY: the arrays are 64 bytes.
    let (before, mut sum) = unsafe { (_mm512_loadu_ps(state.max.as_ptr()), _mm512_loadu_ps(state.sum.as_ptr())) };
    let max = _mm512_max_ps(_mm512_mul_ps(max, factor), before);
    // A lane that has seen no key yet has the maximum minus infinity, and the difference of two infinities is NaN. With 0 in
    // its place its weights are 0.
    let reference = _mm512_mask_blend_ps(_mm512_cmpeq_ps_mask(max, lowest), max, _mm512_setzero_ps());
    if _mm512_cmpneq_ps_mask(max, before) != 0 {
        let correction = exp2(_mm512_sub_ps(before, reference));
        sum = _mm512_mul_ps(sum, correction);
        // In the first block that a vector sees, the outputs are still 0.
        if _mm512_cmpneq_ps_mask(before, lowest) != 0 {
            for line in outputs {
                store(line, _mm512_mul_ps(load(line), correction));
            }
        }
        // SAFETY: the array is 64 bytes.
        unsafe { _mm512_storeu_ps(state.max.as_mut_ptr(), max) };
    }
    let weight = |line: &Line| exp2(_mm512_fmsub_ps(load(line), factor, reference));
    // 1 and 1 in bf16.
    let ones = _mm512_set1_epi32(0x3f80_3f80);
    let start = scores.as_mut_ptr();
    assert!(keys.end <= scores.len());
    for pair in keys.start / 2..keys.end / 2 {
        // SAFETY: the lines lie inside the scores. Line `pair` is not above the lines of its two keys, which have been read.
        unsafe {
            let (even, odd) = (weight(&*start.add(2 * pair)), weight(&*start.add(2 * pair + 1)));
            let pairs = rounded_pairs(even, odd);
            let bf16 = |words: __m512i| std::mem::transmute::<__m512i, __m512bh>(words);
            sum = _mm512_dpbf16_ps(sum, bf16(pairs), bf16(ones));
            _mm512_store_si512(start.add(pair).cast(), pairs);
        }
    }
    // SAFETY: the array is 64 bytes.
    unsafe { _mm512_storeu_ps(state.sum.as_mut_ptr(), sum) };
}

/// Sets the scores of a tile from position `first` on to minus infinity in the lanes that do not see the key.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c")]
fn mask(scores: &mut [Line], first: usize, state: &VectorState) {
    // SAFETY: the arrays are 64 bytes.
    let [last_visible, first_visible] =
        [&state.positions, &state.first_visible].map(|array| unsafe { _mm512_loadu_si512(array.as_ptr().cast()) });
    let lowest = _mm512_set1_ps(f32::NEG_INFINITY);
    for (index, line) in scores.iter_mut().enumerate() {
        let position = _mm512_set1_epi32((first + index) as i32);
        let is_visible =
            _mm512_cmple_epu32_mask(position, last_visible) & _mm512_cmple_epu32_mask(first_visible, position);
        store(line, _mm512_mask_blend_ps(is_visible, lowest, load(line)));
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c")]
fn load(line: &Line) -> __m512 {
    // SAFETY: a line is 64 aligned bytes.
    unsafe { _mm512_load_ps(line.0.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c")]
fn store(line: &mut Line, values: __m512) {
    // SAFETY: a line is 64 aligned bytes.
    unsafe { _mm512_store_ps(line.0.as_mut_ptr(), values) }
}

/// `2^x` for `x` up to 0, or slightly above, with a relative error of 3e-6, which is small against the rounding to bf16.
///
/// `x` is split into an integer and a rest in -0.5..0.5, for which the minimax polynomial of degree 4 with the value 1 at 0 is
/// evaluated. Below -126.5 the result is 0.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c")]
fn exp2(x: __m512) -> __m512 {
    /// Adding and subtracting 1.5 * 2^23 rounds to the nearest integer, which is then in the low bits. The bias of an exponent
    /// is added along with it.
    const ROUND: f32 = 12_582_912.0 + 127.0;
    // The second operand is the result where one is NaN.
    let x = _mm512_max_ps(_mm512_set1_ps(-127.0), x);
    let shifted = _mm512_add_ps(x, _mm512_set1_ps(ROUND));
    let rest = _mm512_sub_ps(x, _mm512_sub_ps(shifted, _mm512_set1_ps(ROUND)));
    let mut p = _mm512_set1_ps(9.582_853e-3);
    p = _mm512_fmadd_ps(p, rest, _mm512_set1_ps(5.590_642_5e-2));
    p = _mm512_fmadd_ps(p, rest, _mm512_set1_ps(2.402_41e-1));
    p = _mm512_fmadd_ps(p, rest, _mm512_set1_ps(6.931_242e-1));
    p = _mm512_fmadd_ps(p, rest, _mm512_set1_ps(1.0));
    let scale = _mm512_castsi512_ps(_mm512_slli_epi32::<23>(_mm512_castps_si512(shifted)));
    _mm512_mul_ps(p, scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp2_is_close_to_definition() {
        if !is_x86_feature_detected!("avx512bf16") {
            return;
        }
        let value = |x: f32| {
            let mut out = [0.0f32; LANES];
            // SAFETY: the processor has the instructions; the array is 64 bytes.
            unsafe { _mm512_storeu_ps(out.as_mut_ptr(), exp2(_mm512_set1_ps(x))) };
            out[3]
        };
        let mut x = -126.4f32;
        while x < 1.0 {
            let exact = f64::from(x).exp2();
            let error = ((f64::from(value(x)) - exact) / exact).abs();
            assert!(error <= 3.1e-6, "exp2({x}) is off by {error:e}");
            x += 0.003_7;
        }
        assert_eq!([0.0, -1.0, -10.0].map(value), [1.0, 0.5, 2f32.powi(-10)]);
        assert_eq!([-127.0, -1e9, f32::NEG_INFINITY].map(value), [0.0; 3]);
        assert!(value(f32::NAN).is_nan());
    }
}
