//! Newton's step through the Hessian by the weights, `H = X^T D X + I / C` `[h, h]`, for at most as many features as
//! samples. The bias, which has no penalty, is eliminated (a Schur complement); the point is the weights.
//!
//! `H` and its factor may be of single precision ([`Real`]), which makes the steps a little off; gradients are exact.

use ndarray::{Array1, ArrayView2};

use super::super::dense::{Factor, Real, Symmetric};
use super::super::products::{times, transposed_times};
use super::system::{Direction, Gradient, Iterate, Step, System};

/// A layer's training samples as they are.
pub(super) struct PrimalSystem<'a, T: Real> {
    features: ArrayView2<'a, f32>,
    precision: std::marker::PhantomData<T>,
}

impl<'a, T: Real> PrimalSystem<'a, T> {
    /// Takes `features` `[n, h]`.
    pub(super) fn new(features: ArrayView2<'a, f32>) -> Self {
        Self { features, precision: std::marker::PhantomData }
    }
}

/// `H` factorised.
pub(super) struct PrimalModel<T: Real> {
    /// The derivative of the bias's gradient by the weights, `X^T d`.
    mixed: Array1<f64>,
    /// `H^-1 X^T d`.
    of_bias: Array1<f64>,
    /// The second derivative by the bias that is left when the weights follow it; above zero.
    complement: f64,
    factor: Factor<T>,
}

impl<T: Real> System for PrimalSystem<'_, T> {
    type Model = PrimalModel<T>;

    const KEEPS_MODELS: bool = true;

    const ROUNDING: f64 = f64::EPSILON;

    fn dimension(&self) -> usize {
        self.features.ncols()
    }

    fn gradient(&self, iterate: &Iterate, residual: &[f64], c: f64) -> Gradient {
        gradient_by_weights(self.features, iterate, residual, c)
    }

    fn model(&self, curvature: Array1<f64>, c: f64, spent: Option<PrimalModel<T>>) -> PrimalModel<T> {
        let factor =
            Symmetric::of_weighted_columns(self.features, &curvature).shifted(1.0 / c, spent.map(|spent| spent.factor));
        let mixed = transposed_times(self.features, &curvature.to_vec());
        let of_bias = factor.solve(&mixed);
        // Above zero in exact arithmetic; the bound keeps a difference of equal numbers from dividing.
        let total = curvature.sum();
        let complement = (total - mixed.dot(&of_bias)).max(T::EPSILON * total);
        PrimalModel { mixed, of_bias, complement, factor }
    }

    fn solve(&self, model: &PrimalModel<T>, gradient: &Gradient, _: f64) -> Direction {
        let mut point = model.factor.solve(&gradient.by_point);
        let bias = (gradient.by_bias - model.mixed.dot(&point)) / model.complement;
        point.scaled_add(-bias, &model.of_bias);
        Direction { point, product: Array1::zeros(0), bias }
    }

    fn pairing(&self, direction: &Direction, gradient: &Gradient) -> f64 {
        pairing_by_weights(direction, gradient)
    }

    fn norm(&self, gradient: &Gradient) -> f64 {
        norm_by_weights(gradient)
    }

    fn step(&self, iterate: &Iterate, direction: Direction) -> Step {
        step_of_weights(self.features, iterate, direction)
    }

    fn point_of(&self, weights: &Array1<f64>) -> Array1<f64> {
        weights.clone()
    }

    fn weights(&self, point: &Array1<f64>) -> Array1<f64> {
        point.clone()
    }

    fn image(&self, weights: &Array1<f64>) -> Array1<f64> {
        times(self.features, weights)
    }
}

/// The gradient where the point is the weights.
pub(super) fn gradient_by_weights(
    features: ArrayView2<'_, f32>,
    iterate: &Iterate,
    residual: &[f64],
    c: f64,
) -> Gradient {
    let by_point = transposed_times(features, residual) + &(&iterate.point / c);
    Gradient { by_point, product: Array1::zeros(0), by_bias: residual.iter().sum() }
}

/// The inner product where the point is the weights.
pub(super) fn pairing_by_weights(direction: &Direction, gradient: &Gradient) -> f64 {
    direction.point.dot(&gradient.by_point) + direction.bias * gradient.by_bias
}

/// The norm where the point is the weights.
pub(super) fn norm_by_weights(gradient: &Gradient) -> f64 {
    (gradient.by_point.dot(&gradient.by_point) + gradient.by_bias * gradient.by_bias).sqrt()
}

/// The step where the point is the weights.
pub(super) fn step_of_weights(features: ArrayView2<'_, f32>, iterate: &Iterate, direction: Direction) -> Step {
    Step {
        weights_by_change: iterate.point.dot(&direction.point),
        squared_norm: direction.point.dot(&direction.point),
        decisions: times(features, &direction.point) + direction.bias,
        direction,
    }
}
