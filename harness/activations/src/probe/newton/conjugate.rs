//! The Newton step by conjugate gradients, for problems whose matrices are too large to factorize. Each Hessian-vector
//! product is one pass over the samples.
//!
//! Truncated Newton (Nocedal and Wright, "Numerical Optimization", section 7.1): a coarse step suffices far from the
//! minimum; the accuracy increases as the gradient decreases. The preconditioner is the diagonal of the Hessian.

use ndarray::{Array1, ArrayView2, Axis};

use super::super::gemv::{gemv, weighted_gram_gemv};
use super::primal::{gradient_by_weights, norm_by_weights, pairing_by_weights, step_of_weights};
use super::system::{Iterate, NewtonStep, NewtonSystem, ObjectiveGradient, SearchDirection};

/// The maximum number of Hessian-vector products per step.
const MAX_HESSIAN_PRODUCTS: usize = 1000;

/// The maximum relative residual of a step.
const MAX_RELATIVE_RESIDUAL: f64 = 0.1;

/// One layer's training samples, without any matrix.
pub(super) struct ConjugateSystem<'a> {
    features: ArrayView2<'a, f32>,
}

/// A vector over all unknowns: weights and bias.
#[derive(Clone)]
struct UnknownsVector {
    weights: Array1<f64>,
    bias: f64,
}

impl UnknownsVector {
    fn dot(&self, other: &Self) -> f64 {
        self.weights.dot(&other.weights) + self.bias * other.bias
    }

    fn scaled_add(&mut self, factor: f64, other: &Self) {
        self.weights.scaled_add(factor, &other.weights);
        self.bias += factor * other.bias;
    }
}

impl<'a> ConjugateSystem<'a> {
    /// Takes `features` `[n, h]`.
    pub(super) fn new(features: ArrayView2<'a, f32>) -> Self {
        Self { features }
    }

    /// The Hessian times `direction`. Each sample is read once for both multiplications, by `X` and by `X^T`.
    fn hessian_times(&self, direction: &UnknownsVector, curvature: &Array1<f64>, c: f64) -> UnknownsVector {
        let (mut weights, bias) = weighted_gram_gemv(self.features, &direction.weights, direction.bias, curvature);
        weights.scaled_add(1.0 / c, &direction.weights);
        UnknownsVector { weights, bias }
    }

    /// The reciprocal of the Hessian's diagonal.
    fn preconditioner(&self, curvature: &Array1<f64>, c: f64) -> UnknownsVector {
        let mut diagonal = Array1::from_elem(self.features.ncols(), 1.0 / c);
        for (row, &curvature) in self.features.axis_iter(Axis(0)).zip(curvature) {
            diagonal.zip_mut_with(&row, |sum, &value| *sum += curvature * f64::from(value) * f64::from(value));
        }
        UnknownsVector { weights: diagonal.mapv(f64::recip), bias: 1.0 / curvature.sum() }
    }
}

/// The curvatures of the losses, and the preconditioner of the conjugate gradients.
pub(super) struct ConjugateModel {
    curvature: Array1<f64>,
    c: f64,
    inverse_diagonal: UnknownsVector,
}

impl NewtonSystem for ConjugateSystem<'_> {
    type Model = ConjugateModel;

    const KEEPS_MODELS: bool = false;

    const ROUNDING: f64 = f64::EPSILON;

    fn dimension(&self) -> usize {
        self.features.ncols()
    }

    fn gradient(&self, iterate: &Iterate, residual: &[f64], c: f64) -> ObjectiveGradient {
        gradient_by_weights(self.features, iterate, residual, c)
    }

    fn model(&self, curvature: Array1<f64>, c: f64, _: Option<ConjugateModel>) -> ConjugateModel {
        let inverse_diagonal = self.preconditioner(&curvature, c);
        ConjugateModel { curvature, c, inverse_diagonal }
    }

    fn solve(&self, model: &ConjugateModel, gradient: &ObjectiveGradient, relative_gradient: f64) -> SearchDirection {
        let ConjugateModel { curvature, c, inverse_diagonal } = model;
        let preconditioned = |vector: &UnknownsVector| UnknownsVector {
            weights: &vector.weights * &inverse_diagonal.weights,
            bias: vector.bias * inverse_diagonal.bias,
        };
        let mut solution = UnknownsVector { weights: Array1::zeros(self.dimension()), bias: 0.0 };
        let mut residual = UnknownsVector { weights: gradient.by_point.clone(), bias: gradient.by_bias };
        let mut direction = preconditioned(&residual);
        let mut square = residual.dot(&direction);
        let target = square * relative_gradient.sqrt().min(MAX_RELATIVE_RESIDUAL).powi(2);
        for _ in 0..MAX_HESSIAN_PRODUCTS {
            let product = self.hessian_times(&direction, curvature, *c);
            let curvature_along = direction.dot(&product);
            // The Hessian is positive definite, so only a NaN or an overflow ends the search here.
            if curvature_along.is_nan() || curvature_along <= 0.0 {
                break;
            }
            let length = square / curvature_along;
            solution.scaled_add(length, &direction);
            residual.scaled_add(-length, &product);
            let next = preconditioned(&residual);
            let next_square = residual.dot(&next);
            if next_square.is_nan() || next_square <= target {
                break;
            }
            let beta = next_square / square;
            let mut next_direction = next;
            next_direction.scaled_add(beta, &direction);
            direction = next_direction;
            square = next_square;
        }
        SearchDirection { point: solution.weights, gram_image: Array1::zeros(0), bias: solution.bias }
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
