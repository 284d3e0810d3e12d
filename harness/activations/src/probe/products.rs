//! Products of features, which are stored in `f32`, with vectors of `f64`: every product and every sum in double precision.
//!
//! Plain loops over a fixed number of lanes, compiled for each instruction set (`pulp` picks one when they run). They use
//! no fused multiply-add, so that all of them give the same bits.

use ndarray::{Array1, ArrayView2, CowArray, Ix2};

/// Partial sums of one inner product: four vectors of the widest registers.
const LANES: usize = 32;

/// A loop that is compiled once for each instruction set. `run` and all that it calls must be `#[inline(always)]`: what is
/// not inlined is compiled for the oldest processors.
pub(super) trait Vectorised {
    /// What it gives.
    type Output;

    /// The loop.
    fn run(self) -> Self::Output;
}

/// Runs `body` compiled for the best instruction set there is.
pub(super) fn vectorised<V: Vectorised>(body: V) -> V::Output {
    struct Body<V>(V);
    impl<V: Vectorised> pulp::WithSimd for Body<V> {
        type Output = V::Output;

        #[inline(always)]
        fn with_simd<S: pulp::Simd>(self, _: S) -> V::Output {
            self.0.run()
        }
    }
    pulp::Arch::new().dispatch(Body(body))
}

/// `matrix` `[n, h]` times `vector` `[h]`.
pub(super) fn times(matrix: ArrayView2<'_, f32>, vector: &Array1<f64>) -> Array1<f64> {
    struct Times<'a> {
        rows: Rows<'a>,
        vector: &'a [f64],
        out: &'a mut [f64],
    }
    impl Vectorised for Times<'_> {
        type Output = ();

        #[inline(always)]
        fn run(self) {
            for (sample, out) in self.out.iter_mut().enumerate() {
                *out = dot(self.rows.row(sample), self.vector);
            }
        }
    }
    let mut out = vec![0.0; matrix.nrows()];
    let matrix = standard(matrix);
    vectorised(Times { rows: Rows::of(&matrix), vector: &vector.to_vec(), out: &mut out });
    Array1::from_vec(out)
}

/// The transpose of `matrix` `[n, h]` times `vector` `[n]`.
pub(super) fn transposed_times(matrix: ArrayView2<'_, f32>, vector: &[f64]) -> Array1<f64> {
    struct TransposedTimes<'a> {
        rows: Rows<'a>,
        vector: &'a [f64],
        sums: &'a mut [f64],
    }
    impl Vectorised for TransposedTimes<'_> {
        type Output = ();

        #[inline(always)]
        fn run(self) {
            let Self { rows, vector, sums } = self;
            let (fours, left) = vector.as_chunks::<4>();
            // Four rows at a time, so that the sums are read and written once for four.
            for (four, &factors) in fours.iter().enumerate() {
                let first = 4 * four;
                add_four(
                    sums,
                    [rows.row(first), rows.row(first + 1), rows.row(first + 2), rows.row(first + 3)],
                    factors,
                );
            }
            for (place, &factor) in left.iter().enumerate() {
                add(sums, rows.row(4 * fours.len() + place), factor);
            }
        }
    }
    let mut sums = vec![0.0; matrix.ncols()];
    let matrix = standard(matrix);
    vectorised(TransposedTimes { rows: Rows::of(&matrix), vector, sums: &mut sums });
    Array1::from_vec(sums)
}

