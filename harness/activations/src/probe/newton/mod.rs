//! The default [`Solver`]: Newton's method with a line search, along a path of `C`.
//!
//! For logistic regression Newton's method is iteratively reweighted least squares (Green, "Iteratively reweighted
//! least squares for maximum likelihood estimation", 1984). The objective is smooth and strictly convex, so with a
//! line search by Armijo's rule it converges from any point. That includes separable data: the penalty bounds the
//! weights, and the presence of both classes bounds the bias.
//!
//! The form of the step depends on the shape, `n` samples of `h` features:
//!
//! - `n < h`: `dual`, a factorization of `[n, n]`; the Gram matrix of the samples is computed once for all `C`;
//! - `n >= h`: `primal`, a factorization of `[h, h]`;
//! - if the smaller of the two exceeds [`MAX_FACTORIZED`]: `conjugate`, without any matrix.
//!
//! **Few factorizations.** One costs as much as six steps or more, so it is reused, also for the next `C`, while the
//! gradient keeps shrinking. Between two factorizations the last steps correct it (`secants`): L-BFGS with an old
//! inverse Hessian in place of a multiple of the identity.
//!
//! **Two precisions.** If the penalty bounds the condition number of the matrices
//! (`MatrixPrecision::for_condition`), they have single precision, which halves the work. They affect the speed of
//! convergence but not the minimum: the stopping criterion is a gradient in double precision.
//!
//! Several `C` are fitted in increasing order, each from the previous solution, which is near. All sums have a fixed
//! order on one thread, so the bits of a result do not depend on how many problems are solved in parallel.
//!
//! **An iteration** is one step: one gradient, a factorization if necessary (or conjugate gradients), and the line
//! search. About ten are usual.

mod conjugate;
mod dual;
mod primal;
mod secants;
mod system;
#[cfg(test)]
mod tests;

use ndarray::Array1;

use self::conjugate::ConjugateSystem;
use self::dual::DualSystem;
use self::primal::PrimalSystem;
use self::secants::Secants;
use self::system::{Iterate, LineSearchTrial, NewtonStep, NewtonSystem, ObjectiveGradient};
use super::gemv::sum_of_squares;
use super::losses::Losses;
use super::problem::{Parameters, Problem};
use super::solver::{Solution, Solver};
use crate::error::Result;

/// The maximum size of a factorized matrix. Two matrices of this size are 64 MiB, and a factorization takes about as
/// long as a hundred passes over as many samples.
pub const MAX_FACTORIZED: usize = 2048;

/// The iteration ends if the norm of the gradient, relative to that of the featureless probe, is at most this. The
/// error of the objective is proportional to its square. With 1e-6, objectives of small problems at C 100 were more
/// than 1e-9 above the minimum; with 1e-8 there are more steps for the same AUROC.
const RELATIVE_GRADIENT: f64 = 1e-7;

/// If a step leaves more than this fraction of the norm of the gradient, the matrix is factorized again. Measured on
/// features of a language model (480 samples, 16 layers, three `C`): values from 0.55 to 0.72 differ by less than 5 %
/// in time, 0.35 and 0.8 take 1.5 times as long.
const POOR_REDUCTION: f64 = 0.65;

/// Armijo's constant: the fraction of the decrease predicted by the slope that a step must achieve.
const SUFFICIENT_DECREASE: f64 = 1e-4;

/// The maximum number of halvings in a line search; the last step is far below rounding.
const MAX_HALVINGS: usize = 60;

/// The lower bound of the second derivatives of the losses, so that every sample contributes to the step.
const MIN_CURVATURE: f64 = f64::EPSILON;

/// Newton's method; see the [module documentation](self).
#[derive(Clone, Copy, Debug, Default)]
pub struct NewtonSolver;

impl Solver for NewtonSolver {
    fn name(&self) -> &'static str {
        "newton"
    }

    fn solve(&self, problem: &Problem<'_>, start: Option<&Parameters>, max_iterations: usize) -> Result<Solution> {
        let mut solutions = solutions(problem, start, &[problem.c()], max_iterations);
        Ok(solutions.swap_remove(0))
    }

    fn solve_path(&self, problem: &Problem<'_>, cs: &[f64], max_iterations: usize) -> Result<Vec<Solution>> {
        cs.iter().try_for_each(|&c| problem.with_c(c).map(drop))?;
        Ok(solutions(problem, None, cs, max_iterations))
    }
}

/// The solutions at `cs`, in order, in the form for the shape of the features.
fn solutions(problem: &Problem<'_>, start: Option<&Parameters>, cs: &[f64], max_iterations: usize) -> Vec<Solution> {
    let features = problem.features();
    let (samples, columns) = features.dim();
    let max_c = cs.iter().copied().fold(0.0, f64::max);
    let squares = sum_of_squares(features);
    let path = RegularizationPath { problem, squares, start, cs, max_iterations };
    match (samples.min(columns) > MAX_FACTORIZED, samples < columns, MatrixPrecision::for_condition(squares, max_c)) {
        (true, _, _) => path.solutions(&ConjugateSystem::new(features)),
        (_, true, MatrixPrecision::Single) => path.solutions(&DualSystem::<f32>::new(features)),
        (_, true, MatrixPrecision::Double) => path.solutions(&DualSystem::<f64>::new(features)),
        (_, false, MatrixPrecision::Single) => path.solutions(&PrimalSystem::<f32>::new(features)),
        (_, false, MatrixPrecision::Double) => path.solutions(&PrimalSystem::<f64>::new(features)),
    }
}

