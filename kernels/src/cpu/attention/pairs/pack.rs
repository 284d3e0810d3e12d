//! Packing of queries, keys and values to pairs, and of outputs back to rows.

use std::arch::x86_64::*;

use super::orders::{LINE_ELEMENTS, Line16, interleaving, rounded_pairs};
use super::{KEYS, LANES, LanePlace, Line, PairTask, PairTiles, VectorState, ZEROS};

/// A block of keys and values, packed.
#[derive(Default)]
pub(super) struct KeyValueBlock {
    /// `[KEYS][pairs]`. Keys beyond the block have stale contents; their scores are masked.
    keys: Vec<Line>,
    /// Pairs of keys, as [`PairTiles::VALUES_BY_ELEMENT`] says. Values beyond the block are 0.
    values: Vec<Line>,
    is_finite: bool,
}

impl KeyValueBlock {
    /// Takes memory for heads of `pairs` padded pairs.
    pub(super) fn resize(&mut self, pairs: usize) {
        self.keys.resize(KEYS * pairs / LANES, ZEROS);
        self.values.resize(KEYS * pairs / LANES, ZEROS);
    }

    #[inline(always)]
    pub(super) fn keys(&self) -> &[Line] {
        &self.keys
    }

    #[inline(always)]
    pub(super) fn values(&self) -> &[Line] {
        &self.values
    }

    /// Whether all values are finite.
    #[inline(always)]
    pub(super) fn is_finite(&self) -> bool {
        self.is_finite
    }
}

/// Sets the values of key `key` of packed values of `elements` padded elements to 0.
pub(super) fn clear_key<T: PairTiles>(values: &mut [Line], key: usize, elements: usize) {
    let (row_words, pair_words) = if T::VALUES_BY_ELEMENT { (KEYS / 2, 1) } else { (1, elements) };
    for element in 0..elements {
        let word = element * row_words + key / 2 * pair_words;
        let value = &mut values[word / LANES].0[word % LANES];
        let kept = if key.is_multiple_of(2) { 0xffff_0000 } else { 0x0000_ffff };
        *value = f32::from_bits(value.to_bits() & kept);
    }
}

