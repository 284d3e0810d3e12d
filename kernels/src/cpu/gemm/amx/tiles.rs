//! Where the products find tiles of activations: in the activations themselves, or in a copy.

use std::ops::Range;

use rayon::prelude::*;

use super::{LINE, TILE_ROWS};
use crate::cpu::aligned::AlignedBytes;
use crate::cpu::tensor::CpuTensor;
use crate::dtype::DType;
use crate::error::KernelError;

/// Numbers of bf16, with 8 bits each, whose sum is a number of f32, which has 24.
pub(super) const TERMS: usize = 3;

/// Rows whose length is a multiple of this begin in few sets of a cache and drive each other out.
const CONFLICTING_BYTES: usize = 8192;

/// The tiles of some rows of activations.
pub(super) struct Tiles<'a> {
    /// The rows.
    rows: Range<usize>,
    /// Whole tiles, in the activations themselves, from the first row on.
    direct: &'a [u8],
    /// Bytes from row to row there.
    row_bytes: usize,
    /// The tiles after them, in a padded copy; for f32 all, once for each term.
    padded: &'a [u8],
    /// Bytes from row to row there.
    padded_bytes: usize,
    /// 1, or [`TERMS`].
    terms: usize,
}

impl<'a> Tiles<'a> {
    /// Copies into `scratch` what of `rows` of `x` cannot be read in place.
    ///
    /// These are all rows of f32, which are split, those that are not whole tiles, and all where [`CONFLICTING_BYTES`]
    /// divide a row: the copy has an odd number of cache lines a row, so that the lines of a tile spread over the cache.
    ///
    /// # Safety
    /// The processor must have AVX-512.
    pub(super) unsafe fn new(
        x: &'a CpuTensor,
        rows: Range<usize>,
        inputs: usize,
        scratch: &'a mut AlignedBytes,
    ) -> Result<Self, KernelError> {
        let terms = if x.dtype() == DType::F32 { TERMS } else { 1 };
        let row_bytes = inputs * size_of::<u16>();
        let in_place = terms == 1 && x.columns() == inputs && !row_bytes.is_multiple_of(CONFLICTING_BYTES);
        let whole = if in_place { rows.len() / TILE_ROWS * TILE_ROWS } else { 0 };
        let padded_rows = (rows.len() - whole).next_multiple_of(TILE_ROWS);
        let padded_bytes = ((row_bytes / LINE) | 1) * LINE;
        let term_bytes = padded_rows * padded_bytes;
        if scratch.as_slice().len() < terms * term_bytes {
            *scratch = AlignedBytes::zeroed("linear", terms * term_bytes)?;
        }
        let padded = &mut scratch.as_mut_slice()[..terms * term_bytes];
        // Nothing of the rows after the last.
        let source = |row: usize| (whole + row < rows.len()).then(|| x.row(rows.start + whole + row));
        match terms {
            1 => padded.par_chunks_mut(padded_bytes).enumerate().for_each(|(row, padded)| {
                let source = source(row).unwrap_or_default();
                let (copy, zeros) = padded.split_at_mut(source.len());
                copy.copy_from_slice(source);
                zeros.fill(0);
            }),
            _ => {
                let (high, others) = padded.split_at_mut(term_bytes);
                let (middle, low) = others.split_at_mut(term_bytes);
                let rows = high.par_chunks_mut(padded_bytes).zip(middle.par_chunks_mut(padded_bytes));
                rows.zip(low.par_chunks_mut(padded_bytes)).enumerate().for_each(|(row, ((high, middle), low))| {
                    let terms = [high, middle, low].map(bytemuck::cast_slice_mut);
                    let values: &[f32] = source(row).map(bytemuck::cast_slice).unwrap_or_default();
                    // SAFETY: the caller grants AVX-512.
                    unsafe { split(values, terms) };
                });
            }
        }
        let direct = match whole {
            0 => &[],
            _ => &x.bytes()[rows.start * row_bytes..(rows.start + whole) * row_bytes],
        };
        Ok(Tiles { rows, direct, row_bytes, padded, padded_bytes, terms })
    }

