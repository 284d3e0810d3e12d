//! Dense linear algebra of the probes: Gram matrices of features and their Cholesky factors.
//!
//! faer computes on one thread, so that the order of summation is fixed. Features and vectors are arrays of ndarray.

use faer::Spec;
use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::cholesky::llt;
use faer::linalg::cholesky::llt::factor::LltRegularization;
use faer::linalg::matmul::matmul;
use faer::linalg::matmul::triangular::{self, BlockStructure};
use faer::traits::RealField;
use faer::{Accum, ColMut, ColRef, Mat, MatMut, MatRef, Par};
use ndarray::{Array1, ArrayView2};

/// Samples that are weighted and added to a Gram matrix at a time.
const SAMPLES_PER_BLOCK: usize = 1024;

fn gemv<T: FactorFloat>(matrix: MatRef<'_, T>, vector: &[T]) -> Vec<T> {
    let mut out = vec![T::zero(); matrix.nrows()];
    let target = ColMut::from_slice_mut(&mut out).as_mat_mut();
    matmul(target, Accum::Replace, matrix, ColRef::from_slice(vector).as_mat(), T::one(), Par::Seq);
    out
}

/// The precision of storage and arithmetic of a matrix. Vectors are converted from and to `f64`.
pub(super) trait FactorFloat: RealField + Copy {
    /// The distance from 1 to the next number.
    const EPSILON: f64;

    /// The lower triangle of `X X^T` for row-major `features` `X` `[n, h]`.
    fn gram_of_rows(features: &[f32], shape: (usize, usize)) -> Mat<Self>;

    /// Rounds to the nearest value of this precision.
    fn from_f64(value: f64) -> Self;

    /// Converts exactly.
    fn to_f64(self) -> f64;
}

impl FactorFloat for f32 {
    const EPSILON: f64 = f32::EPSILON as f64;

    fn gram_of_rows(features: &[f32], (samples, columns): (usize, usize)) -> Mat<Self> {
        let mut gram = Mat::zeros(samples, samples);
        add_gram(gram.as_mut(), MatRef::from_row_major_slice(features, samples, columns));
        gram
    }

    fn from_f64(value: f64) -> Self {
        value as f32
    }

    fn to_f64(self) -> f64 {
        f64::from(self)
    }
}

impl FactorFloat for f64 {
    const EPSILON: f64 = f64::EPSILON;

    fn gram_of_rows(features: &[f32], (samples, columns): (usize, usize)) -> Mat<Self> {
        let wide: Vec<f64> = features.iter().copied().map(f64::from).collect();
        let mut gram = Mat::zeros(samples, samples);
        add_gram(gram.as_mut(), MatRef::from_row_major_slice(&wide, samples, columns));
        gram
    }

    fn from_f64(value: f64) -> Self {
        value
    }

    fn to_f64(self) -> f64 {
        self
    }
}

/// A symmetric matrix `[m, m]`.
#[derive(Clone, Debug)]
pub(super) struct SymmetricMatrix<T: FactorFloat> {
    values: Mat<T>,
}

impl<T: FactorFloat> SymmetricMatrix<T> {
    /// `X X^T` for `features` `X` `[n, h]`, computed in the precision of `T`.
    pub(super) fn gram_of_rows(features: ArrayView2<'_, f32>) -> Self {
        let mut values = match features.as_slice() {
            Some(rows) => T::gram_of_rows(rows, features.dim()),
            None => T::gram_of_rows(&features.iter().copied().collect::<Vec<_>>(), features.dim()),
        };
        mirror(&mut values);
        Self { values }
    }

    /// `X^T diag(weights) X` for `features` `X` `[n, h]` and weights of at least 0, computed in the precision of `T`.
    pub(super) fn weighted_gram_of_columns(features: ArrayView2<'_, f32>, weights: &Array1<f64>) -> Self {
        let (samples, columns) = features.dim();
        let mut values = Mat::zeros(columns, columns);
        let mut weighted = Mat::zeros(columns, SAMPLES_PER_BLOCK.min(samples));
        for start in (0..samples).step_by(SAMPLES_PER_BLOCK) {
            let end = samples.min(start + SAMPLES_PER_BLOCK);
            for sample in start..end {
                let root = weights[sample].sqrt();
                let column = weighted.col_as_slice_mut(sample - start).iter_mut();
                column.zip(features.row(sample)).for_each(|(out, &value)| *out = T::from_f64(f64::from(value) * root));
            }
            add_gram(values.as_mut(), weighted.get(.., ..end - start));
        }
        mirror(&mut values);
        Self { values }
    }