impl PairTask<'_> {
    /// Packs the queries of a vector as `[pair][lane]`. The sign of the scale is that of the queries, so that the factor of the
    /// scores is positive; with the scale 0 they are 0.
    ///
    /// # Safety
    /// As [`super::attend`].
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c")]
    pub(super) unsafe fn pack_queries(&self, lanes: &[LanePlace], packed: &mut [Line]) {
        let (head_dim, width) = (self.inputs.shape.head_dim, self.inputs.shape.query_width());
        let scale = self.inputs.scores.scale;
        let flipped = _mm512_set1_epi16(if scale < 0.0 { i16::MIN } else { 0 });
        let kept = _mm512_set1_epi16(if scale == 0.0 { 0 } else { -1 });
        assert!(packed.len() == self.padded_pairs);
        for (chunk, packed) in packed.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
            let from = chunk * LINE_ELEMENTS;
            let mask = first_elements(head_dim - from);
            let mut words = [_mm512_setzero_si512(); LANES];
            for (words, lane) in words.iter_mut().zip(lanes) {
                let query = &self.inputs.query[lane.row * width + lane.column..][..head_dim][from..];
                // SAFETY: the mask has the elements that the query has.
                let query = unsafe { _mm512_maskz_loadu_epi16(mask, query.as_ptr().cast()) };
                *words = _mm512_and_si512(_mm512_xor_si512(query, flipped), kept);
            }
            for (packed, words) in packed.iter_mut().zip(transposed(words)) {
                // SAFETY: a line is 64 aligned bytes.
                unsafe { _mm512_store_si512((&raw mut *packed).cast(), words) };
            }
        }
    }

    /// Packs the keys and values of `rows`.
    ///
    /// # Safety
    /// As [`super::attend`]; `block` has the size of the heads.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c")]
    pub(super) unsafe fn pack_block<T: PairTiles>(&self, rows: &[usize], block: &mut KeyValueBlock) {
        let shape = self.inputs.shape;
        let (head_dim, width) = (shape.head_dim, 2 * shape.kv_width());
        let (key_column, value_column) =
            (self.task.kv_head * head_dim, shape.kv_width() + self.task.kv_head * head_dim);
        let lines = self.padded_pairs / LANES;
        for (row, packed) in rows.iter().zip(block.keys.chunks_exact_mut(lines)) {
            let key = &self.inputs.keys_values[row * width + key_column..][..head_dim];
            for (line, packed) in packed.iter_mut().enumerate() {
                let key = &key[line * LINE_ELEMENTS..];
                // SAFETY: the mask has the elements that the key has; a line is 64 aligned bytes.
                unsafe {
                    let words = _mm512_maskz_loadu_epi16(first_elements(key.len()), key.as_ptr().cast());
                    _mm512_store_si512((&raw mut *packed).cast(), words);
                }
            }
        }

        // An exponent of all ones, of an infinity or NaN, becomes the sign bit.
        let mut not_finite = _mm512_setzero_si512();
        let value = |key: usize, line: usize| {
            let Some(row) = rows.get(key) else { return _mm512_setzero_si512() };
            let value = &self.inputs.keys_values[row * width + value_column..][..head_dim];
            let value = &value[line * LINE_ELEMENTS..];
            // SAFETY: the mask has the elements that the value has.
            unsafe { _mm512_maskz_loadu_epi16(first_elements(value.len()), value.as_ptr().cast()) }
        };
        let mut pair = |pair: usize, line: usize| {
            let (even, odd) = (value(2 * pair, line), value(2 * pair + 1, line));
            for words in [even, odd] {
                let exponents = _mm512_and_si512(words, _mm512_set1_epi16(0x7f80));
                let carried = _mm512_add_epi16(exponents, _mm512_set1_epi16(0x0080));
                not_finite = _mm512_or_si512(not_finite, carried);
            }
            interleaved(even, odd)
        };
        let pairs = rows.len().div_ceil(2).next_multiple_of(LANES);
        assert!(block.values.len() == KEYS / 2 * 2 * lines && pairs <= KEYS / 2);
        let start = block.values.as_mut_ptr();
        // SAFETY: the lines lie inside the values; a line is 64 aligned bytes.
        unsafe {
            for line in 0..lines {
                if T::VALUES_BY_ELEMENT {
                    for first in (0..pairs).step_by(LANES) {
                        let (mut lower, mut upper) = ([_mm512_setzero_si512(); LANES], [_mm512_setzero_si512(); LANES]);
                        for (index, (lower, upper)) in lower.iter_mut().zip(&mut upper).enumerate() {
                            [*lower, *upper] = pair(first + index, line);
                        }
                        for (half, words) in [lower, upper].into_iter().enumerate() {
                            let element = line * LINE_ELEMENTS + half * LANES;
                            for (index, words) in transposed(words).into_iter().enumerate() {
                                let line = (element + index) * (KEYS / 2 / LANES) + first / LANES;
                                _mm512_store_si512(start.add(line).cast(), words);
                            }
                        }
                    }
                } else {
                    for index in 0..pairs {
                        let [lower, upper] = pair(index, line);
                        _mm512_store_si512(start.add(index * 2 * lines + 2 * line).cast(), lower);
                        _mm512_store_si512(start.add(index * 2 * lines + 2 * line + 1).cast(), upper);
                    }
                }
            }
        }
        block.is_finite = _mm512_movepi16_mask(not_finite) == 0;
    }

    /// Divides the outputs of a vector by the sums of the weights and stores them.
    ///
    /// # Safety
    /// As [`super::attend`]; no other task stores these rows of this head.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c")]
    pub(super) unsafe fn store_outputs(&self, lanes: &[LanePlace], state: &VectorState, outputs: &[Line]) {
        let head_dim = self.inputs.shape.head_dim;
        let inverse = _mm512_div_ps(_mm512_set1_ps(1.0), state.weight_sums());
        // The sign of a zero depends on the masked keys of the tile. Adding 0 makes it positive.
        // SAFETY: a line is 64 aligned bytes.
        let mean = |line: &Line| unsafe {
            _mm512_add_ps(_mm512_mul_ps(_mm512_load_ps(line.0.as_ptr()), inverse), _mm512_setzero_ps())
        };
        for (chunk, lines) in outputs.as_chunks::<LINE_ELEMENTS>().0.iter().enumerate() {
            let from = chunk * LINE_ELEMENTS;
            let mut words = [_mm512_setzero_si512(); LANES];
            for (words, [even, odd]) in words.iter_mut().zip(lines.as_chunks::<2>().0) {
                *words = rounded_pairs(mean(even), mean(odd));
            }
            for (words, lane) in transposed(words).into_iter().zip(lanes) {
                // SAFETY: segments have distinct query rows, and each head of a row belongs to one task. The mask has the
                // elements of the slice.
                unsafe {
                    let out = self.inputs.out.row_slice(lane.row, lane.column + from, lane.column + head_dim);
                    _mm512_mask_storeu_epi16(out.as_mut_ptr().cast(), first_elements(out.len()), words);
                }
            }
        }
    }
}

