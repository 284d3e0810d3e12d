//! The Newton step through the samples' inner products, for fewer samples than features.
//!
//! The minimum lies in the span of the samples (the representer theorem: Kimeldorf and Wahba, 1971), so `w = X^T u` with
//! one coefficient a sample, and features come in through `K = X X^T` `[n, n]` alone, once for all `C`. With the losses'
//! curvatures `D = diag(d)`, residuals `r` and `v = r + u / C`, the step of `u` and `b` solves
//!
//! ```text
//! (I + C D K) du = -C (v + d db),     sum(u + du) = 0,
//! ```
//!
//! where the second line is the stationarity of the bias. With `S = D^(1/2)` all solutions go through the symmetric
//! `B = I + C S K S`, whose eigenvalues are at least 1: `(I + C D K)^-1 v = v - C S B^-1 S K v` and
//! `(I + C D K)^-1 d = S B^-1 S 1` (Rasmussen and Williams, "Gaussian Processes for Machine Learning", section 3.4).

use ndarray::linalg::general_mat_mul;
use ndarray::{Array1, Array2, ArrayView2, Zip, s};

use super::cholesky::Cholesky;
use super::system::{Gradient, Iterate, Model, Step, System};

/// Rows of a block of `K`; blocks above the diagonal are mirrored and not computed.
const BLOCK: usize = 128;

/// The ridge of a projection on the span of the samples, beside the mean of `K`'s eigenvalues.
const PROJECTION_RIDGE: f64 = 1e-11;

/// A layer's training samples by their inner products.
pub(super) struct DualSystem<'a> {
    features: ArrayView2<'a, f64>,
    /// `K` `[n, n]`, symmetric to the last bit.
    inner_products: Array2<f64>,
}

impl<'a> DualSystem<'a> {
    /// Computes `K` of `features` `[n, h]`.
    pub(super) fn new(features: ArrayView2<'a, f64>) -> Self {
        let samples = features.nrows();
        let mut inner_products = Array2::zeros((samples, samples));
        for start in (0..samples).step_by(BLOCK) {
            let end = samples.min(start + BLOCK);
            let rows = features.slice(s![start..end, ..]);
            let others = features.slice(s![..end, ..]);
            general_mat_mul(1.0, &rows, &others.t(), 0.0, &mut inner_products.slice_mut(s![start..end, ..end]));
        }
        for row in 0..samples {
            for column in 0..row {
                inner_products[[column, row]] = inner_products[[row, column]];
            }
        }
        Self { features, inner_products }
    }
}

impl System for DualSystem<'_> {
    fn dimension(&self) -> usize {
        self.features.nrows()
    }

    fn gradient(&self, iterate: &Iterate, residual: &Array1<f64>, c: f64) -> Gradient {
        let by_point = residual + &(&iterate.point / c);
        // Of v itself and not of its parts, whose rounding would outlast the gradient.
        let product = self.inner_products.dot(&by_point);
        let by_bias = residual.sum();
        let norm = (by_point.dot(&product).max(0.0) + by_bias * by_bias).sqrt();
        Gradient { by_point, product, by_bias, norm }
    }

    fn model(&self, curvature: Array1<f64>, c: f64) -> Model {
        let root = curvature.mapv(f64::sqrt);
        let samples = self.dimension();
        let mut matrix = Array2::zeros((samples, samples));
        for (row, (mut line, products)) in matrix.outer_iter_mut().zip(self.inner_products.outer_iter()).enumerate() {
            // The lower triangle is all that is read.
            let factor = c * root[row];
            Zip::from(line.slice_mut(s![..=row]))
                .and(products.slice(s![..=row]))
                .and(root.slice(s![..=row]))
                .for_each(|value, product, other| *value = factor * product * other);
            line[row] += 1.0;
        }
        let factor = Cholesky::new(matrix, 1.0);
        let of_bias = factor.solve(&root) * &root;
        Model { curvature, c, mixed: root, of_bias, factor: Some(factor) }
    }

    fn step(&self, model: &Model, iterate: &Iterate, gradient: &Gradient, _: f64) -> Step {
        let (c, root) = (model.c, &model.mixed);
        let mut of_gradient = gradient.by_point.clone();
        if let Some(factor) = &model.factor {
            of_gradient.scaled_add(-c, &(factor.solve(&(root * &gradient.product)) * root));
        }
        let bias = (iterate.point.sum() / c - of_gradient.sum()) / model.of_bias.sum();
        of_gradient.scaled_add(bias, &model.of_bias);
        let point = of_gradient * -c;
        let image = self.inner_products.dot(&point);
        Step {
            weights_by_change: iterate.point.dot(&image),
            squared_norm: point.dot(&image).max(0.0),
            decisions: image + bias,
            point,
            bias,
        }
    }

    fn point_of(&self, weights: &Array1<f64>) -> Array1<f64> {
        let samples = self.dimension();
        let ridge = (PROJECTION_RIDGE * self.inner_products.diag().sum() / samples as f64).max(f64::MIN_POSITIVE);
        let matrix = &self.inner_products + &Array2::from_diag_elem(samples, ridge);
        Cholesky::new(matrix, ridge).solve(&self.features.dot(weights))
    }

    fn weights(&self, point: &Array1<f64>) -> Array1<f64> {
        self.features.t().dot(point)
    }

    fn image(&self, point: &Array1<f64>) -> (Array1<f64>, f64) {
        let image = self.inner_products.dot(point);
        let squared_norm = point.dot(&image).max(0.0);
        (image, squared_norm)
    }
}
