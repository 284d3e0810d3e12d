//! The primal form: the Newton step by the Hessian with respect to the weights, `H = X^T D X + I / C` `[h, h]`, for
//! at most as many features as samples. The bias, which has no penalty, is eliminated (Schur complement). The point
//! is the weights.
//!
//! `H` and its factor can have single precision ([`FactorFloat`]). The steps are then slightly inexact; gradients are
//! exact.

use ndarray::{Array1, ArrayView2};

use super::super::dense::{CholeskyFactor, FactorFloat, SymmetricMatrix};
use super::super::gemv::{gemv, gemv_transposed};
use super::system::{Iterate, NewtonStep, NewtonSystem, ObjectiveGradient, SearchDirection};

/// The primal form of one layer's training samples.
pub(super) struct PrimalSystem<'a, T: FactorFloat> {
    features: ArrayView2<'a, f32>,
    precision: std::marker::PhantomData<T>,
}

impl<'a, T: FactorFloat> PrimalSystem<'a, T> {
    /// Takes `features` `[n, h]`.
    pub(super) fn new(features: ArrayView2<'a, f32>) -> Self {
        Self { features, precision: std::marker::PhantomData }
    }
}

/// The factorized `H`.
pub(super) struct PrimalModel<T: FactorFloat> {
    /// The mixed second derivative with respect to weights and bias, `X^T d`.
    mixed: Array1<f64>,
    /// `H^-1 X^T d`.
    bias_response: Array1<f64>,
    /// The Schur complement: the second derivative with respect to the bias after eliminating the weights; positive.
    complement: f64,
    factor: CholeskyFactor<T>,
}

impl<T: FactorFloat> NewtonSystem for PrimalSystem<'_, T> {
    type Model = PrimalModel<T>;

    const KEEPS_MODELS: bool = true;

    const ROUNDING: f64 = f64::EPSILON;

    fn dimension(&self) -> usize {
        self.features.ncols()
    }

    fn gradient(&self, iterate: &Iterate, residual: &[f64], c: f64) -> ObjectiveGradient {
        gradient_by_weights(self.features, iterate, residual, c)
    }

    fn model(&self, curvature: Array1<f64>, c: f64, spent: Option<PrimalModel<T>>) -> PrimalModel<T> {
        let factor = SymmetricMatrix::weighted_gram_of_columns(self.features, &curvature)
            .shifted(1.0 / c, spent.map(|spent| spent.factor));
        let mixed = gemv_transposed(self.features, &curvature.to_vec());
        let bias_response = factor.solve(&mixed);
        // Positive in exact arithmetic. The bound prevents division by a rounding error.
        let total = curvature.sum();
        let complement = (total - mixed.dot(&bias_response)).max(T::EPSILON * total);
        PrimalModel { mixed, bias_response, complement, factor }
    }

    fn solve(&self, model: &PrimalModel<T>, gradient: &ObjectiveGradient, _: f64) -> SearchDirection {
        let mut point = model.factor.solve(&gradient.by_point);
        let bias = (gradient.by_bias - model.mixed.dot(&point)) / model.complement;
        point.scaled_add(-bias, &model.bias_response);
        SearchDirection { point, gram_image: Array1::zeros(0), bias }
    }

    fn pairing(&self, direction: &SearchDirection, gradient: &ObjectiveGradient) -> f64 {
        pairing_by_weights(direction, gradient)
    }

    fn norm(&self, gradient: &ObjectiveGradient) -> f64 {
        norm_by_weights(gradient)
    }

    fn step(&self, iterate: &Iterate, direction: SearchDirection) -> NewtonStep {
        step_of_weights(self.features, iterate, direction)
    }

    fn point_from_weights(&self, weights: &Array1<f64>) -> Array1<f64> {
        weights.clone()
    }

    fn weights(&self, point: &Array1<f64>) -> Array1<f64> {
        point.clone()
    }

    fn image(&self, weights: &Array1<f64>) -> Array1<f64> {
        gemv(self.features, weights)
    }
}

/// The gradient of a form whose point is the weights.
pub(super) fn gradient_by_weights(
    features: ArrayView2<'_, f32>,
    iterate: &Iterate,
    residual: &[f64],
    c: f64,
) -> ObjectiveGradient {
    let by_point = gemv_transposed(features, residual) + &(&iterate.point / c);
    ObjectiveGradient { by_point, gram_image: Array1::zeros(0), by_bias: residual.iter().sum() }
}

/// The inner product in a form whose point is the weights.
pub(super) fn pairing_by_weights(direction: &SearchDirection, gradient: &ObjectiveGradient) -> f64 {
    direction.point.dot(&gradient.by_point) + direction.bias * gradient.by_bias
}

/// The norm in a form whose point is the weights.
pub(super) fn norm_by_weights(gradient: &ObjectiveGradient) -> f64 {
    (gradient.by_point.dot(&gradient.by_point) + gradient.by_bias * gradient.by_bias).sqrt()
}

/// The step in a form whose point is the weights.
pub(super) fn step_of_weights(
    features: ArrayView2<'_, f32>,
    iterate: &Iterate,
    direction: SearchDirection,
) -> NewtonStep {
    NewtonStep {
        weights_by_change: iterate.point.dot(&direction.point),
        squared_norm: direction.point.dot(&direction.point),
        decisions: gemv(features, &direction.point) + direction.bias,
        direction,
    }
}