    /// The rows, in the activations.
    pub(super) fn rows(&self) -> Range<usize> {
        self.rows.clone()
    }

    /// Terms of which an activation is the sum.
    #[inline(always)]
    pub(super) fn terms(&self) -> usize {
        self.terms
    }

    /// Bytes from a tile's term to its next.
    #[inline(always)]
    pub(super) fn term_bytes(&self) -> usize {
        self.padded.len() / self.terms
    }

    /// What begins with the tile whose first row is `row`, a multiple of [`TILE_ROWS`] from the first on, over all inputs,
    /// and the bytes from row to row.
    #[inline(always)]
    pub(super) fn tile(&self, row: usize) -> (&[u8], usize) {
        let row = row - self.rows.start;
        let direct_rows = self.direct.len().checked_div(self.row_bytes).unwrap_or(0);
        match row.checked_sub(direct_rows) {
            None => (&self.direct[row * self.row_bytes..], self.row_bytes),
            Some(row) => (&self.padded[row * self.padded_bytes..], self.padded_bytes),
        }
    }
}

/// Writes the terms of `values`, the largest first, and zeros after them.
///
/// Each term is what is left, cut off after 8 bits, so that the last leaves nothing. What is not finite is a term of its
/// own: of an infinity less itself nothing would be left but NaN.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn split(values: &[f32], terms: [&mut [u16]; TERMS]) {
    /// A NaN whose bits lie in the upper half.
    const NAN: u32 = 0x7fc0_0000;
    let [high, middle, low] = terms;
    for zeros in [&mut *high, &mut *middle, &mut *low] {
        zeros[values.len()..].fill(0);
    }
    for (((value, high), middle), low) in values.iter().zip(high).zip(middle).zip(low) {
        let cut = |value: f32| f32::from_bits(value.to_bits() & 0xffff_0000);
        let first = if value.is_nan() { f32::from_bits(NAN) } else { cut(*value) };
        let rest = if value.is_finite() { value - first } else { 0.0 };
        let second = cut(rest);
        *high = (first.to_bits() >> 16) as u16;
        *middle = (second.to_bits() >> 16) as u16;
        *low = ((rest - second).to_bits() >> 16) as u16;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms_of(values: &[f32]) -> Vec<[f32; TERMS]> {
        let mut terms = [(); TERMS].map(|()| vec![0xffff_u16; values.len() + 1]);
        let [high, middle, low] = &mut terms;
        // SAFETY: the test that calls this has seen the features.
        unsafe { split(values, [high, middle, low]) };
        assert!(terms.iter().all(|term| term[values.len()] == 0), "what follows the values is zero");
        let wide = |bits: u16| f32::from_bits(u32::from(bits) << 16);
        (0..values.len()).map(|index| [0, 1, 2].map(|term: usize| wide(terms[term][index]))).collect()
    }

    #[test]
    fn terms_add_up_to_the_value_and_what_is_not_finite_stays() {
        if !(is_x86_feature_detected!("avx512dq") && is_x86_feature_detected!("avx512vl")) {
            return;
        }
        let finite = [0.0, -0.0, 1.0, f32::MAX, f32::MIN, 1.000_000_1, -2f32.powi(-100) / 3.0, std::f32::consts::PI];
        for (value, [high, middle, low]) in finite.iter().zip(terms_of(&finite)) {
            assert_eq!((low + middle) + high, *value);
        }
        // A NaN whose bits are all in the lower half among them.
        let others = [f32::INFINITY, f32::NEG_INFINITY, f32::NAN, f32::from_bits(0x7f80_0001)];
        for (value, [high, middle, low]) in others.iter().zip(terms_of(&others)) {
            assert!(high == *value || (high.is_nan() && value.is_nan()), "{value}: {high}");
            assert_eq!([middle, low], [0.0, 0.0]);
        }
    }
}
