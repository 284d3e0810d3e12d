//! Two results of one case: how far apart, and where.

use actbench_kernels::DType;

use crate::inputs::widen;

/// How one result differs from another.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// Elements with other bits.
    pub elements: usize,
    /// The largest difference, as a share of the largest expected value. Infinite where a value is NaN.
    pub worst: f64,
    /// The element of the largest difference, for people; nothing where the bits are the same.
    pub place: Option<String>,
}

impl Difference {
    /// Whether no element is further away than `tolerance`.
    pub fn is_within(&self, tolerance: f64) -> bool {
        self.worst <= tolerance
    }
}

/// The largest difference that two orders of sums and a rounding make, as a share of the largest value: half a unit in the
/// last place of a value near 1, with room for sums in `f32`.
pub fn tolerance(dtype: DType) -> f64 {
    match dtype {
        DType::F32 => 3e-6,
        DType::F16 => 6e-4,
        DType::Bf16 => 5e-3,
    }
}

/// Compares `got` with `expected`, both rows of `columns` elements of `dtype`; `from` is what was expected, for people.
pub fn compare(got: &[u8], expected: &[u8], dtype: DType, columns: usize, from: &str) -> Difference {
    if got.len() != expected.len() {
        let place = format!("{} bytes where {from} has {}", got.len(), expected.len());
        return Difference { elements: got.len().max(expected.len()), worst: f64::INFINITY, place: Some(place) };
    }
    let elements =
        got.chunks(dtype.size()).zip(expected.chunks(dtype.size())).filter(|(got, want)| got != want).count();
    let (got, expected) = (widen(dtype, got), widen(dtype, expected));
    let scale = expected.iter().fold(0.0f64, |scale, value| scale.max(f64::from(value.abs()))).max(1e-30);
    let mut difference = Difference { elements, worst: 0.0, place: None };
    for (index, (got, expected)) in got.iter().zip(&expected).enumerate() {
        let distance = (f64::from(*got) - f64::from(*expected)).abs() / scale;
        // A value that is no number is as far away as can be.
        let distance = if distance.is_nan() { f64::INFINITY } else { distance };
        if distance > difference.worst {
            difference.worst = distance;
            let (row, column) = (index / columns.max(1), index % columns.max(1));
            difference.place = Some(format!("row {row}, column {column} is {got} where {from} has {expected}"));
        }
    }
    difference
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compared(got: &[f32], expected: &[f32]) -> Difference {
        let bytes = |values: &[f32]| DType::F32.from_f32_slice(values);
        compare(&bytes(got), &bytes(expected), DType::F32, 2, "the CPU")
    }

    #[test]
    fn the_same_bits_are_no_difference() {
        assert_eq!(compared(&[1.0, -2.0], &[1.0, -2.0]), Difference { elements: 0, worst: 0.0, place: None });
    }

    #[test]
    fn the_worst_element_is_told_with_its_place() {
        let difference = compared(&[1.0, -2.0, 3.0, 4.5], &[1.0, -2.25, 3.0, 4.0]);
        assert_eq!((difference.elements, difference.worst), (2, 0.125));
        assert_eq!(difference.place.unwrap(), "row 1, column 1 is 4.5 where the CPU has 4");
    }

    #[test]
    fn nan_is_never_near_and_lengths_must_agree() {
        assert_eq!(compared(&[f32::NAN, 1.0], &[1.0, 1.0]).worst, f64::INFINITY);
        assert_eq!(compared(&[1.0], &[f32::NAN]).worst, f64::INFINITY);
        assert_eq!(compared(&[1.0], &[1.0, 1.0]).worst, f64::INFINITY);
    }

    #[test]
    fn other_bits_of_an_equal_value_are_counted() {
        let difference = compared(&[0.0, 1.0], &[-0.0, 1.0]);
        assert_eq!((difference.elements, difference.worst), (1, 0.0));
    }
}