/// The precision in which the matrices of a path are stored and factorized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MatrixPrecision {
    Single,
    Double,
}

/// The maximum condition number, times the rounding error of single precision, of a matrix that is factorized in
/// single precision. The bound of the condition number uses the trace and the maximum curvature 1/4; the actual
/// condition number of features of language models is at most a tenth of it, and a factor with an error of some
/// percent is still useful.
const MAX_SINGLE_CONDITION: f64 = 4.0;

/// The range of sums of squares for which Gram matrices neither overflow nor underflow single precision, with a margin.
const SINGLE_RANGE: std::ops::Range<f64> = 1e-20..1e20;

impl MatrixPrecision {
    /// Single precision if the condition number of the Hessian is small enough at `c` and below, for features with
    /// the sum of squares `squares`.
    ///
    /// The smallest eigenvalue is at least `1 / c`, the largest at most `1 / c` plus the trace of `X^T D X`, where
    /// every `d` is at most 1/4.
    fn for_condition(squares: f64, c: f64) -> Self {
        let condition = c * squares / 4.0;
        let is_well_conditioned = condition * f64::from(f32::EPSILON) <= MAX_SINGLE_CONDITION;
        if is_well_conditioned && SINGLE_RANGE.contains(&squares) { Self::Single } else { Self::Double }
    }
}

/// One problem at several `C`.
struct RegularizationPath<'a, 'f> {
    problem: &'a Problem<'f>,
    /// The sum of the squares of all features.
    squares: f64,
    start: Option<&'a Parameters>,
    cs: &'a [f64],
    max_iterations: usize,
}

impl RegularizationPath<'_, '_> {
    /// The solutions in the order of `cs`, computed from the smallest `C` to the largest.
    fn solutions<S: NewtonSystem>(&self, system: &S) -> Vec<Solution> {
        let minimizer = FormMinimizer::new(self.problem, self.squares, system);
        let mut order: Vec<usize> = (0..self.cs.len()).collect();
        order.sort_by(|&a, &b| self.cs[a].total_cmp(&self.cs[b]));
        let mut current = match self.start {
            None => minimizer.featureless.clone(),
            Some(start) => Iterate::exact(system, system.point_from_weights(&start.weights), start.bias).0,
        };
        let mut model = None;
        let mut solutions = Vec::with_capacity(self.cs.len());
        for &index in &order {
            let end = minimizer.minimize(current, &mut model, self.cs[index], self.max_iterations);
            let weights = end.weights.unwrap_or_else(|| system.weights(&end.iterate.point));
            let parameters = Parameters { weights, bias: end.iterate.bias };
            solutions.push((index, Solution { parameters, iterations: Some(end.iterations) }));
            current = end.iterate;
        }
        solutions.sort_by_key(|(index, _)| *index);
        solutions.into_iter().map(|(_, solution)| solution).collect()
    }
}

/// Minimizes one layer's problem in one form, at any `C`.
struct FormMinimizer<'a, S: NewtonSystem> {
    system: &'a S,
    labels: &'a [u8],
    featureless: Iterate,
    /// The norm of the gradient at which an iteration ends.
    tolerance: f64,
    /// The norm of the gradient of the featureless probe, which does not depend on `C`; positive.
    scale: f64,
}

/// The end of a minimization.
struct MinimizationResult {
    iterate: Iterate,
    /// The weights, if they are already computed.
    weights: Option<Array1<f64>>,
    iterations: usize,
}

impl<'a, S: NewtonSystem> FormMinimizer<'a, S> {
    fn new(problem: &'a Problem<'_>, squares: f64, system: &'a S) -> Self {
        let labels = problem.labels();
        let point = Array1::zeros(system.dimension());
        let bias = problem.featureless().bias;
        let decisions = Array1::from_elem(labels.len(), bias);
        let featureless = Iterate { point, bias, decisions, squared_norm: 0.0 };
        let norm = system.norm(&system.gradient(&featureless, &featureless.losses(labels).residuals, 1.0));
        // The residuals are at most 1 with a rounding error of epsilon, so this is the rounding error of the gradient.
        let noise = f64::EPSILON * (squares + labels.len() as f64).sqrt();
        Self { labels, featureless, tolerance: (RELATIVE_GRADIENT * norm).max(noise), scale: norm.max(noise), system }
    }

