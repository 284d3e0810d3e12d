//! Seeded values, and their way to a device.
//!
//! A value depends on seed, stream and index alone, so that all threads draw together and any part can be drawn again.

use std::array;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;

use actbench_kernels::{Backend, DType, HostTensor, KernelError};
use bytes::Bytes;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use crate::case::Case;

/// Elements that one thread draws or reads at a time: long enough to be worth waking it.
pub const CHUNK: usize = 1 << 16;

/// Elements that are converted at a time: few enough for the first cache.
const BLOCK: usize = 1024;

/// Values in -`largest`..`largest`, rounded to `dtype`, as bytes, so that every backend starts from the same. `stream`
/// tells the inputs of one case apart.
pub fn random(seed: u64, stream: u64, dtype: DType, largest: f32, len: usize) -> Bytes {
    draw(seed, stream, dtype, len, |[word]| largest * (2.0 * unit(word) - 1.0))
}

/// Values of every size that `from` and `to` both have, of both signs, as bytes in `from`: what conversions are checked on.
pub fn of_every_size(seed: u64, from: DType, to: DType, len: usize) -> Bytes {
    // f16 reaches from 2^-24, its smallest subnormal, to below 2^16; the others far beyond what models use.
    let (least, most) = if [from, to].contains(&DType::F16) { (-26.0, 15.9) } else { (-60.0, 60.0) };
    draw(seed, 0, from, len, |[exponent, sign]| {
        let size = (least + (most - least) * unit(exponent)).exp2();
        if sign & 1 == 0 { size } else { -size }
    })
}

/// 24 bits of a random word as a number in 0..1, exactly.
fn unit(word: u32) -> f32 {
    (word >> 8) as f32 / (1 << 24) as f32
}

/// `len` values of `WORDS` words each, in `dtype`.
fn draw<const WORDS: usize>(
    seed: u64,
    stream: u64,
    dtype: DType,
    len: usize,
    value: impl Fn([u32; WORDS]) -> f32 + Sync,
) -> Bytes {
    let mut generator = ChaCha8Rng::seed_from_u64(seed);
    generator.set_stream(stream);
    let mut bytes = vec![0; len * dtype.size()];
    bytes.par_chunks_mut(CHUNK * dtype.size()).enumerate().for_each(|(chunk, bytes)| {
        let mut generator = generator.clone();
        generator.set_word_pos((chunk * CHUNK * WORDS) as u128);
        let mut values = [0.0; BLOCK];
        for bytes in bytes.chunks_mut(BLOCK * dtype.size()) {
            let values = &mut values[..bytes.len() / dtype.size()];
            values.fill_with(|| value(array::from_fn(|_| generator.next_u32())));
            dtype.narrow(values, bytes);
        }
    });
    Bytes::from(bytes)
}

/// The inputs of one case, each drawn when it is first asked for and kept: sets of kernels and ranges of rows share them.
pub struct Inputs<'a> {
    /// What they are inputs of.
    pub case: &'a Case,
    /// By stream.
    drawn: RefCell<BTreeMap<u64, Bytes>>,
}

impl<'a> Inputs<'a> {
    /// Of `case`, with nothing drawn yet.
    pub fn new(case: &'a Case) -> Self {
        Inputs { case, drawn: RefCell::default() }
    }

    /// Rows `range` of the `[rows, columns]` values that `draw` gives for `stream` and `rows * columns`, in `dtype`.
    ///
    /// # Errors
    /// Rows that are not there.
    pub fn rows(
        &self,
        stream: u64,
        dtype: DType,
        [rows, columns]: [usize; 2],
        range: Range<usize>,
        draw: impl FnOnce(usize) -> Bytes,
    ) -> Result<HostTensor, KernelError> {
        let mut drawn = self.drawn.borrow_mut();
        let bytes = drawn.entry(stream).or_insert_with(|| draw(rows * columns));
        let row_bytes = columns * dtype.size();
        if range.start > range.end || range.end * row_bytes > bytes.len() {
            return Err(KernelError::shape("inputs", format!("rows {range:?} of {rows}")));
        }
        HostTensor::new(dtype, vec![range.len(), columns], bytes.slice(range.start * row_bytes..range.end * row_bytes))
    }

    /// A vector of `len` values in -1..1.
    ///
    /// # Errors
    /// None that a case could meet.
    pub fn vector(&self, stream: u64, dtype: DType, len: usize) -> Result<HostTensor, KernelError> {
        let mut drawn = self.drawn.borrow_mut();
        let bytes = drawn.entry(stream).or_insert_with(|| random(self.case.seed, stream, dtype, 1.0, len));
        HostTensor::new(dtype, vec![len], bytes.clone())
    }
}

