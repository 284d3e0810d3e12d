//! What the iteration asks of a form of the problem: where it is, the gradient there, and Newton's step for a gradient.
//!
//! Everything is of the *sum* of the losses, `n J = sum_i loss_i + |w|^2 / (2 C)`, whose curvature does not shrink with
//! the number of samples. A form keeps the weights by coordinates of its own, its *point*.

use ndarray::Array1;

use super::super::losses::Losses;

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
    fn gradient(&self, iterate: &Iterate, residual: &[f64], c: f64) -> Gradient;

    /// The model of the objective where the losses' second derivatives are `curvature`, all above zero; in the memory of a
    /// `spent` one, where there is one.
    fn model(&self, curvature: Array1<f64>, c: f64, spent: Option<Self::Model>) -> Self::Model;

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

/// Where a step of some length leads.
pub(super) struct Trial {
    /// How much of the step it is.
    pub(super) length: f64,
    decisions: Array1<f64>,
    squared_norm: f64,
    /// What the samples come to there.
    pub(super) losses: Losses,
}

impl Trial {
    /// The summed objective there.
    pub(super) fn objective(&self, c: f64) -> f64 {
        self.losses.sum + self.squared_norm / (2.0 * c)
    }
}

impl Iterate {
    /// The place of `point` and `bias`, exact to the rounding of double precision, and its weights.
    pub(super) fn at<S: System>(system: &S, point: Array1<f64>, bias: f64) -> (Self, Array1<f64>) {
        let weights = system.weights(&point);
        let squared_norm = weights.dot(&weights);
        (Self { point, bias, decisions: system.image(&weights) + bias, squared_norm }, weights)
    }

    /// What the samples come to.
    pub(super) fn losses(&self, labels: &[u8]) -> Losses {
        match self.decisions.as_slice() {
            Some(decisions) => Losses::of(decisions, labels),
            None => Losses::of(&self.decisions.to_vec(), labels),
        }
    }

    /// The summed objective, where the samples come to `losses`.
    pub(super) fn objective(&self, losses: &Losses, c: f64) -> f64 {
        losses.sum + self.squared_norm / (2.0 * c)
    }

    /// What is found `length` of `step` away.
    pub(super) fn trial(&self, step: &Step, length: f64, labels: &[u8]) -> Trial {
        let mut decisions = self.decisions.clone();
        decisions.scaled_add(length, &step.decisions);
        let squared_norm = self.squared_norm + length * (2.0 * step.weights_by_change + length * step.squared_norm);
        let losses = Losses::of(decisions.as_slice().unwrap_or_default(), labels);
        Trial { length, decisions, squared_norm, losses }
    }

    /// Goes to `trial`, which `change` leads to; gives what the samples come to there.
    pub(super) fn advance(&mut self, change: &Direction, trial: Trial) -> Losses {
        self.squared_norm = trial.squared_norm;
        self.point += &change.point;
        self.bias += change.bias;
        self.decisions = trial.decisions;
        trial.losses
    }
}