/// `X^T diag(weights) (X v + bias)` of `matrix` `X` `[n, h]`, and the sum of the weighted values; each row is read once.
pub(super) fn weighted_products(
    matrix: ArrayView2<'_, f32>,
    vector: &Array1<f64>,
    bias: f64,
    weights: &Array1<f64>,
) -> (Array1<f64>, f64) {
    struct WeightedProducts<'a> {
        rows: Rows<'a>,
        vector: &'a [f64],
        bias: f64,
        weights: &'a [f64],
        sums: &'a mut [f64],
    }
    impl Vectorised for WeightedProducts<'_> {
        type Output = f64;

        #[inline(always)]
        fn run(self) -> f64 {
            let mut total = 0.0;
            for (sample, weight) in self.weights.iter().enumerate() {
                let row = self.rows.row(sample);
                let value = weight * (dot(row, self.vector) + self.bias);
                add(self.sums, row, value);
                total += value;
            }
            total
        }
    }
    let mut sums = vec![0.0; matrix.ncols()];
    let matrix = standard(matrix);
    let total = vectorised(WeightedProducts {
        rows: Rows::of(&matrix),
        vector: &vector.to_vec(),
        bias,
        weights: &weights.to_vec(),
        sums: &mut sums,
    });
    (Array1::from_vec(sums), total)
}

/// The sum of all squares.
pub(super) fn sum_of_squares(matrix: ArrayView2<'_, f32>) -> f64 {
    struct Squares<'a>(Rows<'a>);
    impl Vectorised for Squares<'_> {
        type Output = f64;

        #[inline(always)]
        fn run(self) -> f64 {
            let mut sum = 0.0;
            for sample in 0..self.0.samples {
                sum += squares(self.0.row(sample));
            }
            sum
        }
    }
    let matrix = standard(matrix);
    vectorised(Squares(Rows::of(&matrix)))
}

/// Whether every value has at most the size of `largest`; not so for a NaN.
pub(super) fn all_within(matrix: ArrayView2<'_, f32>, largest: f32) -> bool {
    struct Within<'a>(Rows<'a>, f32);
    impl Vectorised for Within<'_> {
        type Output = bool;

        #[inline(always)]
        fn run(self) -> bool {
            // Without an early end, which compilers make vector code of.
            let mut all = true;
            for value in self.0.values {
                all &= value.abs() <= self.1;
            }
            all
        }
    }
    let matrix = standard(matrix);
    vectorised(Within(Rows::of(&matrix), largest))
}

/// `matrix` with its rows one after another, copied if they were not.
fn standard(matrix: ArrayView2<'_, f32>) -> CowArray<'_, f32, Ix2> {
    match matrix.is_standard_layout() {
        true => CowArray::from(matrix),
        false => CowArray::from(matrix.as_standard_layout().into_owned()),
    }
}

/// Rows that lie one after another.
struct Rows<'a> {
    values: &'a [f32],
    samples: usize,
    columns: usize,
}

impl<'a> Rows<'a> {
    fn of(matrix: &'a CowArray<'_, f32, Ix2>) -> Self {
        let (samples, columns) = matrix.dim();
        Self { values: matrix.as_slice().unwrap_or_default(), samples, columns }
    }

    #[inline(always)]
    fn row(&self, sample: usize) -> &'a [f32] {
        &self.values[sample * self.columns..(sample + 1) * self.columns]
    }
}

#[inline(always)]
fn dot(row: &[f32], vector: &[f64]) -> f64 {
    let mut sums = [0.0; LANES];
    let ((values, value_tail), (factors, factor_tail)) = (row.as_chunks::<LANES>(), vector.as_chunks::<LANES>());
    for (values, factors) in values.iter().zip(factors) {
        for lane in 0..LANES {
            sums[lane] += f64::from(values[lane]) * factors[lane];
        }
    }
    let mut tail = 0.0;
    for (&value, &factor) in value_tail.iter().zip(factor_tail) {
        tail += f64::from(value) * factor;
    }
    joined(sums) + tail
}

#[inline(always)]
fn squares(row: &[f32]) -> f64 {
    let mut sums = [0.0; LANES];
    let (values, tail) = row.as_chunks::<LANES>();
    for values in values {
        for lane in 0..LANES {
            sums[lane] += f64::from(values[lane]) * f64::from(values[lane]);
        }
    }
    let mut left = 0.0;
    for &value in tail {
        left += f64::from(value) * f64::from(value);
    }
    joined(sums) + left
}