/// A device tensor of the values of a matrix, through the embedding of every row.
pub fn upload<B: Backend>(backend: &B, values: &HostTensor) -> Result<B::Tensor, KernelError> {
    let (dtype, [rows, columns]) = match values.shape() {
        [rows, columns] => (values.dtype(), [*rows, *columns]),
        other => return Err(KernelError::shape("upload", format!("not a matrix: {other:?}"))),
    };
    let table = backend.prepare_embedding(values, dtype)?;
    let mut tensor = backend.alloc(dtype, rows, columns)?;
    let tokens: Vec<u32> = (0..rows as u32).collect();
    backend.embed(&table, &tokens, &mut tensor)?;
    Ok(tensor)
}

/// Elements of `dtype` widened to `f32`; bytes behind the last whole element are left out.
pub fn widen(dtype: DType, bytes: &[u8]) -> Vec<f32> {
    dtype.to_f32_vec(bytes.get(..bytes.len() / dtype.size() * dtype.size()).unwrap_or_default())
}

/// Whether no element is NaN or infinite.
pub fn all_finite(dtype: DType, bytes: &[u8]) -> bool {
    bytes.par_chunks(CHUNK * dtype.size()).all(|bytes| widen(dtype, bytes).iter().all(|value| value.is_finite()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::Operation;

    /// Values across the edges of chunks and blocks.
    const LEN: usize = 2 * CHUNK + BLOCK + 7;

    #[test]
    fn values_depend_on_seed_stream_and_index_and_not_on_the_threads() {
        for dtype in [DType::F32, DType::F16, DType::Bf16] {
            let on = |threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| random(3, 1, dtype, 1.0, LEN))
            };
            let all = on(1);
            assert_eq!(all, on(5), "{dtype}");
            for len in [1, BLOCK + 1, CHUNK, CHUNK + 1] {
                assert_eq!(random(3, 1, dtype, 1.0, len), all[..len * dtype.size()], "{dtype} {len}");
            }
            assert_ne!(random(4, 1, dtype, 1.0, LEN), all, "{dtype}");
            assert_ne!(random(3, 2, dtype, 1.0, LEN), all, "{dtype}");
        }
    }

    #[test]
    fn no_two_chunks_are_the_same_and_one_word_makes_a_value() {
        let bytes = random(3, 1, DType::F32, 1.0, LEN);
        let (first, second) = (&bytes[..CHUNK * 4], &bytes[CHUNK * 4..CHUNK * 8]);
        assert!(first != second);
        // As by one generator from the start to the end.
        let mut generator = ChaCha8Rng::seed_from_u64(3);
        generator.set_stream(1);
        let expected: Vec<f32> = (0..LEN).map(|_| 2.0 * unit(generator.next_u32()) - 1.0).collect();
        assert_eq!(widen(DType::F32, &bytes), expected);
    }

    #[test]
    fn values_are_spread_evenly_over_their_range() {
        let values = widen(DType::F32, &random(0, 0, DType::F32, 4.0, LEN));
        assert!(values.iter().all(|value| (-4.0..4.0).contains(value)));
        let moment = |power| values.iter().map(|value| f64::from(*value).powi(power)).sum::<f64>() / LEN as f64;
        // Uniform in -4..4: mean 0 and variance 16 / 3; 131,000 values are within a hundredth of both.
        assert!(moment(1).abs() < 0.03 && (moment(2) - 16.0 / 3.0).abs() < 0.05, "{} {}", moment(1), moment(2));
        let values = widen(DType::F16, &of_every_size(0, DType::F16, DType::F32, LEN));
        assert!(values.iter().all(|value| value.is_finite()));
        let small = values.iter().filter(|value| value.abs() < 1e-4).count();
        // By sign: the smallest values round to a zero of their sign.
        let negative = values.iter().filter(|value| value.is_sign_negative()).count();
        assert!((LEN / 4..LEN / 2).contains(&small), "{small}");
        assert!((LEN * 49 / 100..LEN * 51 / 100).contains(&negative), "{negative}");
    }

    #[test]
    fn rows_of_inputs_are_those_of_the_whole_and_rows_beyond_it_are_refused() {
        let case = Case { operation: Operation::RmsNorm { rows: 5, columns: 3 }, dtype: DType::Bf16, seed: 9 };
        let inputs = Inputs::new(&case);
        let rows = |range| inputs.rows(1, DType::Bf16, [5, 3], range, |len| random(9, 1, DType::Bf16, 1.0, len));
        let whole = rows(0..5).unwrap();
        assert_eq!(*rows(2..4).unwrap().bytes(), whole.bytes()[12..24]);
        assert_eq!(rows(2..4).unwrap().shape(), [2, 3]);
        assert!(rows(3..6).is_err());
    }

    #[test]
    fn one_value_that_is_not_finite_is_found_in_the_last_chunk() {
        let mut values = vec![1.0f32; LEN];
        assert!(all_finite(DType::F32, &DType::F32.from_f32_slice(&values)));
        values[LEN - 1] = f32::NAN;
        assert!(!all_finite(DType::F32, &DType::F32.from_f32_slice(&values)));
    }
}
