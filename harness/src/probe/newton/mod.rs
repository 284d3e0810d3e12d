//! The [`Solver`] of this program: Newton's method with a line search, along a path of `C`.
//!
//! For logistic regression Newton's method is iteratively reweighted least squares (Green, "Iteratively reweighted least
//! squares for maximum likelihood estimation", 1984). The objective is smooth and strictly convex, so with a line search
//! by Armijo's rule it converges from anywhere, and quadratically at the end; data that can be told apart perfectly are
//! no exception, as the penalty bounds the weights and both classes the bias.
//!
//! The step is found in the form that fits the shape, `n` samples of `h` features:
//!
//! - `n < h`: [`dual`], a factorisation of `[n, n]`; the inner products of the samples are computed once for all `C`;
//! - `n >= h`: [`primal`], a factorisation of `[h, h]`;
//! - where the smaller of the two is above [`LARGEST_FACTORISED`]: [`conjugate`], without any matrix.
//!
//! Several `C` are fitted from the smallest on, each from the solution before it, which is near. All arithmetic is f64 in
//! one fixed order on one thread, so the same problem has the same bits however many are solved side by side.
//!
//! A factorisation is kept for further steps as long as these go on reducing the gradient well (the method of Shamanskii:
//! Kelley, "Iterative Methods for Linear and Nonlinear Equations", section 5.4.3).
//!
//! **An iteration** is one step: one gradient, one factorisation unless the last one still serves (or one search by
//! conjugate gradients), and the line search. Ten or so are usual.

mod cholesky;
mod conjugate;
mod dual;
mod primal;
mod system;
#[cfg(test)]
mod tests;

use ndarray::{Array1, ArrayView2};

use self::conjugate::ConjugateSystem;
use self::dual::DualSystem;
use self::primal::PrimalSystem;
use self::system::{Iterate, Model, Step, System};
use super::logistic::{Parameters, Problem, Solution, Solver};
use crate::error::Result;

/// The largest matrix that is factorised: at this size two of them are 64 MiB, and a factorisation takes about as long
/// as a hundred passes over as many samples.
pub const LARGEST_FACTORISED: usize = 2048;

/// The iteration ends where the gradient is this small beside that of the featureless probe.
const RELATIVE_GRADIENT: f64 = 1e-9;

/// A step that brought the gradient down to this share or less is followed by one with the same factorisation, at a
/// small part of the price. Measured at 480 samples: a step with an old factor costs a seventh of one with a new factor,
/// which pays while seven of them bring more than the square of the gradient.
const GOOD_REDUCTION: f64 = 0.2;

/// Armijo's constant: the share of the decrease promised by the slope that a step must bring.
const SUFFICIENT_DECREASE: f64 = 1e-4;

/// Halvings of a step before the line search gives up; the last is far below rounding.
const MOST_HALVINGS: usize = 60;

/// Second derivatives of the losses below this are raised to it, so that no sample drops out of the step altogether.
const SMALLEST_CURVATURE: f64 = f64::EPSILON;

/// Newton's method; see the head of this file.
#[derive(Clone, Copy, Debug, Default)]
pub struct NewtonSolver;

impl Solver for NewtonSolver {
    fn name(&self) -> &'static str {
        "newton"
    }

    fn solve(&self, problem: &Problem<'_>, start: Option<&Parameters>, max_iterations: usize) -> Result<Solution> {
        let path = Path::new(problem, system_of(problem.features()));
        let start = match start {
            None => path.featureless.clone(),
            Some(start) => Iterate::at(&*path.system, path.system.point_of(&start.weights), start.bias),
        };
        let (end, iterations) = path.minimise(start, problem.c(), max_iterations);
        Ok(path.solution(&end, iterations))
    }

    fn solve_path(&self, problem: &Problem<'_>, cs: &[f64], max_iterations: usize) -> Result<Vec<Solution>> {
        let path = Path::new(problem, system_of(problem.features()));
        let mut order: Vec<usize> = (0..cs.len()).collect();
        order.sort_by(|&a, &b| cs[a].total_cmp(&cs[b]));
        let mut current = path.featureless.clone();
        let mut solutions = Vec::with_capacity(cs.len());
        for &place in &order {
            let c = problem.with_c(cs[place])?.c();
            let (end, iterations) = path.minimise(current, c, max_iterations);
            solutions.push((place, path.solution(&end, iterations)));
            current = end;
        }
        solutions.sort_by_key(|(place, _)| *place);
        Ok(solutions.into_iter().map(|(_, solution)| solution).collect())
    }
}