/// The sum of all lanes, in a fixed order: neighbours 16, 8, ... 1 apart. Spelled out, because lanes that are reached by a
/// number known only to a loop are kept in memory.
#[inline(always)]
fn joined(sums: [f64; LANES]) -> f64 {
    let sums: [f64; 16] = std::array::from_fn(|lane| sums[lane] + sums[lane + 16]);
    let sums: [f64; 8] = std::array::from_fn(|lane| sums[lane] + sums[lane + 8]);
    let sums: [f64; 4] = std::array::from_fn(|lane| sums[lane] + sums[lane + 4]);
    (sums[0] + sums[2]) + (sums[1] + sums[3])
}

#[inline(always)]
fn add(sums: &mut [f64], row: &[f32], factor: f64) {
    for (sum, &value) in sums.iter_mut().zip(row) {
        *sum += f64::from(value) * factor;
    }
}

#[inline(always)]
fn add_four(sums: &mut [f64], [a, b, c, d]: [&[f32]; 4], [p, q, r, s]: [f64; 4]) {
    for ((((sum, &a), &b), &c), &d) in sums.iter_mut().zip(a).zip(b).zip(c).zip(d) {
        *sum += (f64::from(a) * p + f64::from(b) * q) + (f64::from(c) * r + f64::from(d) * s);
    }
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use super::*;

    fn features(samples: usize, columns: usize) -> Array2<f32> {
        Array2::from_shape_fn((samples, columns), |(i, j)| (((i + 3) * (j + 7) * 31) % 97) as f32 / 48.0 - 1.0)
    }

    fn vector(size: usize) -> Array1<f64> {
        Array1::from_shape_fn(size, |i| (i % 7) as f64 - 3.0)
    }

    fn assert_near(actual: &Array1<f64>, expected: &Array1<f64>, what: &str) {
        assert_eq!(actual.len(), expected.len(), "{what}");
        let largest = expected.iter().fold(1.0, |largest: f64, value| largest.max(value.abs()));
        for (actual, expected) in actual.iter().zip(expected) {
            assert!((actual - expected).abs() <= 1e-12 * largest, "{what}: {actual} {expected}");
        }
    }

    #[test]
    fn products_are_those_of_ndarray() {
        for (samples, columns) in [(1, 1), (3, 5), (17, 64), (130, 33), (7, 100)] {
            let matrix = features(samples, columns);
            let wide = matrix.mapv(f64::from);
            let (long, short) = (vector(samples), vector(columns));
            assert_near(&times(matrix.view(), &short), &wide.dot(&short), "rows");
            assert_near(&transposed_times(matrix.view(), &long.to_vec()), &wide.t().dot(&long), "columns");
            let turned = matrix.t();
            assert_near(&times(turned, &long), &wide.t().dot(&long), "rows that do not lie together");
            assert_near(&transposed_times(turned, &short.to_vec()), &wide.dot(&short), "columns that do");
            let weighted = (wide.dot(&short) + 0.5) * &long;
            let (products, total) = weighted_products(matrix.view(), &short, 0.5, &long);
            assert_near(&products, &wide.t().dot(&weighted), "both");
            assert!((total - weighted.sum()).abs() <= 1e-12 * weighted.mapv(f64::abs).sum().max(1.0));
            let squares = wide.mapv(|value| value * value).sum();
            assert!((sum_of_squares(matrix.view()) - squares).abs() <= 1e-12 * squares);
        }
    }

    #[test]
    fn what_is_too_large_or_no_number_is_not_within() {
        let mut matrix = features(9, 70);
        assert!(all_within(matrix.view(), 1.05) && !all_within(matrix.view(), 0.5));
        for bad in [f32::NAN, f32::INFINITY, -2.0] {
            matrix[[8, 69]] = bad;
            assert!(!all_within(matrix.view(), 1.05), "{bad}");
        }
    }
}
