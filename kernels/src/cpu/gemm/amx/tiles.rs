//! The tiles of activations: in the activations themselves, or in a padded copy.

use std::ops::Range;

use rayon::prelude::*;

use super::{LINE, TILE_ROWS};
use crate::cpu::aligned::AlignedBytes;
use crate::cpu::tensor::CpuTensor;
use crate::dtype::DType;
use crate::error::KernelError;

/// Terms of bf16, with 8 significant bits each, whose sum is an f32, which has 24.
pub(super) const TERMS: usize = 3;

/// Rows whose length is a multiple of this start in few sets of a cache and evict each other.
const CONFLICTING_BYTES: usize = 8192;

/// The tiles of a range of rows of activations.
pub(super) struct ActivationTiles<'a> {
    /// The rows of the activations.
    rows: Range<usize>,
    /// Whole tiles in the activations themselves, from the first row.
    direct: &'a [u8],
    /// The row stride of `direct`, in bytes.
    row_bytes: usize,
    /// The remaining tiles in a padded copy; for f32 all tiles, once for each term.
    padded: &'a [u8],
    /// The row stride of `padded`, in bytes.
    padded_bytes: usize,
    /// Terms of an activation: [`TERMS`] for f32, else 1.
    terms: usize,
}

/// The copy of the rows that cannot be read in place.
pub(super) struct PaddedCopy {
    /// Terms of an activation.
    terms: usize,
    /// Rows that need no copy.
    whole: usize,
    /// Bytes of a copied row.
    padded_bytes: usize,
    /// Bytes of all copied rows, for each term.
    term_bytes: usize,
}

impl PaddedCopy {
    /// The copy of `rows` rows of `columns` elements for panels of `inputs` inputs.
    pub(super) fn of(dtype: DType, rows: usize, columns: usize, inputs: usize) -> Self {
        let terms = if dtype == DType::F32 { TERMS } else { 1 };
        let row_bytes = inputs * size_of::<u16>();
        let in_place = terms == 1 && columns == inputs && !row_bytes.is_multiple_of(CONFLICTING_BYTES);
        let whole = if in_place { rows / TILE_ROWS * TILE_ROWS } else { 0 };
        let padded_bytes = ((row_bytes / LINE) | 1) * LINE;
        PaddedCopy { terms, whole, padded_bytes, term_bytes: (rows - whole).next_multiple_of(TILE_ROWS) * padded_bytes }
    }

    /// Bytes of all terms.
    pub(super) fn bytes(&self) -> usize {
        self.terms * self.term_bytes
    }
}

impl<'a> ActivationTiles<'a> {
    /// The tiles of `rows` of `x`. Rows that cannot be read in place are copied to `scratch`.
    ///
    /// These are all rows of f32, which are split, the rows beyond whole tiles, and all rows whose length is a multiple
    /// of [`CONFLICTING_BYTES`]. The copy has an odd number of cache lines a row, so that the lines of a tile are
    /// spread over the sets of the cache.
    ///
    /// # Safety
    /// The processor must have AVX-512.
    pub(super) unsafe fn new(
        x: &'a CpuTensor,
        rows: Range<usize>,
        inputs: usize,
        scratch: &'a mut AlignedBytes,
    ) -> Result<Self, KernelError> {
        let row_bytes = inputs * size_of::<u16>();
        let PaddedCopy { terms, whole, padded_bytes, term_bytes } =
            PaddedCopy::of(x.dtype(), rows.len(), x.columns(), inputs);
        if scratch.as_slice().len() < terms * term_bytes {
            scratch.replace("linear", terms * term_bytes)?;
        }
        let padded = &mut scratch.as_mut_slice()[..terms * term_bytes];
        // Rows after the last one are zeros.
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
                    // SAFETY: the caller guarantees AVX-512.
                    unsafe { split(values, terms) };
                });
            }
        }
        let direct = match whole {
            0 => &[],
            _ => &x.bytes()[rows.start * row_bytes..(rows.start + whole) * row_bytes],
        };
        Ok(ActivationTiles { rows, direct, row_bytes, padded, padded_bytes, terms })
    }

    /// The rows of the activations.
    pub(super) fn rows(&self) -> Range<usize> {
        self.rows.clone()
    }

    /// The number of terms of an activation.
    #[inline(always)]
    pub(super) fn terms(&self) -> usize {
        self.terms
    }

    /// Bytes from a term of a tile to its next term.
    #[inline(always)]
    pub(super) fn term_bytes(&self) -> usize {
        self.padded.len() / self.terms
    }

    /// The bytes from the tile whose first row is `row`, over all inputs, and its row stride in bytes. `row` is a
    /// multiple of [`TILE_ROWS`] from the first row.
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

/// Splits `values` into terms, the largest first, followed by zeros.
///
/// Each term is the remainder truncated to 8 bits, so the last remainder is zero. The first term of a value that is not
/// finite is the value itself, and the others are zero: an infinity minus itself would be NaN.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn split(values: &[f32], terms: [&mut [u16]; TERMS]) {
    /// A NaN whose lower half is zero.
    const NAN: u32 = 0x7fc0_0000;
    let [high, middle, low] = terms;
    for zeros in [&mut *high, &mut *middle, &mut *low] {
        zeros[values.len()..].fill(0);
    }
    for (((value, high), middle), low) in values.iter().zip(high).zip(middle).zip(low) {
        let truncate = |value: f32| f32::from_bits(value.to_bits() & 0xffff_0000);
        let first = if value.is_nan() { f32::from_bits(NAN) } else { truncate(*value) };
        let rest = if value.is_finite() { value - first } else { 0.0 };
        let second = truncate(rest);
        *high = (first.to_bits() >> 16) as u16;
        *middle = (second.to_bits() >> 16) as u16;
        *low = ((rest - second).to_bits() >> 16) as u16;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split_terms(values: &[f32]) -> Vec<[f32; TERMS]> {
        let mut terms = [(); TERMS].map(|()| vec![0xffff_u16; values.len() + 1]);
        let [high, middle, low] = &mut terms;
        // SAFETY: the test that calls this has checked the features.
        unsafe { split(values, [high, middle, low]) };
        assert!(terms.iter().all(|term| term[values.len()] == 0), "the padding is zero");
        let wide = |bits: u16| f32::from_bits(u32::from(bits) << 16);
        (0..values.len()).map(|index| [0, 1, 2].map(|term: usize| wide(terms[term][index]))).collect()
    }

    #[test]
    fn terms_sum_to_value_and_non_finite_stays() {
        if !(is_x86_feature_detected!("avx512dq") && is_x86_feature_detected!("avx512vl")) {
            return;
        }
        let finite = [0.0, -0.0, 1.0, f32::MAX, f32::MIN, 1.000_000_1, -2f32.powi(-100) / 3.0, std::f32::consts::PI];
        for (value, [high, middle, low]) in finite.iter().zip(split_terms(&finite)) {
            assert_eq!((low + middle) + high, *value);
        }
        // The last one is a NaN whose significand is all in the lower half.
        let others = [f32::INFINITY, f32::NEG_INFINITY, f32::NAN, f32::from_bits(0x7f80_0001)];
        for (value, [high, middle, low]) in others.iter().zip(split_terms(&others)) {
            assert!(high == *value || (high.is_nan() && value.is_nan()), "{value}: {high}");
            assert_eq!([middle, low], [0.0, 0.0]);
        }
    }
}