/// The mask of the first `count` elements of a line, at most all.
#[inline(always)]
fn first_elements(count: usize) -> u32 {
    if count >= LINE_ELEMENTS { u32::MAX } else { (1 << count) - 1 }
}

/// The orders that interleave the first, and the last, 16 elements of two vectors.
static LOWER: Line16 = interleaving(0, LINE_ELEMENTS as u16);
static UPPER: Line16 = interleaving(LANES as u16, (LANES + LINE_ELEMENTS) as u16);

/// The pairs of the elements of two lines, in two vectors.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c")]
fn interleaved(even: __m512i, odd: __m512i) -> [__m512i; 2] {
    // SAFETY: an order is 64 bytes.
    [&LOWER, &UPPER]
        .map(|order| unsafe { _mm512_permutex2var_epi16(even, _mm512_load_si512(order.0.as_ptr().cast()), odd) })
}

/// The transpose of 16 x 16 words.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c")]
fn transposed(rows: [__m512i; LANES]) -> [__m512i; LANES] {
    let zero = _mm512_setzero_si512();
    let (mut pairs, mut quads, mut columns) = ([zero; LANES], [zero; LANES], [zero; LANES]);
    for i in 0..8 {
        pairs[2 * i] = _mm512_unpacklo_epi32(rows[2 * i], rows[2 * i + 1]);
        pairs[2 * i + 1] = _mm512_unpackhi_epi32(rows[2 * i], rows[2 * i + 1]);
    }
    // Lane `j` of 128 bits of `quads[4 * i + k]` has column `4 * j + k` of rows `4 * i..4 * i + 4`.
    for i in 0..4 {
        quads[4 * i] = _mm512_unpacklo_epi64(pairs[4 * i], pairs[4 * i + 2]);
        quads[4 * i + 1] = _mm512_unpackhi_epi64(pairs[4 * i], pairs[4 * i + 2]);
        quads[4 * i + 2] = _mm512_unpacklo_epi64(pairs[4 * i + 1], pairs[4 * i + 3]);
        quads[4 * i + 3] = _mm512_unpackhi_epi64(pairs[4 * i + 1], pairs[4 * i + 3]);
    }
    for k in 0..4 {
        let upper_even = _mm512_shuffle_i32x4::<0x88>(quads[k], quads[4 + k]);
        let lower_even = _mm512_shuffle_i32x4::<0x88>(quads[8 + k], quads[12 + k]);
        let upper_odd = _mm512_shuffle_i32x4::<0xdd>(quads[k], quads[4 + k]);
        let lower_odd = _mm512_shuffle_i32x4::<0xdd>(quads[8 + k], quads[12 + k]);
        columns[k] = _mm512_shuffle_i32x4::<0x88>(upper_even, lower_even);
        columns[8 + k] = _mm512_shuffle_i32x4::<0xdd>(upper_even, lower_even);
        columns[4 + k] = _mm512_shuffle_i32x4::<0x88>(upper_odd, lower_odd);
        columns[12 + k] = _mm512_shuffle_i32x4::<0xdd>(upper_odd, lower_odd);
    }
    columns
}
