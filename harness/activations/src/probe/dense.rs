//! Dense linear algebra of the probes: symmetric products of features, and their Cholesky factors.
//!
//! The work is faer's, on one thread, so that its order of summation is fixed; features and vectors stay ndarray's.

use faer::Spec;
use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::cholesky::llt;
use faer::linalg::cholesky::llt::factor::LltRegularization;
use faer::linalg::matmul::matmul;
use faer::linalg::matmul::triangular::{self, BlockStructure};
use faer::traits::RealField;
use faer::{Accum, ColMut, ColRef, Mat, MatMut, MatRef, Par};
use ndarray::{Array1, ArrayView2};

/// Samples that are weighted at a time on the way into a symmetric product.
const SAMPLES_AT_A_TIME: usize = 1024;

fn product<T: Real>(matrix: MatRef<'_, T>, vector: &[T]) -> Vec<T> {
    let mut out = vec![T::zero(); matrix.nrows()];
    let into = ColMut::from_slice_mut(&mut out).as_mat_mut();
    matmul(into, Accum::Replace, matrix, ColRef::from_slice(vector).as_mat(), T::one(), Par::Seq);
    out
}

/// A precision of storage and arithmetic; vectors come and go as `f64`.
pub(super) trait Real: RealField + Copy {
    /// The distance from 1 to the next number.
    const EPSILON: f64;

    /// The lower triangle of `X X^T` for `features` `X` `[n, h]`, whose rows lie one after another.
    fn rows_by_rows(features: &[f32], shape: (usize, usize)) -> Mat<Self>;

    /// The nearest value of this precision.
    fn from_f64(value: f64) -> Self;

    /// The same value.
    fn to_f64(self) -> f64;
}

impl Real for f32 {
    const EPSILON: f64 = f32::EPSILON as f64;

    fn rows_by_rows(features: &[f32], (samples, columns): (usize, usize)) -> Mat<Self> {
        let mut product = Mat::zeros(samples, samples);
        add_product(product.as_mut(), MatRef::from_row_major_slice(features, samples, columns));
        product
    }

    fn from_f64(value: f64) -> Self {
        value as f32
    }

    fn to_f64(self) -> f64 {
        f64::from(self)
    }
}

impl Real for f64 {
    const EPSILON: f64 = f64::EPSILON;

