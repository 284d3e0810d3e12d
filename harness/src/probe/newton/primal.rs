//! The Newton step through the Hessian by the weights, `H = X^T D X + I / C` `[h, h]`, for at most as many features as
//! samples. The bias, which has no penalty, is eliminated (a Schur complement); the point is the weights.

use ndarray::linalg::general_mat_mul;
use ndarray::{Array1, Array2, ArrayView2, Axis, s};

use super::cholesky::Cholesky;
use super::system::{Gradient, Iterate, Model, Step, System};

/// Samples whose weighted features are held at a time.
const BLOCK: usize = 256;

/// A layer's training samples as they are.
pub(super) struct PrimalSystem<'a> {
    features: ArrayView2<'a, f64>,
}

impl<'a> PrimalSystem<'a> {
    /// Takes `features` `[n, h]`.
    pub(super) fn new(features: ArrayView2<'a, f64>) -> Self {
        Self { features }
    }

    /// `X^T D X`.
    fn weighted_products(&self, curvature: &Array1<f64>) -> Array2<f64> {
        let columns = self.features.ncols();
        let mut products = Array2::zeros((columns, columns));
        for (rows, curvature) in
            self.features.axis_chunks_iter(Axis(0), BLOCK).zip(curvature.axis_chunks_iter(Axis(0), BLOCK))
        {
            let weighted = &rows * &curvature.insert_axis(Axis(1));
            // Half of the matrix, in two pieces: only the lower triangle is read.
            let half = columns / 2;
            let (mut upper, mut lower) = products.view_mut().split_at(Axis(0), half);
            let left = weighted.slice(s![.., ..half]);
            general_mat_mul(1.0, &rows.slice(s![.., ..half]).t(), &left, 1.0, &mut upper.slice_mut(s![.., ..half]));
            general_mat_mul(1.0, &rows.slice(s![.., half..]).t(), &weighted, 1.0, &mut lower);
        }
        products
    }
}

impl System for PrimalSystem<'_> {
    fn dimension(&self) -> usize {
        self.features.ncols()
    }

    fn gradient(&self, iterate: &Iterate, residual: &Array1<f64>, c: f64) -> Gradient {
        gradient_by_weights(self.features, iterate, residual, c)
    }

    fn model(&self, curvature: Array1<f64>, c: f64) -> Model {
        let mut hessian = self.weighted_products(&curvature);
        hessian.diag_mut().mapv_inplace(|value| value + 1.0 / c);
        let factor = Cholesky::new(hessian, 1.0 / c);
        let mixed = self.features.t().dot(&curvature);
        let of_bias = factor.solve(&mixed);
        Model { curvature, c, mixed, of_bias, factor: Some(factor) }
    }

    fn step(&self, model: &Model, iterate: &Iterate, gradient: &Gradient, _: f64) -> Step {
        let of_gradient = match &model.factor {
            Some(factor) => factor.solve(&gradient.by_point),
            None => gradient.by_point.clone(),
        };
        // Above zero in exact arithmetic; the bound keeps a difference of equal numbers from dividing.
        let total = model.curvature.sum();
        let complement = (total - model.mixed.dot(&model.of_bias)).max(f64::EPSILON * total);
        let bias = (model.mixed.dot(&of_gradient) - gradient.by_bias) / complement;
        let point = -(of_gradient + &model.of_bias * bias);
        step_of_weights(self.features, iterate, point, bias)
    }

    fn point_of(&self, weights: &Array1<f64>) -> Array1<f64> {
        weights.clone()
    }

    fn weights(&self, point: &Array1<f64>) -> Array1<f64> {
        point.clone()
    }

    fn image(&self, point: &Array1<f64>) -> (Array1<f64>, f64) {
        (self.features.dot(point), point.dot(point))
    }
}

/// The gradient where the point is the weights.
pub(super) fn gradient_by_weights(
    features: ArrayView2<'_, f64>,
    iterate: &Iterate,
    residual: &Array1<f64>,
    c: f64,
) -> Gradient {
    let by_point = features.t().dot(residual) + &(&iterate.point / c);
    let by_bias = residual.sum();
    let norm = (by_point.dot(&by_point) + by_bias * by_bias).sqrt();
    Gradient { by_point, product: Array1::zeros(0), by_bias, norm }
}

/// The step where the point is the weights.
pub(super) fn step_of_weights(features: ArrayView2<'_, f64>, iterate: &Iterate, point: Array1<f64>, bias: f64) -> Step {
    Step {
        weights_by_change: iterate.point.dot(&point),
        squared_norm: point.dot(&point),
        decisions: features.dot(&point) + bias,
        point,
        bias,
    }
}
