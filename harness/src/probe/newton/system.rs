//! What the iteration asks of a form of the problem: where it is, the gradient there, and Newton's step for a gradient.
//!
//! Everything is of the *sum* of the losses, `n J = sum_i loss_i + |w|^2 / (2 C)`, whose curvature does not shrink with
//! the number of samples. A form keeps the weights by coordinates of its own, its *point*.

use ndarray::Array1;

use super::super::logistic::{sigmoid, softplus};

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

/// The gradient of the summed objective at an iterate, or a difference of two.
#[derive(Clone, Debug)]
pub(super) struct Gradient {
    /// What the form keeps of the derivative by the weights.
    pub(super) by_point: Array1<f64>,
    /// What the form needs besides; empty where it needs nothing.
    pub(super) product: Array1<f64>,
    /// The derivative by the bias.
    pub(super) by_bias: f64,
}

impl Gradient {
    /// Adds `factor` times `other`.
    pub(super) fn scaled_add(&mut self, factor: f64, other: &Self) {
        self.by_point.scaled_add(factor, &other.by_point);
        self.product.scaled_add(factor, &other.product);
        self.by_bias += factor * other.by_bias;
    }
}

/// A change of weights and bias.
#[derive(Clone, Debug)]
pub(super) struct Direction {
    /// By which the point changes.
    pub(super) point: Array1<f64>,
    /// What the form needs besides; empty where it needs nothing.
    pub(super) product: Array1<f64>,
    /// By which the bias changes.
    pub(super) bias: f64,
}

impl Direction {
    /// Adds `factor` times `other`.
    pub(super) fn scaled_add(&mut self, factor: f64, other: &Self) {
        self.point.scaled_add(factor, &other.point);
        self.product.scaled_add(factor, &other.product);
        self.bias += factor * other.bias;
    }

    /// Multiplies by `factor`.
    pub(super) fn scale(&mut self, factor: f64) {
        self.point *= factor;
        self.product *= factor;
        self.bias *= factor;
    }
}

/// A direction with what a search along it asks for.
#[derive(Debug)]
pub(super) struct Step {
    /// Where it leads.
    pub(super) direction: Direction,
    /// By which the decisions change.
    pub(super) decisions: Array1<f64>,
    /// The weights times their change.
    pub(super) weights_by_change: f64,
    /// The change of the weights, squared.
    pub(super) squared_norm: f64,
}

/// A form of the problem.
pub(super) trait System {
    /// The second-order part of a quadratic model of the objective, ready to be solved with.
    type Model;

    /// Whether making a model is most of the work of a step, so that one is worth using again.
    const KEEPS_MODELS: bool;

    /// The relative rounding of a step's inner product with the weights.
    const ROUNDING: f64;

    /// Coordinates of a point.
    fn dimension(&self) -> usize;

    /// The gradient at `iterate`, where `residual` is the predicted probability less the label.
    fn gradient(&self, iterate: &Iterate, residual: &Array1<f64>, c: f64) -> Gradient;

    /// The model of the objective where the losses' second derivatives are `curvature`, all above zero.
    fn model(&self, curvature: Array1<f64>, c: f64) -> Self::Model;

    /// The direction whose gradient of the model is `gradient`, exact or nearly so: the inverse Hessian times it.
    ///
    /// `relative_gradient` is the gradient's norm over that of the featureless probe: how near the end is.
    fn solve(&self, model: &Self::Model, gradient: &Gradient, relative_gradient: f64) -> Direction;

    /// The inner product of a change of weights and bias with a derivative by them.
    fn pairing(&self, direction: &Direction, gradient: &Gradient) -> f64;

    /// Euclidean norm of a gradient, weights and bias together.
    fn norm(&self, gradient: &Gradient) -> f64;

    /// `direction` from `iterate` as a step.
    fn step(&self, iterate: &Iterate, direction: Direction) -> Step;

    /// The point whose weights are `weights`, or the nearest that the form can express.
    fn point_of(&self, weights: &Array1<f64>) -> Array1<f64>;

    /// The weights `[h]` of a point.
    fn weights(&self, point: &Array1<f64>) -> Array1<f64>;

    /// `X w` for `weights` `w`, `[n]`, in double precision.
    fn image(&self, weights: &Array1<f64>) -> Array1<f64>;
}

impl Iterate {
    /// The place of `point` and `bias`, exact to the rounding of double precision.
    pub(super) fn at<S: System>(system: &S, point: Array1<f64>, bias: f64) -> Self {
        let weights = system.weights(&point);
        Self { point, bias, decisions: system.image(&weights) + bias, squared_norm: weights.dot(&weights) }
    }

    /// Goes `length` of `step`.
    pub(super) fn advance(&mut self, step: &Step, length: f64) {
        self.squared_norm += length * (2.0 * step.weights_by_change + length * step.squared_norm);
        self.point.scaled_add(length, &step.direction.point);
        self.bias += length * step.direction.bias;
        self.decisions.scaled_add(length, &step.decisions);
    }

    /// The predicted probability of label 1 less the label, for each sample.
    pub(super) fn residual(&self, labels: &[u8]) -> Array1<f64> {
        let of = |(&z, &label): (&f64, &u8)| if label == 1 { -sigmoid(-z) } else { sigmoid(z) };
        self.decisions.iter().zip(labels).map(of).collect()
    }

    /// The summed objective.
    pub(super) fn objective(&self, labels: &[u8], c: f64) -> f64 {
        let loss: f64 = self.decisions.iter().zip(labels).map(|(&z, &label)| loss(z, label)).sum();
        loss + self.squared_norm / (2.0 * c)
    }

    /// The summed objective `length` of `step` away.
    pub(super) fn objective_along(&self, step: &Step, length: f64, labels: &[u8], c: f64) -> f64 {
        let decisions = self.decisions.iter().zip(&step.decisions).map(|(z, change)| z + length * change);
        let loss: f64 = decisions.zip(labels).map(|(z, &label)| loss(z, label)).sum();
        let squared_norm = self.squared_norm + length * (2.0 * step.weights_by_change + length * step.squared_norm);
        loss + squared_norm / (2.0 * c)
    }
}

/// The loss of one sample.
fn loss(decision: f64, label: u8) -> f64 {
    softplus(if label == 1 { -decision } else { decision })
}