    fn rows_by_rows(features: &[f32], (samples, columns): (usize, usize)) -> Mat<Self> {
        let wide: Vec<f64> = features.iter().copied().map(f64::from).collect();
        let mut product = Mat::zeros(samples, samples);
        add_product(product.as_mut(), MatRef::from_row_major_slice(&wide, samples, columns));
        product
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
pub(super) struct Symmetric<T: Real> {
    values: Mat<T>,
}

impl<T: Real> Symmetric<T> {
    /// `X X^T` of `features` `X` `[n, h]`, in the precision of `T` throughout.
    pub(super) fn of_rows(features: ArrayView2<'_, f32>) -> Self {
        let mut values = match features.as_slice() {
            Some(rows) => T::rows_by_rows(rows, features.dim()),
            None => T::rows_by_rows(&features.iter().copied().collect::<Vec<_>>(), features.dim()),
        };
        mirror(&mut values);
        Self { values }
    }

    /// `X^T diag(weights) X` of `features` `X` `[n, h]`, for weights that are not negative, in the precision of `T`.
    pub(super) fn of_weighted_columns(features: ArrayView2<'_, f32>, weights: &Array1<f64>) -> Self {
        let (samples, columns) = features.dim();
        let mut values = Mat::zeros(columns, columns);
        let mut weighted = Mat::zeros(columns, SAMPLES_AT_A_TIME.min(samples));
        for start in (0..samples).step_by(SAMPLES_AT_A_TIME) {
            let end = samples.min(start + SAMPLES_AT_A_TIME);
            for sample in start..end {
                let root = weights[sample].sqrt();
                let into = weighted.col_as_slice_mut(sample - start).iter_mut();
                into.zip(features.row(sample)).for_each(|(out, &value)| *out = T::from_f64(f64::from(value) * root));
            }
            add_product(values.as_mut(), weighted.get(.., ..end - start));
        }
        mirror(&mut values);
        Self { values }
    }

    /// The matrix times `vector` `[m]`, each sum in the precision of `T`.
    pub(super) fn times(&self, vector: &Array1<f64>) -> Array1<f64> {
        let vector: Vec<T> = vector.iter().map(|&value| T::from_f64(value)).collect();
        product(self.values.as_ref(), &vector).into_iter().map(T::to_f64).collect()
    }

    /// The factor of `diag(root) A diag(root) + shift I` for this matrix `A`, whose eigenvalues are none below 0.
    /// It lies in the memory of `spent`, where there is one.
    pub(super) fn scaled_and_shifted(&self, root: &Array1<f64>, shift: f64, spent: Option<Factor<T>>) -> Factor<T> {
        let roots: Vec<T> = root.iter().map(|&value| T::from_f64(value)).collect();
        self.factor(shift, spent, |column, source, target| {
            let of_column = roots[column];
            for ((out, &value), &of_row) in target.iter_mut().zip(source).zip(&roots[column..]) {
                *out = value * (of_row * of_column);
            }
        })
    }

    /// The factor of this matrix with `shift` added to its diagonal, in the memory of `spent`, where there is one.
    pub(super) fn shifted(&self, shift: f64, spent: Option<Factor<T>>) -> Factor<T> {
        self.factor(shift, spent, |_, source, target| target.copy_from_slice(source))
    }

    /// The factor of the matrix that `fill` makes of this one, a column from the diagonal down at a time, with `shift` added
    /// to its diagonal.
    ///
    /// A matrix that rounding has made indefinite is shifted further, by its own rounding and ten times more a time: the
    /// result is then the factor of a nearby matrix, whose solutions are directions of descent still.
    fn factor(&self, shift: f64, spent: Option<Factor<T>>, fill: impl Fn(usize, &[T], &mut [T])) -> Factor<T> {
        let size = self.values.nrows();
        let mut matrix = match spent {
            Some(Factor { lower }) if lower.nrows() == size => lower,
            _ => Mat::zeros(size, size),
        };
        let mut more = 0.0;
        loop {
            let mut largest = 0.0_f64;
            for column in 0..size {
                // The lower triangle is all that is read.
                let source = &self.values.col_as_slice(column)[column..];
                let target = &mut matrix.col_as_slice_mut(column)[column..];
                fill(column, source, target);
                target[0] += T::from_f64(shift + more);
                largest = largest.max(target[0].to_f64());
            }
            // One of values that are not numbers cannot be helped by shifts; its solutions are no numbers either.
            if factorise(&mut matrix) || more >= largest {
                return Factor { lower: matrix };
            }
            more = (10.0 * more).max(T::EPSILON * size as f64 * largest);
        }
    }
}

/// `L` with `L L^T = matrix`, whose lower triangle is read, in its place; whether the pivots were all above zero.
fn factorise<T: Real>(matrix: &mut Mat<T>) -> bool {
    let scratch = llt::factor::cholesky_in_place_scratch::<T>(matrix.nrows(), Par::Seq, Spec::default());
    let mut memory = MemBuffer::new(scratch);
    let stack = MemStack::new(&mut memory);
    llt::factor::cholesky_in_place(matrix.as_mut(), LltRegularization::default(), Par::Seq, stack, Spec::default())
        .is_ok()
}

/// Adds the lower triangle of `factor factor^T` to that of `to`.
fn add_product<T: Real>(to: MatMut<'_, T>, factor: MatRef<'_, T>) {
    let (all, lower) = (BlockStructure::Rectangular, BlockStructure::TriangularLower);
    triangular::matmul(to, lower, Accum::Add, factor, all, factor.transpose(), all, T::one(), Par::Seq);
}

/// Columns and rows that are exchanged at a time by [`mirror`]: their lines of both triangles fit the first cache.
const MIRRORED: usize = 32;

/// Makes the upper triangle that of the transpose.
fn mirror<T: Real>(matrix: &mut Mat<T>) {
    let size = matrix.ncols();
    for first_column in (0..size).step_by(MIRRORED) {
        for first_row in (0..=first_column).step_by(MIRRORED) {
            for column in first_column..size.min(first_column + MIRRORED) {
                for row in first_row..column.min(first_row + MIRRORED) {
                    matrix[(row, column)] = matrix[(column, row)];
                }
            }
        }
    }
}

/// A symmetric positive definite matrix as `L L^T` (Golub and Van Loan, "Matrix Computations", section 4.2).
#[derive(Clone, Debug)]
pub(super) struct Factor<T: Real> {
    /// `L` `[m, m]`; what lies above the diagonal has no meaning.
    lower: Mat<T>,
}

impl<T: Real> Factor<T> {
    /// `x` with `A x = right`.
    pub(super) fn solve(&self, right: &Array1<f64>) -> Array1<f64> {
        let mut x: Vec<T> = right.iter().map(|&value| T::from_f64(value)).collect();
        let into = ColMut::from_slice_mut(&mut x).as_mat_mut();
        // It needs no memory of its own.
        llt::solve::solve_in_place(self.lower.as_ref(), into, Par::Seq, MemStack::new(&mut []));
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
    fn symmetric_products_are_what_they_say() {
        for (samples, columns) in [(1, 3), (40, 7), (9, 70), (SAMPLES_AT_A_TIME + 5, 6)] {
            let matrix = features(samples, columns);
            let weights = vector(samples).mapv(|value| value.abs() / 12.0);
            let wide = matrix.mapv(f64::from);
            let weighted = &wide * &weights.view().insert_axis(Axis(1));
            let by_columns = wide.t().dot(&weighted).dot(&vector(columns));
            let exact = Symmetric::<f64>::of_weighted_columns(matrix.view(), &weights);
            let rough = Symmetric::<f32>::of_weighted_columns(matrix.view(), &weights);
            assert_near(&exact.times(&vector(columns)), &by_columns, 1e-12, "columns");
            assert_near(&rough.times(&vector(columns)), &by_columns, 1e-5, "columns in single precision");
            if samples <= 64 {
                let by_rows = wide.dot(&wide.t()).dot(&vector(samples));
                assert_near(&Symmetric::<f64>::of_rows(matrix.view()).times(&vector(samples)), &by_rows, 1e-12, "rows");
            }
        }
    }

    #[test]
    fn solutions_solve() {
        for size in [1, 2, 31, 96, 200] {
            let matrix = Symmetric::<f64>::of_rows(features(size, size / 2 + 1).view());
            let root = vector(size).mapv(|value| 0.1 + value.abs());
            let expected = vector(size);
            let right = matrix.times(&(&expected * &root)) * &root + &expected * 0.5;
            assert_near(&matrix.scaled_and_shifted(&root, 0.5, None).solve(&right), &expected, 1e-9, "scaled");
            let right = matrix.times(&expected) + &expected * 0.5;
            assert_near(&matrix.shifted(0.5, None).solve(&right), &expected, 1e-9, "shifted");
        }
    }

    #[test]
    fn a_matrix_that_rounding_made_singular_still_gives_numbers() {
        let (large, ones) = (features(100, 2) * 1e8, Array1::ones(100));
        let exact = Symmetric::<f64>::of_rows(large.view()).shifted(1.0, None).solve(&ones);
        let rough = Symmetric::<f32>::of_rows(large.view()).shifted(1.0, None).solve(&ones);
        assert!(exact.iter().chain(&rough).all(|x| x.is_finite()));
    }
}