/// The form for the shape of `features`.
fn system_of(features: ArrayView2<'_, f64>) -> Box<dyn System + '_> {
    let (samples, columns) = features.dim();
    if samples.min(columns) > LARGEST_FACTORISED {
        Box::new(ConjugateSystem::new(features))
    } else if samples < columns {
        Box::new(DualSystem::new(features))
    } else {
        Box::new(PrimalSystem::new(features))
    }
}

/// One layer's problem in its form, for any `C`.
struct Path<'a> {
    system: Box<dyn System + 'a>,
    labels: &'a [u8],
    featureless: Iterate,
    /// Norm of the gradient at which an iteration ends.
    tolerance: f64,
    /// Norm of the gradient of the featureless probe, which is the same for every `C`; above zero.
    scale: f64,
}

impl<'a> Path<'a> {
    fn new(problem: &Problem<'a>, system: Box<dyn System + 'a>) -> Self {
        let labels = problem.labels();
        let point = Array1::zeros(system.dimension());
        let featureless = Iterate::at(&*system, point, problem.featureless().bias);
        let norm = system.gradient(&featureless, &featureless.residual(labels), 1.0).norm;
        // The residuals are at most 1 and known to rounding, and so the gradient is known to this.
        let squares: f64 = problem.features().iter().map(|value| value * value).sum();
        let noise = f64::EPSILON * (squares + labels.len() as f64).sqrt();
        Self { labels, featureless, tolerance: (RELATIVE_GRADIENT * norm).max(noise), scale: norm.max(noise), system }
    }

    /// The minimum at `c`, or where `max_iterations` from `current` lead, and how many were made.
    fn minimise(&self, mut current: Iterate, c: f64, max_iterations: usize) -> (Iterate, usize) {
        let mut last: Option<(Model, f64)> = None;
        for iteration in 0..max_iterations {
            let residual = current.residual(self.labels);
            let gradient = self.system.gradient(&current, &residual, c);
            if gradient.norm.is_nan() || gradient.norm <= self.tolerance {
                return (current, iteration);
            }
            let model = match last.take() {
                Some((model, norm)) if model.factor.is_some() && gradient.norm <= GOOD_REDUCTION * norm => model,
                _ => {
                    let curvature = residual.mapv(|r| (r.abs() * (1.0 - r.abs())).max(SMALLEST_CURVATURE));
                    self.system.model(curvature, c)
                }
            };
            let step = self.system.step(&model, &current, &gradient, gradient.norm / self.scale);
            let slope = residual.dot(&step.decisions) + step.weights_by_change / c;
            let objective = current.objective_along(&step, 0.0, self.labels, c);
            let Some(length) = self.length_of(&current, &step, slope, objective, c) else {
                return (current, iteration);
            };
            current.advance(&step, length);
            last = Some((model, gradient.norm));
            // A step this small changes the objective by less than its rounding.
            if -slope <= f64::EPSILON * objective {
                return (current, iteration + 1);
            }
        }
        (current, max_iterations)
    }

    /// The first of 1, 1/2, 1/4, ... that lowers the objective enough, up to its rounding.
    fn length_of(&self, current: &Iterate, step: &Step, slope: f64, objective: f64, c: f64) -> Option<f64> {
        let rounding = 4.0 * f64::EPSILON * objective;
        let lowers = |length: f64| {
            let bound = objective + SUFFICIENT_DECREASE * length * slope + rounding;
            current.objective_along(step, length, self.labels, c) <= bound
        };
        let finite = step.bias.is_finite() && step.squared_norm.is_finite() && slope.is_finite();
        (0..MOST_HALVINGS).map(|halvings| 0.5_f64.powi(halvings as i32)).find(|&length| finite && lowers(length))
    }

    fn solution(&self, end: &Iterate, iterations: usize) -> Solution {
        let parameters = Parameters { weights: self.system.weights(&end.point), bias: end.bias };
        Solution { parameters, iterations: Some(iterations) }
    }
}