    /// The matrix times `vector` `[m]`, computed in the precision of `T`.
    pub(super) fn multiply(&self, vector: &Array1<f64>) -> Array1<f64> {
        let vector: Vec<T> = vector.iter().map(|&value| T::from_f64(value)).collect();
        gemv(self.values.as_ref(), &vector).into_iter().map(T::to_f64).collect()
    }

    /// The Cholesky factor of `diag(root) A diag(root) + shift I`, where this matrix `A` is positive semidefinite.
    /// Reuses the memory of `spent`, if given.
    pub(super) fn scaled_and_shifted(
        &self,
        root: &Array1<f64>,
        shift: f64,
        spent: Option<CholeskyFactor<T>>,
    ) -> CholeskyFactor<T> {
        let roots: Vec<T> = root.iter().map(|&value| T::from_f64(value)).collect();
        self.factor(shift, spent, |column, source, target| {
            let column_root = roots[column];
            for ((out, &value), &row_root) in target.iter_mut().zip(source).zip(&roots[column..]) {
                *out = value * (row_root * column_root);
            }
        })
    }

    /// The Cholesky factor of `A + shift I`. Reuses the memory of `spent`, if given.
    pub(super) fn shifted(&self, shift: f64, spent: Option<CholeskyFactor<T>>) -> CholeskyFactor<T> {
        self.factor(shift, spent, |_, source, target| target.copy_from_slice(source))
    }

    /// The Cholesky factor of a transformed matrix plus `shift I`. `fill` transforms one column, from the diagonal
    /// down.
    ///
    /// If rounding has made the matrix indefinite, the shift is increased: first by the rounding error of the matrix,
    /// then tenfold each time. The result is the factor of a nearby matrix, whose solutions are still descent
    /// directions.
    fn factor(
        &self,
        shift: f64,
        spent: Option<CholeskyFactor<T>>,
        fill: impl Fn(usize, &[T], &mut [T]),
    ) -> CholeskyFactor<T> {
        let size = self.values.nrows();
        let mut matrix = match spent {
            Some(CholeskyFactor { lower }) if lower.nrows() == size => lower,
            _ => Mat::zeros(size, size),
        };
        let mut more = 0.0;
        loop {
            let mut largest = 0.0_f64;
            for column in 0..size {
                // Only the lower triangle is read.
                let source = &self.values.col_as_slice(column)[column..];
                let target = &mut matrix.col_as_slice_mut(column)[column..];
                fill(column, source, target);
                target[0] += T::from_f64(shift + more);
                largest = largest.max(target[0].to_f64());
            }
            // Shifts cannot repair NaN values; the solutions are NaN too.
            if factorize(&mut matrix) || more >= largest {
                return CholeskyFactor { lower: matrix };
            }
            more = (10.0 * more).max(T::EPSILON * size as f64 * largest);
        }
    }
}

/// Replaces the lower triangle of `matrix` by its Cholesky factor. Returns whether all pivots were positive.
fn factorize<T: FactorFloat>(matrix: &mut Mat<T>) -> bool {
    let scratch = llt::factor::cholesky_in_place_scratch::<T>(matrix.nrows(), Par::Seq, Spec::default());
    let mut memory = MemBuffer::new(scratch);
    let stack = MemStack::new(&mut memory);
    llt::factor::cholesky_in_place(matrix.as_mut(), LltRegularization::default(), Par::Seq, stack, Spec::default())
        .is_ok()
}

/// Adds the lower triangle of `factor factor^T` to that of `target` (SYRK).
fn add_gram<T: FactorFloat>(target: MatMut<'_, T>, factor: MatRef<'_, T>) {
    let (all, lower) = (BlockStructure::Rectangular, BlockStructure::TriangularLower);
    triangular::matmul(target, lower, Accum::Add, factor, all, factor.transpose(), all, T::one(), Par::Seq);
}

/// The block size of [`mirror`]: blocks of both triangles fit the L1 cache.
const MIRROR_BLOCK: usize = 32;

/// Copies the lower triangle to the upper one.
fn mirror<T: FactorFloat>(matrix: &mut Mat<T>) {
    let size = matrix.ncols();
    for first_column in (0..size).step_by(MIRROR_BLOCK) {
        for first_row in (0..=first_column).step_by(MIRROR_BLOCK) {
            for column in first_column..size.min(first_column + MIRROR_BLOCK) {
                for row in first_row..column.min(first_row + MIRROR_BLOCK) {
                    matrix[(row, column)] = matrix[(column, row)];
                }
            }
        }
    }
}

