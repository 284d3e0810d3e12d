//! The Newton step by conjugate gradients, for problems whose matrices would be too large to factorise: products of the
//! Hessian with vectors, each one pass over the samples.
//!
//! Truncated Newton (Nocedal and Wright, "Numerical Optimization", section 7.1): far from the minimum a rough step does,
//! near it the step is made as exact as the gradient is small. Preconditioned by the Hessian's diagonal.

use ndarray::{Array1, ArrayView2, Axis};

use super::primal::{gradient_by_weights, step_of_weights};
use super::system::{Gradient, Iterate, Model, Step, System};

/// Products with the Hessian in one step, at most.
const MOST_PRODUCTS: usize = 1000;

/// The error of the roughest step beside the gradient.
const ROUGHEST: f64 = 0.1;

/// A layer's training samples as they are.
pub(super) struct ConjugateSystem<'a> {
    features: ArrayView2<'a, f64>,
}

/// Weights and bias together.
#[derive(Clone)]
struct Direction {
    weights: Array1<f64>,
    bias: f64,
}

impl Direction {
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
    pub(super) fn new(features: ArrayView2<'a, f64>) -> Self {
        Self { features }
    }

    /// The Hessian times `direction`; a sample's features are read once, for both of the products they take part in.
    fn hessian_times(&self, direction: &Direction, curvature: &Array1<f64>, c: f64) -> Direction {
        let mut product = Direction { weights: &direction.weights / c, bias: 0.0 };
        for (row, &curvature) in self.features.axis_iter(Axis(0)).zip(curvature) {
            let weight = curvature * (row.dot(&direction.weights) + direction.bias);
            product.weights.scaled_add(weight, &row);
            product.bias += weight;
        }
        product
    }

    /// One over the Hessian's diagonal.
    fn preconditioner(&self, curvature: &Array1<f64>, c: f64) -> Direction {
        let mut diagonal = Array1::from_elem(self.features.ncols(), 1.0 / c);
        for (row, &curvature) in self.features.axis_iter(Axis(0)).zip(curvature) {
            diagonal.zip_mut_with(&row, |sum, value| *sum += curvature * value * value);
        }
        Direction { weights: diagonal.mapv(f64::recip), bias: 1.0 / curvature.sum() }
    }
}

impl System for ConjugateSystem<'_> {
    fn dimension(&self) -> usize {
        self.features.ncols()
    }

    fn gradient(&self, iterate: &Iterate, residual: &Array1<f64>, c: f64) -> Gradient {
        gradient_by_weights(self.features, iterate, residual, c)
    }

    fn model(&self, curvature: Array1<f64>, c: f64) -> Model {
        Model { curvature, c, mixed: Array1::zeros(0), of_bias: Array1::zeros(0), factor: None }
    }

    fn step(&self, model: &Model, iterate: &Iterate, gradient: &Gradient, relative_gradient: f64) -> Step {
        let (curvature, c) = (&model.curvature, model.c);
        let inverse = self.preconditioner(curvature, c);
        let conditioned =
            |of: &Direction| Direction { weights: &of.weights * &inverse.weights, bias: of.bias * inverse.bias };
        let mut step = Direction { weights: Array1::zeros(self.dimension()), bias: 0.0 };
        let mut left = Direction { weights: -&gradient.by_point, bias: -gradient.by_bias };
        let mut towards = conditioned(&left);
        let mut square = left.dot(&towards);
        let enough = square * relative_gradient.sqrt().min(ROUGHEST).powi(2);
        for _ in 0..MOST_PRODUCTS {
            let product = self.hessian_times(&towards, curvature, c);
            let bend = towards.dot(&product);
            // Never for numbers, since the Hessian is positive; it ends the search on anything else.
            if bend.is_nan() || bend <= 0.0 {
                break;
            }
            let length = square / bend;
            step.scaled_add(length, &towards);
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
        step_of_weights(self.features, iterate, step.weights, step.bias)
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
