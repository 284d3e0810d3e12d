//! What the Newton iteration asks of a form of the problem: where it is, the gradient there, and the step.
//!
//! Everything is of the *sum* of the losses, `n J = sum_i loss_i + |w|^2 / (2 C)`, whose curvature does not shrink with
//! the number of samples. A form keeps the weights by coordinates of its own, its *point*.

use ndarray::Array1;

use super::super::logistic::{sigmoid, softplus};
use super::cholesky::Cholesky;

/// A place of the iteration.
#[derive(Clone, Debug)]
pub(super) struct Iterate {
    /// The weights, in the coordinates of the form.
    pub(super) point: Array1<f64>,
    /// The constant.
    pub(super) bias: f64,
    /// `x_i . w + b` of each training sample, `[n]`.
    pub(super) decisions: Array1<f64>,
    /// `|w|^2`.
    pub(super) squared_norm: f64,
}

/// The gradient of the summed objective at an iterate.
#[derive(Debug)]
pub(super) struct Gradient {
    /// What the form keeps of the derivative by the weights.
    pub(super) by_point: Array1<f64>,
    /// What the form needs besides; empty where it needs nothing.
    pub(super) product: Array1<f64>,
    /// The derivative by the bias.
    pub(super) by_bias: f64,
    /// Euclidean norm, weights and bias together.
    pub(super) norm: f64,
}

/// A change of an [`Iterate`].
#[derive(Debug)]
pub(super) struct Step {
    /// By which the point changes.
    pub(super) point: Array1<f64>,
    /// By which the bias changes.
    pub(super) bias: f64,
    /// By which the decisions change.
    pub(super) decisions: Array1<f64>,
    /// The weights times their change.
    pub(super) weights_by_change: f64,
    /// The change of the weights, squared.
    pub(super) squared_norm: f64,
}

/// The second-order part of a quadratic model of the objective.
#[derive(Debug)]
pub(super) struct Model {
    /// The second derivative of each loss, `[n]`.
    pub(super) curvature: Array1<f64>,
    /// The inverse strength of the penalty.
    pub(super) c: f64,
    /// What couples the bias to the point.
    pub(super) mixed: Array1<f64>,
    /// The answer of the point to a change of the bias.
    pub(super) of_bias: Array1<f64>,
    /// The factorised matrix, where the form has one; making it is nearly all of the work, so it is worth using again.
    pub(super) factor: Option<Cholesky>,
}

/// A form of the problem.
pub(super) trait System {
    /// Coordinates of a point.
    fn dimension(&self) -> usize;

    /// The gradient at `iterate`, where `residual` is the predicted probability less the label.
    fn gradient(&self, iterate: &Iterate, residual: &Array1<f64>, c: f64) -> Gradient;

    /// The quadratic model of the objective where the losses' second derivatives are `curvature`, all above zero.
    fn model(&self, curvature: Array1<f64>, c: f64) -> Model;

    /// The step to the minimum of `model`, exact or nearly so, for the gradient at `iterate`.
    ///
    /// `relative_gradient` is the gradient's norm over that of the featureless probe: how near the end is.
    fn step(&self, model: &Model, iterate: &Iterate, gradient: &Gradient, relative_gradient: f64) -> Step;

    /// The point whose weights are `weights`, or the nearest that the form can express.
    fn point_of(&self, weights: &Array1<f64>) -> Array1<f64>;

    /// The weights `[h]` of a point.
    fn weights(&self, point: &Array1<f64>) -> Array1<f64>;

    /// `X w` for the weights of a point, `[n]`, and `|w|^2`.
    fn image(&self, point: &Array1<f64>) -> (Array1<f64>, f64);
}

impl Iterate {
    /// The place of `point` and `bias`.
    pub(super) fn at(system: &dyn System, point: Array1<f64>, bias: f64) -> Self {
        let (image, squared_norm) = system.image(&point);
        Self { point, bias, decisions: image + bias, squared_norm }
    }

    /// Goes `length` of `step`.
    pub(super) fn advance(&mut self, step: &Step, length: f64) {
        self.squared_norm += length * (2.0 * step.weights_by_change + length * step.squared_norm);
        self.point.scaled_add(length, &step.point);
        self.bias += length * step.bias;
        self.decisions.scaled_add(length, &step.decisions);
    }

    /// The predicted probability of label 1 less the label, for each sample.
    pub(super) fn residual(&self, labels: &[u8]) -> Array1<f64> {
        let of = |(&z, &label): (&f64, &u8)| if label == 1 { -sigmoid(-z) } else { sigmoid(z) };
        self.decisions.iter().zip(labels).map(of).collect()
    }

    /// The summed objective `length` of `step` away.
    pub(super) fn objective_along(&self, step: &Step, length: f64, labels: &[u8], c: f64) -> f64 {
        let decisions = self.decisions.iter().zip(&step.decisions).map(|(z, change)| z + length * change);
        let loss: f64 = decisions.zip(labels).map(|(z, &label)| softplus(if label == 1 { -z } else { z })).sum();
        let squared_norm = self.squared_norm + length * (2.0 * step.weights_by_change + length * step.squared_norm);
        loss + squared_norm / (2.0 * c)
    }
}