/// A symmetric positive definite matrix as `L L^T` (Golub and Van Loan, "Matrix Computations", section 4.2).
#[derive(Clone, Debug)]
pub(super) struct CholeskyFactor<T: FactorFloat> {
    /// `L` `[m, m]`; elements above the diagonal are undefined.
    lower: Mat<T>,
}

impl<T: FactorFloat> CholeskyFactor<T> {
    /// Solves `A x = right` for `x`.
    pub(super) fn solve(&self, right: &Array1<f64>) -> Array1<f64> {
        let mut x: Vec<T> = right.iter().map(|&value| T::from_f64(value)).collect();
        let solution = ColMut::from_slice_mut(&mut x).as_mat_mut();
        // The sequential solver needs no scratch memory.
        llt::solve::solve_in_place(self.lower.as_ref(), solution, Par::Seq, MemStack::new(&mut []));
        x.into_iter().map(T::to_f64).collect()
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, Axis};

    use super::*;

    fn features(samples: usize, columns: usize) -> Array2<f32> {
        Array2::from_shape_fn((samples, columns), |(i, j)| (((i + 3) * (j + 7) * 31) % 97) as f32 / 48.0 - 1.0)
    }

    fn vector(size: usize) -> Array1<f64> {
        Array1::from_shape_fn(size, |i| (i % 7) as f64 - 3.0)
    }

    fn assert_near(actual: &Array1<f64>, expected: &Array1<f64>, tolerance: f64, what: &str) {
        assert_eq!(actual.len(), expected.len(), "{what}");
        let largest = expected.iter().fold(1.0, |largest: f64, value| largest.max(value.abs()));
        for (actual, expected) in actual.iter().zip(expected) {
            assert!((actual - expected).abs() <= tolerance * largest, "{what}: {actual} {expected}");
        }
    }

    #[test]
    fn gram_matrices_match_ndarray() {
        for (samples, columns) in [(1, 3), (40, 7), (9, 70), (SAMPLES_PER_BLOCK + 5, 6)] {
            let matrix = features(samples, columns);
            let weights = vector(samples).mapv(|value| value.abs() / 12.0);
            let wide = matrix.mapv(f64::from);
            let weighted = &wide * &weights.view().insert_axis(Axis(1));
            let by_columns = wide.t().dot(&weighted).dot(&vector(columns));
            let exact = SymmetricMatrix::<f64>::weighted_gram_of_columns(matrix.view(), &weights);
            let rough = SymmetricMatrix::<f32>::weighted_gram_of_columns(matrix.view(), &weights);
            assert_near(&exact.multiply(&vector(columns)), &by_columns, 1e-12, "columns");
            assert_near(&rough.multiply(&vector(columns)), &by_columns, 1e-5, "columns in single precision");
            if samples <= 64 {
                let by_rows = wide.dot(&wide.t()).dot(&vector(samples));
                assert_near(
                    &SymmetricMatrix::<f64>::gram_of_rows(matrix.view()).multiply(&vector(samples)),
                    &by_rows,
                    1e-12,
                    "rows",
                );
            }
        }
    }

    #[test]
    fn solutions_satisfy_linear_system() {
        for size in [1, 2, 31, 96, 200] {
            let matrix = SymmetricMatrix::<f64>::gram_of_rows(features(size, size / 2 + 1).view());
            let root = vector(size).mapv(|value| 0.1 + value.abs());
            let expected = vector(size);
            let right = matrix.multiply(&(&expected * &root)) * &root + &expected * 0.5;
            assert_near(&matrix.scaled_and_shifted(&root, 0.5, None).solve(&right), &expected, 1e-9, "scaled");
            let right = matrix.multiply(&expected) + &expected * 0.5;
            assert_near(&matrix.shifted(0.5, None).solve(&right), &expected, 1e-9, "shifted");
        }
    }

    #[test]
    fn numerically_singular_matrix_gives_finite_solution() {
        let (large, ones) = (features(100, 2) * 1e8, Array1::ones(100));
        let exact = SymmetricMatrix::<f64>::gram_of_rows(large.view()).shifted(1.0, None).solve(&ones);
        let rough = SymmetricMatrix::<f32>::gram_of_rows(large.view()).shifted(1.0, None).solve(&ones);
        assert!(exact.iter().chain(&rough).all(|x| x.is_finite()));
    }
}
