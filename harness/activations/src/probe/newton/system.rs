//! The interface between Newton's iteration and a form of the problem (dual, primal, conjugate gradients): the
//! iterate, its gradient, and the Newton step.
//!
//! All quantities refer to the *sum* of the losses, `n J = sum_i loss_i + |w|^2 / (2 C)`, whose curvature does not
//! shrink with the number of samples. Each form represents the weights by its own coordinates, the *point*.

use ndarray::Array1;

use super::super::losses::Losses;

/// An iterate of the minimization.
#[derive(Clone, Debug)]
pub(super) struct Iterate {
    /// The weights in the coordinates of the form.
    pub(super) point: Array1<f64>,
    /// The bias.
    pub(super) bias: f64,
    /// `x_i . w + b` of each training sample, `[n]`.
    pub(super) decisions: Array1<f64>,
    /// `|w|^2`.
    pub(super) squared_norm: f64,
}

/// The gradient of the summed objective at an iterate, or the difference of two gradients.
#[derive(Clone, Debug)]
pub(super) struct ObjectiveGradient {
    /// The form's coordinates of the derivative with respect to the weights.
    pub(super) by_point: Array1<f64>,
    /// `K by_point` in the dual form; empty in the others.
    pub(super) gram_image: Array1<f64>,
    /// The derivative with respect to the bias.
    pub(super) by_bias: f64,
}

impl ObjectiveGradient {
    /// Adds `factor` times `other`.
    pub(super) fn scaled_add(&mut self, factor: f64, other: &Self) {
        self.by_point.scaled_add(factor, &other.by_point);
        self.gram_image.scaled_add(factor, &other.gram_image);
        self.by_bias += factor * other.by_bias;
    }
}

/// A change of weights and bias.
#[derive(Clone, Debug)]
pub(super) struct SearchDirection {
    /// The change of the point.
    pub(super) point: Array1<f64>,
    /// `K point` in the dual form; empty in the others.
    pub(super) gram_image: Array1<f64>,
    /// The change of the bias.
    pub(super) bias: f64,
}

impl SearchDirection {
    /// Adds `factor` times `other`.
    pub(super) fn scaled_add(&mut self, factor: f64, other: &Self) {
        self.point.scaled_add(factor, &other.point);
        self.gram_image.scaled_add(factor, &other.gram_image);
        self.bias += factor * other.bias;
    }

    /// Multiplies by `factor`.
    pub(super) fn scale(&mut self, factor: f64) {
        self.point *= factor;
        self.gram_image *= factor;
        self.bias *= factor;
    }
}

/// A direction with the quantities that a line search needs.
#[derive(Debug)]
pub(super) struct NewtonStep {
    /// The direction.
    pub(super) direction: SearchDirection,
    /// The change of the decisions, `[n]`.
    pub(super) decisions: Array1<f64>,
    /// The inner product of the weights with their change.
    pub(super) weights_by_change: f64,
    /// The squared norm of the change of the weights.
    pub(super) squared_norm: f64,
}

/// A form of the problem.
pub(super) trait NewtonSystem {
    /// The factorized second-order part of a quadratic model of the objective.
    type Model;

    /// Whether creating a model dominates the cost of a step, so that reusing a model pays off.
    const KEEPS_MODELS: bool;

    /// The relative rounding error of the inner product of a step with the weights.
    const ROUNDING: f64;

    /// The number of coordinates of a point.
    fn dimension(&self) -> usize;

    /// The gradient at `iterate`; `residual` is the predicted probability minus the label, `[n]`.
    fn gradient(&self, iterate: &Iterate, residual: &[f64], c: f64) -> ObjectiveGradient;

    /// The model of the objective for the second derivatives `curvature` of the losses, all positive. Reuses the
    /// memory of `spent`, if given.
    fn model(&self, curvature: Array1<f64>, c: f64, spent: Option<Self::Model>) -> Self::Model;

    /// The inverse Hessian of the model times `gradient`, exactly or approximately.
    ///
    /// `relative_gradient` is the norm of the gradient relative to that of the featureless probe; it controls the
    /// accuracy.
    fn solve(&self, model: &Self::Model, gradient: &ObjectiveGradient, relative_gradient: f64) -> SearchDirection;

    /// The inner product of a direction with a gradient, over weights and bias.
    fn pairing(&self, direction: &SearchDirection, gradient: &ObjectiveGradient) -> f64;

    /// The Euclidean norm of a gradient, over weights and bias.
    fn norm(&self, gradient: &ObjectiveGradient) -> f64;

    /// The step from `iterate` along `direction`.
    fn step(&self, iterate: &Iterate, direction: SearchDirection) -> NewtonStep;

    /// The point with the weights `weights`, or the nearest point that the form can represent.
    fn point_from_weights(&self, weights: &Array1<f64>) -> Array1<f64>;

    /// The weights `[h]` of a point.
    fn weights(&self, point: &Array1<f64>) -> Array1<f64>;

    /// `X w` for `weights` `w`, `[n]`, in double precision.
    fn image(&self, weights: &Array1<f64>) -> Array1<f64>;
}

/// The objective after a fraction of a step.
pub(super) struct LineSearchTrial {
    /// The fraction of the step.
    pub(super) length: f64,
    decisions: Array1<f64>,
    squared_norm: f64,
    /// The losses of the samples.
    pub(super) losses: Losses,
}

impl LineSearchTrial {
    /// The summed objective.
    pub(super) fn objective(&self, c: f64) -> f64 {
        self.losses.sum + self.squared_norm / (2.0 * c)
    }
}

impl Iterate {
    /// The iterate at `point` and `bias`, computed in double precision, and its weights.
    pub(super) fn exact<S: NewtonSystem>(system: &S, point: Array1<f64>, bias: f64) -> (Self, Array1<f64>) {
        let weights = system.weights(&point);
        let squared_norm = weights.dot(&weights);
        (Self { point, bias, decisions: system.image(&weights) + bias, squared_norm }, weights)
    }

    /// The losses of the samples.
    pub(super) fn losses(&self, labels: &[u8]) -> Losses {
        match self.decisions.as_slice() {
            Some(decisions) => Losses::new(decisions, labels),
            None => Losses::new(&self.decisions.to_vec(), labels),
        }
    }

    /// The summed objective, given the losses of the samples.
    pub(super) fn objective(&self, losses: &Losses, c: f64) -> f64 {
        losses.sum + self.squared_norm / (2.0 * c)
    }

    /// Evaluates the objective at the fraction `length` of `step`.
    pub(super) fn trial(&self, step: &NewtonStep, length: f64, labels: &[u8]) -> LineSearchTrial {
        let mut decisions = self.decisions.clone();
        decisions.scaled_add(length, &step.decisions);
        let squared_norm = self.squared_norm + length * (2.0 * step.weights_by_change + length * step.squared_norm);
        let losses = Losses::new(decisions.as_slice().unwrap_or_default(), labels);
        LineSearchTrial { length, decisions, squared_norm, losses }
    }

    /// Moves to `trial`, which is at `change` from this iterate, and returns its losses.
    pub(super) fn advance(&mut self, change: &SearchDirection, trial: LineSearchTrial) -> Losses {
        self.squared_norm = trial.squared_norm;
        self.point += &change.point;
        self.bias += change.bias;
        self.decisions = trial.decisions;
        trial.losses
    }
}