    /// The minimum at `c`, or the iterate after `max_iterations` from `current`. `model` is the last model, for this
    /// `c` or another.
    fn minimize(
        &self,
        mut current: Iterate,
        model: &mut Option<S::Model>,
        c: f64,
        max_iterations: usize,
    ) -> MinimizationResult {
        let mut secants = Secants::new();
        let mut evaluation = self.evaluate(&current, current.losses(self.labels), c);
        let mut last_norm = f64::INFINITY;
        let (mut stalled, mut stalled_before) = (false, false);
        let mut weights = None;
        let mut iterations = 0;
        loop {
            if evaluation.norm <= self.tolerance || stalled {
                // The decisions are accumulated over the steps. At the end they are recomputed from the weights.
                let (exact, exact_weights) = Iterate::exact(self.system, current.point, current.bias);
                evaluation = self.evaluate(&exact, exact.losses(self.labels), c);
                (current, weights) = (exact, Some(exact_weights));
                if evaluation.norm <= self.tolerance || stalled_before {
                    break;
                }
                stalled_before = stalled;
            }
            if evaluation.norm.is_nan() || iterations == max_iterations {
                break;
            }
            let is_poor = !S::KEEPS_MODELS || evaluation.norm > POOR_REDUCTION * last_norm;
            let had_model = model.is_some() && !is_poor;
            let mut found = self.search(&current, &evaluation, (model, is_poor), &mut secants, c);
            if found.is_none() && had_model {
                found = self.search(&current, &evaluation, (model, true), &mut secants, c);
            }
            let Some(LineSearchResult { step: NewtonStep { direction: mut taken, .. }, trial, descent }) = found else {
                break;
            };
            iterations += 1;
            weights = None;
            taken.scale(trial.length);
            let losses = current.advance(&taken, trial);
            let next = self.evaluate(&current, losses, c);
            let mut change = next.gradient.clone();
            change.scaled_add(-1.0, &evaluation.gradient);
            secants.push(self.system, taken, change);
            // The step changes the objective by less than its rounding error.
            stalled = descent <= f64::EPSILON * evaluation.objective;
            last_norm = evaluation.norm;
            evaluation = next;
        }
        MinimizationResult { iterate: current, weights, iterations }
    }

    /// Evaluates objective and gradient at `current`, given the losses of the samples.
    fn evaluate(&self, current: &Iterate, losses: Losses, c: f64) -> PointEvaluation {
        let gradient = self.system.gradient(current, &losses.residuals, c);
        let objective = current.objective(&losses, c);
        PointEvaluation {
            norm: self.system.norm(&gradient),
            gradient,
            objective,
            residual: Array1::from_vec(losses.residuals),
        }
    }

    /// A line search along the step of the current model, or of a new model if there is none or it `is_poor`,
    /// corrected by `secants`. `None` if no point is lower.
    fn search(
        &self,
        current: &Iterate,
        evaluation: &PointEvaluation,
        (model, is_poor): (&mut Option<S::Model>, bool),
        secants: &mut Secants,
        c: f64,
    ) -> Option<LineSearchResult> {
        let kept = model.take();
        let model = model.insert(match kept {
            Some(kept) if !is_poor => kept,
            spent => {
                secants.clear();
                let curvature = evaluation.residual.mapv(|r| (r.abs() * (1.0 - r.abs())).max(MIN_CURVATURE));
                self.system.model(curvature, c, spent)
            }
        });
        let mut direction = secants.solve(self.system, model, &evaluation.gradient, evaluation.norm / self.scale);
        direction.scale(-1.0);
        let step = self.system.step(current, direction);
        let descent = -(evaluation.residual.dot(&step.decisions) + step.weights_by_change / c);
        let trial = self.first_sufficient_trial(current, &step, evaluation.objective, descent, c)?;
        Some(LineSearchResult { step, trial, descent })
    }

    /// The first fraction of 1, 1/2, 1/4, ... of the step that decreases the objective sufficiently, up to rounding.
    fn first_sufficient_trial(
        &self,
        current: &Iterate,
        step: &NewtonStep,
        objective: f64,
        descent: f64,
        c: f64,
    ) -> Option<LineSearchTrial> {
        let rounding = 4.0 * (f64::EPSILON * objective + S::ROUNDING * step.weights_by_change.abs() / c);
        let finite = step.direction.bias.is_finite() && step.squared_norm.is_finite() && descent.is_finite();
        // In exact arithmetic every direction is a descent direction.
        let downward = finite && descent >= -rounding;
        let halvings = if downward { 0..MAX_HALVINGS } else { 0..0 };
        halvings
            .map(|halvings| current.trial(step, 0.5_f64.powi(halvings as i32), self.labels))
            .find(|trial| trial.objective(c) <= objective - SUFFICIENT_DECREASE * trial.length * descent + rounding)
    }
}

/// Objective and gradient at an iterate.
struct PointEvaluation {
    objective: f64,
    /// The predicted probability minus the label, `[n]`.
    residual: Array1<f64>,
    gradient: ObjectiveGradient,
    /// The norm of the gradient.
    norm: f64,
}

/// The result of a line search.
struct LineSearchResult {
    step: NewtonStep,
    /// The accepted point.
    trial: LineSearchTrial,
    /// The negative slope of the objective along the step, per length.
    descent: f64,
}
