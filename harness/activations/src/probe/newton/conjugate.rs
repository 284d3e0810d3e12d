//! The Newton step by conjugate gradients, for problems whose matrices would be too large to factorise: products of the
//! Hessian with vectors, each one pass over the samples.
//!
//! Truncated Newton (Nocedal and Wright, "Numerical Optimization", section 7.1): far from the minimum a rough step does,
//! near it the step is made as exact as the gradient is small. Preconditioned by the Hessian's diagonal.

use ndarray::{Array1, ArrayView2, Axis};

use super::super::products::{times, weighted_products};
use super::primal::{gradient_by_weights, norm_by_weights, pairing_by_weights, step_of_weights};
use super::system::{Direction, Gradient, Iterate, Step, System};

/// Products with the Hessian in one step, at most.
const MOST_PRODUCTS: usize = 1000;

/// The error of the roughest step beside the gradient.
const ROUGHEST: f64 = 0.1;

/// A layer's training samples as they are.
pub(super) struct ConjugateSystem<'a> {
    features: ArrayView2<'a, f32>,
}

/// A value for each unknown: weights and bias together.
#[derive(Clone)]
struct Unknowns {
    weights: Array1<f64>,
    bias: f64,
}

impl Unknowns {
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

    /// The Hessian times `direction`; a sample's features are read once, for both of the products they take part in.
    fn hessian_times(&self, direction: &Unknowns, curvature: &Array1<f64>, c: f64) -> Unknowns {
        let (mut weights, bias) = weighted_products(self.features, &direction.weights, direction.bias, curvature);
        weights.scaled_add(1.0 / c, &direction.weights);
        Unknowns { weights, bias }
    }

    /// One over the Hessian's diagonal.
    fn preconditioner(&self, curvature: &Array1<f64>, c: f64) -> Unknowns {
        let mut diagonal = Array1::from_elem(self.features.ncols(), 1.0 / c);
        for (row, &curvature) in self.features.axis_iter(Axis(0)).zip(curvature) {
            diagonal.zip_mut_with(&row, |sum, &value| *sum += curvature * f64::from(value) * f64::from(value));
        }
        Unknowns { weights: diagonal.mapv(f64::recip), bias: 1.0 / curvature.sum() }
    }
}

/// The curvatures of the losses, and what the search by conjugate gradients is conditioned by.
pub(super) struct ConjugateModel {
    curvature: Array1<f64>,
    c: f64,
    inverse_diagonal: Unknowns,
}

impl System for ConjugateSystem<'_> {
    type Model = ConjugateModel;

    const KEEPS_MODELS: bool = false;

    const ROUNDING: f64 = f64::EPSILON;

    fn dimension(&self) -> usize {
        self.features.ncols()
    }

    fn gradient(&self, iterate: &Iterate, residual: &[f64], c: f64) -> Gradient {
        gradient_by_weights(self.features, iterate, residual, c)
    }

    fn model(&self, curvature: Array1<f64>, c: f64, _: Option<ConjugateModel>) -> ConjugateModel {
        let inverse_diagonal = self.preconditioner(&curvature, c);
        ConjugateModel { curvature, c, inverse_diagonal }
    }

    fn solve(&self, model: &ConjugateModel, gradient: &Gradient, relative_gradient: f64) -> Direction {
        let ConjugateModel { curvature, c, inverse_diagonal } = model;
        let conditioned = |of: &Unknowns| Unknowns {
            weights: &of.weights * &inverse_diagonal.weights,
            bias: of.bias * inverse_diagonal.bias,
        };
        let mut found = Unknowns { weights: Array1::zeros(self.dimension()), bias: 0.0 };
        let mut left = Unknowns { weights: gradient.by_point.clone(), bias: gradient.by_bias };
        let mut towards = conditioned(&left);
        let mut square = left.dot(&towards);
        let enough = square * relative_gradient.sqrt().min(ROUGHEST).powi(2);
        for _ in 0..MOST_PRODUCTS {
            let product = self.hessian_times(&towards, curvature, *c);
            let bend = towards.dot(&product);
            // Never for numbers, since the Hessian is positive; it ends the search on anything else.
            if bend.is_nan() || bend <= 0.0 {
                break;
            }
            let length = square / bend;
            found.scaled_add(length, &towards);
            left.scaled_add(-length, &product);
            let next = conditioned(&left);
            let next_square = left.dot(&next);
            if next_square.is_nan() || next_square <= enough {
                break;
            }
            let keep = next_square / square;
            let mut turned = next;
            turned.scaled_add(keep, &towards);
            towards = turned;
            square = next_square;
        }
        Direction { point: found.weights, product: Array1::zeros(0), bias: found.bias }
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
