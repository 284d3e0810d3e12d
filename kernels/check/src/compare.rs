//! Comparison of two results of one case.

use actbench_kernels::DType;
use rayon::prelude::*;

use crate::inputs::{CHUNK, widen};

/// The difference between two results.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// Elements with different bits.
    pub elements: usize,
    /// The largest difference, relative to the largest expected value. Infinite where a value is NaN.
    pub worst: f64,
    /// The element of the largest difference as text; `None` if no value differs.
    pub location: Option<String>,
}

impl Difference {
    /// Whether no difference exceeds `tolerance`.
    pub fn is_within(&self, tolerance: f64) -> bool {
        self.worst <= tolerance
    }
}

/// The largest relative difference from another order of additions and one rounding: half a unit in the last place of a
/// value near 1, and a margin for `f32` accumulation.
pub fn tolerance(dtype: DType) -> f64 {
    match dtype {
        DType::F32 => 3e-6,
        DType::F16 => 6e-4,
        DType::Bf16 => 5e-3,
    }
}

/// Compares `got` with `expected`, both rows of `columns` elements of `dtype`; `from` names the source of `expected`.
pub fn compare(got: &[u8], expected: &[u8], dtype: DType, columns: usize, from: &str) -> Difference {
    if got.len() != expected.len() {
        let location = format!("{} bytes where {from} has {}", got.len(), expected.len());
        return Difference { elements: got.len().max(expected.len()), worst: f64::INFINITY, location: Some(location) };
    }
    let chunks = || got.par_chunks(CHUNK * dtype.size()).zip(expected.par_chunks(CHUNK * dtype.size()));
    let elements = chunks()
        .map(|(got, want)| got.chunks(dtype.size()).zip(want.chunks(dtype.size())).filter(|(a, b)| a != b).count())
        .sum();
    let largest = |bytes: &[u8]| widen(dtype, bytes).iter().fold(0.0, |most: f32, value| most.max(value.abs()));
    let scale = f64::from(chunks().map(|(_, want)| largest(want)).reduce(|| 0.0, f32::max)).max(1e-30);
    // The farthest element of each chunk, and of these the first.
    let farthest: Vec<WorstElement> =
        chunks().map(|(got, want)| WorstElement::of(&widen(dtype, got), &widen(dtype, want))).collect();
    let mut difference = Difference { elements, worst: 0.0, location: None };
    for (chunk, farthest) in farthest.into_iter().enumerate() {
        // Also if the expected value is infinite.
        let distance = if farthest.distance.is_finite() { farthest.distance / scale } else { f64::INFINITY };
        if distance > difference.worst {
            difference.worst = distance;
            let index = chunk * CHUNK + farthest.index;
            let (row, column) = (index / columns.max(1), index % columns.max(1));
            let WorstElement { got, want, .. } = farthest;
            difference.location = Some(format!("row {row}, column {column} is {got} where {from} has {want}"));
        }
    }
    difference
}

/// The first element with the largest difference.
#[derive(Default)]
struct WorstElement {
    distance: f64,
    index: usize,
    got: f32,
    want: f32,
}

impl WorstElement {
    fn of(got: &[f32], want: &[f32]) -> Self {
        let mut farthest = WorstElement::default();
        for (index, (got, want)) in got.iter().copied().zip(want.iter().copied()).enumerate() {
            let distance = (f64::from(got) - f64::from(want)).abs();
            // NaN is an infinite difference.
            let distance = if distance.is_nan() { f64::INFINITY } else { distance };
            if distance > farthest.distance {
                farthest = WorstElement { distance, index, got, want };
            }
        }
        farthest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compared(got: &[f32], expected: &[f32]) -> Difference {
        let bytes = |values: &[f32]| DType::F32.from_f32_slice(values);
        compare(&bytes(got), &bytes(expected), DType::F32, 2, "the CPU")
    }

    #[test]
    fn equal_bits_are_no_difference() {
        assert_eq!(compared(&[1.0, -2.0], &[1.0, -2.0]), Difference { elements: 0, worst: 0.0, location: None });
    }

    #[test]
    fn worst_element_is_reported_with_location() {
        let difference = compared(&[1.0, -2.0, 3.0, 4.5], &[1.0, -2.25, 3.0, 4.0]);
        assert_eq!((difference.elements, difference.worst), (2, 0.125));
        assert_eq!(difference.location.unwrap(), "row 1, column 1 is 4.5 where the CPU has 4");
    }

    #[test]
    fn nan_and_other_lengths_differ_infinitely() {
        assert_eq!(compared(&[f32::NAN, 1.0], &[1.0, 1.0]).worst, f64::INFINITY);
        assert_eq!(compared(&[1.0], &[f32::NAN]).worst, f64::INFINITY);
        assert_eq!(compared(&[1.0, 2.0], &[f32::INFINITY, 2.0]).worst, f64::INFINITY);
        assert_eq!(compared(&[1.0], &[1.0, 1.0]).worst, f64::INFINITY);
    }

    #[test]
    fn chunks_are_compared_as_one_result() {
        let expected = vec![0.5f32; 3 * CHUNK + 5];
        let mut got = expected.clone();
        for (index, value) in [(7, 0.75), (CHUNK + 3, 1.0), (2 * CHUNK + 1, 1.0), (3 * CHUNK + 4, 0.5 + 1e-6)] {
            got[index] = value;
        }
        let difference = compared(&got, &expected);
        assert_eq!((difference.elements, difference.worst), (4, 1.0));
        // The first of two equal differences.
        let (row, column) = ((CHUNK + 3) / 2, (CHUNK + 3) % 2);
        assert_eq!(difference.location.unwrap(), format!("row {row}, column {column} is 1 where the CPU has 0.5"));
        // The largest expected value is the scale of all chunks.
        let mut expected = expected;
        expected[3 * CHUNK + 4] = 50.0;
        got[3 * CHUNK + 4] = 50.0;
        assert_eq!(compared(&got, &expected).worst, 0.01);
        got[3 * CHUNK + 3] = f32::NAN;
        assert_eq!(compared(&got, &expected).worst, f64::INFINITY);
    }

    #[test]
    fn signed_zeros_count_as_different_bits() {
        let difference = compared(&[0.0, 1.0], &[-0.0, 1.0]);
        assert_eq!((difference.elements, difference.worst), (1, 0.0));
    }
}
