//! Matrix-vector multiplication (GEMV) of features in `f32` with vectors in `f64`, computed in double precision.
//!
//! The loops have a fixed number of lanes and no fused multiply-add, so that all instruction sets give the same bits
//! (see `simd`).

use ndarray::{Array1, ArrayView2, CowArray, Ix2};

use super::simd::{SimdLoop, run_simd};

/// Accumulators of one dot product: four vectors of the widest registers.
const LANES: usize = 32;

/// `matrix` `[n, h]` times `vector` `[h]`.
pub(super) fn gemv(matrix: ArrayView2<'_, f32>, vector: &Array1<f64>) -> Array1<f64> {
    struct Gemv<'a> {
        rows: RowMajorMatrix<'a>,
        vector: &'a [f64],
        out: &'a mut [f64],
    }
    impl SimdLoop for Gemv<'_> {
        type Output = ();

        #[inline(always)]
        fn run(self) {
            for (sample, out) in self.out.iter_mut().enumerate() {
                *out = dot(self.rows.row(sample), self.vector);
            }
        }
    }
    let mut out = vec![0.0; matrix.nrows()];
    let matrix = row_major(matrix);
    run_simd(Gemv { rows: RowMajorMatrix::new(&matrix), vector: &vector.to_vec(), out: &mut out });
    Array1::from_vec(out)
}

/// The transpose of `matrix` `[n, h]` times `vector` `[n]`.
pub(super) fn gemv_transposed(matrix: ArrayView2<'_, f32>, vector: &[f64]) -> Array1<f64> {
    struct GemvTransposed<'a> {
        rows: RowMajorMatrix<'a>,
        vector: &'a [f64],
        acc: &'a mut [f64],
    }
    impl SimdLoop for GemvTransposed<'_> {
        type Output = ();

        #[inline(always)]
        fn run(self) {
            let Self { rows, vector, acc } = self;
            let (fours, left) = vector.as_chunks::<4>();
            // Four rows at a time, so that the accumulators are read and written once for four rows.
            for (four, &factors) in fours.iter().enumerate() {
                let first = 4 * four;
                add_four(
                    acc,
                    [rows.row(first), rows.row(first + 1), rows.row(first + 2), rows.row(first + 3)],
                    factors,
                );
            }
            for (index, &factor) in left.iter().enumerate() {
                add(acc, rows.row(4 * fours.len() + index), factor);
            }
        }
    }
    let mut acc = vec![0.0; matrix.ncols()];
    let matrix = row_major(matrix);
    run_simd(GemvTransposed { rows: RowMajorMatrix::new(&matrix), vector, acc: &mut acc });
    Array1::from_vec(acc)
}

/// `X^T diag(weights) (X v + bias)` for `matrix` `X` `[n, h]`, and the sum of the weighted values. Each row is read
/// once.
pub(super) fn weighted_gram_gemv(
    matrix: ArrayView2<'_, f32>,
    vector: &Array1<f64>,
    bias: f64,
    weights: &Array1<f64>,
) -> (Array1<f64>, f64) {
    struct WeightedGramGemv<'a> {
        rows: RowMajorMatrix<'a>,
        vector: &'a [f64],
        bias: f64,
        weights: &'a [f64],
        acc: &'a mut [f64],
    }
    impl SimdLoop for WeightedGramGemv<'_> {
        type Output = f64;

        #[inline(always)]
        fn run(self) -> f64 {
            let mut total = 0.0;
            for (sample, weight) in self.weights.iter().enumerate() {
                let row = self.rows.row(sample);
                let value = weight * (dot(row, self.vector) + self.bias);
                add(self.acc, row, value);
                total += value;
            }
            total
        }
    }
    let mut acc = vec![0.0; matrix.ncols()];
    let matrix = row_major(matrix);
    let total = run_simd(WeightedGramGemv {
        rows: RowMajorMatrix::new(&matrix),
        vector: &vector.to_vec(),
        bias,
        weights: &weights.to_vec(),
        acc: &mut acc,
    });
    (Array1::from_vec(acc), total)
}

/// The sum of the squares of all values.
pub(super) fn sum_of_squares(matrix: ArrayView2<'_, f32>) -> f64 {
    struct SumOfSquares<'a>(RowMajorMatrix<'a>);
    impl SimdLoop for SumOfSquares<'_> {
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
    let matrix = row_major(matrix);
    run_simd(SumOfSquares(RowMajorMatrix::new(&matrix)))
}

/// Whether the absolute value of every element is at most `max`; false for a NaN.
pub(super) fn all_within(matrix: ArrayView2<'_, f32>, max: f32) -> bool {
    struct AllWithin<'a>(RowMajorMatrix<'a>, f32);
    impl SimdLoop for AllWithin<'_> {
        type Output = bool;

        #[inline(always)]
        fn run(self) -> bool {
            // Without early exit, so that the compiler vectorizes the loop.
            let mut all = true;
            for value in self.0.values {
                all &= value.abs() <= self.1;
            }
            all
        }
    }
    let matrix = row_major(matrix);
    run_simd(AllWithin(RowMajorMatrix::new(&matrix), max))
}

