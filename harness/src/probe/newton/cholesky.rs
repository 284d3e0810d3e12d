//! The Cholesky factorisation `A = L L^T` of a symmetric positive definite matrix, and solutions with it.
//!
//! Block column by block column, left-looking: a block column is first corrected by one product with everything to its
//! left, so that nearly all of the work is ndarray's matrix product (`matrixmultiply`, which picks the widest vector
//! instructions at run time) with a long inner dimension. Golub and Van Loan, "Matrix Computations", section 4.2. Own
//! code because the workspace has that product already, while a library of dense factorisations would be its heaviest
//! dependency for these few lines.

use ndarray::linalg::general_mat_mul;
use ndarray::{Array1, Array2, ArrayViewMut2, Axis, s};

/// Columns of a block: wide enough for the product to run at speed, narrow enough for the scalar work inside the
/// diagonal blocks (`n BLOCK^2`) to vanish beside the products (`n^3 / 3`).
const BLOCK: usize = 32;

/// The lower triangle `L` of a factorised matrix, row by row in memory.
#[derive(Debug)]
pub(super) struct Cholesky {
    /// `[m, m]`; what lies above the diagonal has no meaning.
    lower: Array2<f64>,
}

impl Cholesky {
    /// Factorises `matrix` `[m, m]`, of which the lower triangle is read.
    ///
    /// Pivots below `smallest_pivot`, a lower bound of the eigenvalues, or below the rounding of the largest entry are
    /// raised to it: the result is then the factor of a nearby matrix, whose solutions are directions of descent still.
    pub(super) fn new(mut matrix: Array2<f64>, smallest_pivot: f64) -> Self {
        let size = matrix.nrows();
        let largest = matrix.diag().iter().fold(0.0, |largest: f64, value| largest.max(*value));
        let smallest_pivot = smallest_pivot.max(f64::EPSILON * size as f64 * largest);
        for start in (0..size).step_by(BLOCK) {
            let width = BLOCK.min(size - start);
            let (left, mut right) = matrix.view_mut().split_at(Axis(1), start);
            let left = left.slice(s![start.., ..]);
            let mut column = right.slice_mut(s![start.., ..width]);
            if start > 0 {
                general_mat_mul(-1.0, &left, &left.slice(s![..width, ..]).t(), 1.0, &mut column);
            }
            let (mut diagonal, mut below) = column.split_at(Axis(0), width);
            factorise_block(&mut diagonal, smallest_pivot);
            if !below.is_empty() {
                // A product with the small inverse instead of a substitution, which has no long inner dimension.
                let solved = below.dot(&inverse_of_block(&diagonal).t());
                below.assign(&solved);
            }
        }
        Self { lower: matrix }
    }

    /// `x` with `A x = right`.
    pub(super) fn solve(&self, right: &Array1<f64>) -> Array1<f64> {
        let mut x = right.clone();
        for (row, line) in self.lower.outer_iter().enumerate() {
            let (before, mut rest) = x.view_mut().split_at(Axis(0), row);
            rest[0] = (rest[0] - line.slice(s![..row]).dot(&before)) / line[row];
        }
        for (row, line) in self.lower.outer_iter().enumerate().rev() {
            let (mut before, mut rest) = x.view_mut().split_at(Axis(0), row);
            rest[0] /= line[row];
            before.scaled_add(-rest[0], &line.slice(s![..row]));
        }
        x
    }
}

/// The factor of one diagonal block, in place: a column is finished and its products are taken from all to its right.
fn factorise_block(block: &mut ArrayViewMut2<'_, f64>, smallest_pivot: f64) {
    let size = block.nrows();
    let mut finished = [0.0; BLOCK];
    for column in 0..size {
        let pivot = block[[column, column]].max(smallest_pivot).sqrt();
        block[[column, column]] = pivot;
        for row in column + 1..size {
            finished[row] = block[[row, column]] / pivot;
            block[[row, column]] = finished[row];
        }
        for row in column + 1..size {
            let mut line = block.row_mut(row);
            let factor = finished[row];
            let products = line.iter_mut().take(row + 1).skip(column + 1).zip(&finished[column + 1..=row]);
            products.for_each(|(value, other)| *value -= factor * other);
        }
    }
}

/// The inverse of a lower triangle; zeros above the diagonal.
fn inverse_of_block(lower: &ArrayViewMut2<'_, f64>) -> Array2<f64> {
    let size = lower.nrows();
    let mut inverse = Array2::zeros((size, size));
    for row in 0..size {
        let (above, mut rest) = inverse.view_mut().split_at(Axis(0), row);
        let mut line = rest.row_mut(0);
        for (column, above) in above.outer_iter().enumerate() {
            line.scaled_add(-lower[[row, column]], &above);
        }
        line[row] = 1.0;
        line /= lower[[row, row]];
    }
    inverse
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `G G^T + shift` for a fixed `G` `[size, rank]`.
    fn positive(size: usize, rank: usize, shift: f64) -> Array2<f64> {
        let g = Array2::from_shape_fn((size, rank), |(i, j)| (((i + 3) * (j + 7) * 31) % 97) as f64 / 48.0 - 1.0);
        g.dot(&g.t()) + Array2::from_diag_elem(size, shift)
    }

    #[test]
    fn solutions_solve() {
        for size in [1, 2, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK, 3 * BLOCK + 5] {
            let matrix = positive(size, size / 2 + 1, 0.5);
            let expected = Array1::from_shape_fn(size, |i| (i % 7) as f64 - 3.0);
            let actual = Cholesky::new(matrix.clone(), 0.5).solve(&matrix.dot(&expected));
            let difference = (actual - expected).mapv(f64::abs).sum();
            assert!(difference <= 1e-9, "{size}: {difference:e}");
        }
    }

    #[test]
    fn only_the_lower_triangle_is_read() {
        let matrix = positive(70, 40, 1.0);
        let mut lower = matrix.clone();
        for ((row, column), value) in lower.indexed_iter_mut() {
            if column > row {
                *value = 0.0;
            }
        }
        let right = Array1::from_elem(70, 1.0);
        assert_eq!(Cholesky::new(lower, 1.0).solve(&right), Cholesky::new(matrix, 1.0).solve(&right));
    }

    #[test]
    fn a_matrix_that_rounding_made_singular_still_gives_numbers() {
        let factor = Cholesky::new(positive(100, 2, 0.0) * 1e16, 1.0);
        assert!(factor.solve(&Array1::ones(100)).iter().all(|x| x.is_finite()));
    }
}
