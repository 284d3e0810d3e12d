//! Fits probes with a solver and evaluates the objective at its solution.

use ndarray::{Array1, ArrayView2};

use super::gemv::gemv;
use super::losses::Losses;
use super::newton::NewtonSolver;
use super::problem::{CONVERGED_GRADIENT_NORM, Parameters, Problem, norm};
use super::solver::{Solution, Solver};
use crate::error::{Error, Result};

/// A fitted probe.
#[derive(Clone, Debug)]
pub struct Probe {
    /// One weight per (standardized) feature, `[h]`.
    pub weights: Array1<f64>,
    /// The bias.
    pub bias: f64,
    /// The number of iterations, if the solver reports it.
    pub iterations: Option<usize>,
    /// The objective at the solution (mean loss plus penalty).
    pub objective: f64,
    /// The Euclidean norm of the gradient of the objective at the solution.
    pub gradient_norm: f64,
    /// Whether `gradient_norm` is at most [`CONVERGED_GRADIENT_NORM`]. If not, more iterations would change the probe.
    pub converged: bool,
}

impl Probe {
    /// `x . w + b` for each row of `features` `[n, h]`: positive if label 1 is more probable.
    ///
    /// # Errors
    ///
    /// The number of columns differs from the number of weights.
    pub fn decision_function(&self, features: ArrayView2<'_, f32>) -> Result<Array1<f64>> {
        if features.ncols() != self.weights.len() {
            return Err(Error::input(
                "features",
                format!("{} columns, but the probe has {} weights", features.ncols(), self.weights.len()),
            ));
        }
        Ok(gemv(features, &self.weights) + self.bias)
    }

    /// Weights and bias, as the start of the next fit.
    pub fn parameters(&self) -> Parameters {
        Parameters { weights: self.weights.clone(), bias: self.bias }
    }
}

/// Fits with [`NewtonSolver`]. [`Problem::new`] documents the arguments, [`fit_with`] the errors.
pub fn fit(features: ArrayView2<'_, f32>, labels: &[u8], c: f64, max_iterations: usize) -> Result<Probe> {
    fit_with(&NewtonSolver, &Problem::new(features.reborrow(), labels, c)?, None, max_iterations)
}

/// Fits `problem` with `solver` from `start`.
///
/// # Errors
///
/// `max_iterations` is 0, a `start` of another size, or an error of the solver.
pub fn fit_with(
    solver: &dyn Solver,
    problem: &Problem<'_>,
    start: Option<&Parameters>,
    max_iterations: usize,
) -> Result<Probe> {
    check_iterations(max_iterations)?;
    if let Some(start) = start {
        let weights = start.weights.len();
        if weights != problem.features().ncols() || !start.is_finite() {
            return Err(Error::usage(format!(
                "the start of a fit has {weights} weights; it must have one finite weight for each of the {} columns",
                problem.features().ncols()
            )));
        }
    }
    evaluated(solver, problem, solver.solve(problem, start, max_iterations)?)
}

/// Fits the samples of `problem` at each of `cs` with `solver`. The probes are in the order of `cs`.
///
/// # Errors
///
/// `max_iterations` is 0, a `C` out of range, or an error of the solver.
pub fn fit_path(solver: &dyn Solver, problem: &Problem<'_>, cs: &[f64], max_iterations: usize) -> Result<Vec<Probe>> {
    check_iterations(max_iterations)?;
    let solutions = solver.solve_path(problem, cs, max_iterations)?;
    cs.iter().zip(solutions).map(|(&c, solution)| evaluated(solver, &problem.with_c(c)?, solution)).collect()
}

/// The probe of a solution. Objective and gradient are computed here, independently of the solver.
fn evaluated(solver: &dyn Solver, problem: &Problem<'_>, solution: Solution) -> Result<Probe> {
    let Solution { parameters, iterations } = solution;
    let losses = Losses::new(&parameters.decisions(problem.features()).to_vec(), problem.labels());
    let objective = problem.penalized(&parameters, losses.sum);
    let gradient_norm = norm(&problem.gradient_from_residuals(&parameters, losses.residuals));
    if !(parameters.is_finite() && objective.is_finite() && gradient_norm.is_finite()) {
        return Err(Error::Numeric(format!(
            "the solver {} ended with a NaN or infinity on {} samples of {} features at C {}; standardize the features or lower C",
            solver.name(),
            problem.features().nrows(),
            problem.features().ncols(),
            problem.c()
        )));
    }
    let Parameters { weights, bias } = parameters;
    let converged = gradient_norm <= CONVERGED_GRADIENT_NORM;
    Ok(Probe { weights, bias, iterations, objective, gradient_norm, converged })
}

fn check_iterations(max_iterations: usize) -> Result<()> {
    if max_iterations == 0 {
        return Err(Error::usage("the probe needs at least 1 iteration; 60 to 100 are usual"));
    }
    Ok(())
}