/// `matrix` in row-major layout, copied if necessary.
fn row_major(matrix: ArrayView2<'_, f32>) -> CowArray<'_, f32, Ix2> {
    if matrix.is_standard_layout() {
        CowArray::from(matrix)
    } else {
        CowArray::from(matrix.as_standard_layout().into_owned())
    }
}

/// A row-major matrix.
struct RowMajorMatrix<'a> {
    values: &'a [f32],
    samples: usize,
    columns: usize,
}

impl<'a> RowMajorMatrix<'a> {
    fn new(matrix: &'a CowArray<'_, f32, Ix2>) -> Self {
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
    let mut acc = [0.0; LANES];
    let ((values, value_tail), (factors, factor_tail)) = (row.as_chunks::<LANES>(), vector.as_chunks::<LANES>());
    for (values, factors) in values.iter().zip(factors) {
        for lane in 0..LANES {
            acc[lane] += f64::from(values[lane]) * factors[lane];
        }
    }
    let mut tail = 0.0;
    for (&value, &factor) in value_tail.iter().zip(factor_tail) {
        tail += f64::from(value) * factor;
    }
    reduce_lanes(acc) + tail
}

#[inline(always)]
fn squares(row: &[f32]) -> f64 {
    let mut acc = [0.0; LANES];
    let (values, tail) = row.as_chunks::<LANES>();
    for values in values {
        for lane in 0..LANES {
            acc[lane] += f64::from(values[lane]) * f64::from(values[lane]);
        }
    }
    let mut tail_sum = 0.0;
    for &value in tail {
        tail_sum += f64::from(value) * f64::from(value);
    }
    reduce_lanes(acc) + tail_sum
}

/// The sum of all lanes in a fixed order: pairs at distance 16, 8, 4, 2 and 1. Unrolled, because the compiler keeps
/// lanes that a loop variable indexes in memory.
#[inline(always)]
fn reduce_lanes(acc: [f64; LANES]) -> f64 {
    let acc: [f64; 16] = std::array::from_fn(|lane| acc[lane] + acc[lane + 16]);
    let acc: [f64; 8] = std::array::from_fn(|lane| acc[lane] + acc[lane + 8]);
    let acc: [f64; 4] = std::array::from_fn(|lane| acc[lane] + acc[lane + 4]);
    (acc[0] + acc[2]) + (acc[1] + acc[3])
}

#[inline(always)]
fn add(acc: &mut [f64], row: &[f32], factor: f64) {
    for (acc, &value) in acc.iter_mut().zip(row) {
        *acc += f64::from(value) * factor;
    }
}

#[inline(always)]
fn add_four(acc: &mut [f64], [a, b, c, d]: [&[f32]; 4], [p, q, r, s]: [f64; 4]) {
    for ((((acc, &a), &b), &c), &d) in acc.iter_mut().zip(a).zip(b).zip(c).zip(d) {
        *acc += (f64::from(a) * p + f64::from(b) * q) + (f64::from(c) * r + f64::from(d) * s);
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
    fn gemv_matches_ndarray() {
        for (samples, columns) in [(1, 1), (3, 5), (17, 64), (130, 33), (7, 100)] {
            let matrix = features(samples, columns);
            let wide = matrix.mapv(f64::from);
            let (long, short) = (vector(samples), vector(columns));
            assert_near(&gemv(matrix.view(), &short), &wide.dot(&short), "rows");
            assert_near(&gemv_transposed(matrix.view(), &long.to_vec()), &wide.t().dot(&long), "columns");
            let turned = matrix.t();
            assert_near(&gemv(turned, &long), &wide.t().dot(&long), "rows of a transposed view");
            assert_near(&gemv_transposed(turned, &short.to_vec()), &wide.dot(&short), "columns of a transposed view");
            let weighted = (wide.dot(&short) + 0.5) * &long;
            let (product, total) = weighted_gram_gemv(matrix.view(), &short, 0.5, &long);
            assert_near(&product, &wide.t().dot(&weighted), "both");
            assert!((total - weighted.sum()).abs() <= 1e-12 * weighted.mapv(f64::abs).sum().max(1.0));
            let squares = wide.mapv(|value| value * value).sum();
            assert!((sum_of_squares(matrix.view()) - squares).abs() <= 1e-12 * squares);
        }
    }

    #[test]
    fn all_within_rejects_large_and_nan_values() {
        let mut matrix = features(9, 70);
        assert!(all_within(matrix.view(), 1.05) && !all_within(matrix.view(), 0.5));
        for bad in [f32::NAN, f32::INFINITY, -2.0] {
            matrix[[8, 69]] = bad;
            assert!(!all_within(matrix.view(), 1.05), "{bad}");
        }
    }
}
