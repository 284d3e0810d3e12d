//! The probe: a logistic regression with a squared penalty, its objective, and the interface of what minimises it.
//!
//! The objective is a mean, so that it reads the same at any sample count:
//!
//! ```text
//! J(w, b) = 1/n sum_i [ softplus(z_i) - y_i z_i ]  +  |w|^2 / (2 C n),     z_i = x_i . w + b
//! ```
//!
//! Times `C n` this is scikit-learn's `C sum log-loss + |w|^2 / 2`, so `C` means what it means there; the bias is not
//! penalised. With both classes present and `C` finite it is strictly convex in `w` and has one minimum, hence any
//! two solvers that converge agree.

use ndarray::{Array1, ArrayView2};

use super::auroc::count_classes;
use super::losses::Losses;
use super::newton::NewtonSolver;
use super::products::{all_within, times, transposed_times};
use super::standardise::not_finite;
use crate::error::{Error, Result};

/// A mean gradient of this Euclidean norm or less counts as converged: on standardised features the weights are then
/// right to about four digits, far below what moves an AUROC.
pub const CONVERGED_GRADIENT_NORM: f64 = 1e-5;

/// The range of `C`. Within it f64 resolves the loss and the penalty beside each other; scikit-learn's own search
/// grid is 1e-4 to 1e4.
pub const C_RANGE: std::ops::RangeInclusive<f64> = 1e-8..=1e8;

/// No feature may be larger. Standardised training features of `n` samples are at most `sqrt(n)`, so this is met by
/// whatever was standardised, and it keeps solvers out of the region where every loss saturates.
pub const LARGEST_FEATURE: f32 = 1e4;

/// What is minimised: features `[n, h]`, labels `[n]` and `C`, checked when it is made.
#[derive(Clone, Copy, Debug)]
pub struct Problem<'a> {
    features: ArrayView2<'a, f32>,
    labels: &'a [u8],
    c: f64,
}

impl<'a> Problem<'a> {
    /// Checks and takes the parts; `features` should be standardised.
    ///
    /// # Errors
    ///
    /// `C` outside [`C_RANGE`], lengths that differ, a label other than 0 and 1, labels of one class only, or a feature
    /// that is not finite or above [`LARGEST_FEATURE`] (the message names its sample and column).
    pub fn new(features: ArrayView2<'a, f32>, labels: &'a [u8], c: f64) -> Result<Self> {
        check_c(c)?;
        if features.nrows() != labels.len() {
            return Err(Error::input(
                "training features",
                format!("{} samples, but {} labels", features.nrows(), labels.len()),
            ));
        }
        count_classes("training labels", labels)?;
        if features.ncols() == 0 {
            return Err(Error::input("training features", "no column, so there is nothing to train on"));
        }
        if !all_within(features, LARGEST_FEATURE) {
            return Err(
                match features.indexed_iter().find(|(_, value)| value.is_finite() && value.abs() > LARGEST_FEATURE) {
                    Some(((sample, column), value)) if features.iter().all(|value| value.is_finite()) => Error::input(
                        "training features",
                        format!(
                            "sample {sample}, column {column} is {value:e}, too large for a standardised feature; standardise first"
                        ),
                    ),
                    _ => not_finite("training features", features),
                },
            );
        }
        Ok(Self { features, labels, c })
    }

    /// The features, `[n, h]`.
    pub fn features(&self) -> ArrayView2<'a, f32> {
        self.features
    }

    /// The labels, `[n]`, each 0 or 1.
    pub fn labels(&self) -> &'a [u8] {
        self.labels
    }

    /// The inverse strength of the penalty.
    pub fn c(&self) -> f64 {
        self.c
    }

    /// The same samples with another `C`.
    ///
    /// # Errors
    ///
    /// `C` out of range.
    pub fn with_c(&self, c: f64) -> Result<Self> {
        check_c(c)?;
        Ok(Self { c, ..*self })
    }

    /// Zero weights with the log-odds of the classes as the bias: the best that a probe can do without its features,
    /// and where solvers start.
    pub fn featureless(&self) -> Parameters {
        let positives = self.labels.iter().filter(|&&label| label == 1).count() as f64;
        let negatives = self.labels.len() as f64 - positives;
        Parameters { weights: Array1::zeros(self.features.ncols()), bias: (positives / negatives).ln() }
    }

    /// `J(w, b)` as in the head of this file.
    pub fn objective(&self, parameters: &Parameters) -> f64 {
        self.objective_of(parameters, &parameters.decide(self.features))
    }

    fn objective_of(&self, parameters: &Parameters, decisions: &Array1<f64>) -> f64 {
        self.penalised(parameters, Losses::of(&decisions.to_vec(), self.labels).sum)
    }

    fn penalised(&self, parameters: &Parameters, loss: f64) -> f64 {
        let n = self.labels.len() as f64;
        loss / n + parameters.weights.dot(&parameters.weights) / (2.0 * self.c * n)
    }

    /// The gradient of `J`: by the weights `[h]`, and by the bias.
    pub fn gradient(&self, parameters: &Parameters) -> (Array1<f64>, f64) {
        self.gradient_of(parameters, Losses::of(&parameters.decide(self.features).to_vec(), self.labels).residuals)
    }

    fn gradient_of(&self, parameters: &Parameters, residuals: Vec<f64>) -> (Array1<f64>, f64) {
        let n = self.labels.len() as f64;
        let mut by_weights = transposed_times(self.features, &residuals);
        by_weights.scaled_add(1.0 / self.c, &parameters.weights);
        (by_weights / n, residuals.iter().sum::<f64>() / n)
    }

    /// Euclidean norm of [`Problem::gradient`], weights and bias together.
    pub fn gradient_norm(&self, parameters: &Parameters) -> f64 {
        norm(&self.gradient(parameters))
    }
}

/// Weights `[h]` and bias: the unknowns of a [`Problem`].
#[derive(Clone, Debug, PartialEq)]
pub struct Parameters {
    /// One weight a feature.
    pub weights: Array1<f64>,
    /// The unpenalised constant.
    pub bias: f64,
}

impl Parameters {
    /// `x . w + b` of each row; the caller has checked the number of columns.
    fn decide(&self, features: ArrayView2<'_, f32>) -> Array1<f64> {
        times(features, &self.weights) + self.bias
    }

    /// Whether every number is finite.
    pub fn is_finite(&self) -> bool {
        self.bias.is_finite() && self.weights.iter().all(|weight| weight.is_finite())
    }
}

/// What a [`Solver`] found.
#[derive(Clone, Debug)]
pub struct Solution {
    /// The best point seen; finite.
    pub parameters: Parameters,
    /// Iterations spent, where the solver tells.
    pub iterations: Option<usize>,
}

/// Something that minimises a [`Problem`].
///
/// `Sync`, and without state of its own, so that layers can be fitted side by side; `start` takes the solution of a
/// neighbouring `C`, from which a path of several is shorter than each from zero.
pub trait Solver: Sync {
    /// A short name for reports.
    fn name(&self) -> &'static str;

    /// Minimises `problem` in at most `max_iterations` (one or more) iterations from `start`, or from
    /// [`Problem::featureless`].
    ///
    /// Running out of iterations is no error: the best point so far is the answer.
    ///
    /// # Errors
    ///
    /// [`Error::Numeric`] where no usable point was found, [`Error::Usage`] for a `start` of another size.
    fn solve(&self, problem: &Problem<'_>, start: Option<&Parameters>, max_iterations: usize) -> Result<Solution>;

    /// Minimises the samples of `problem` at each of `cs`, in their order, each in at most `max_iterations`; the `C` of
    /// `problem` plays no part. Each from [`Problem::featureless`] unless the solver knows better.
    ///
    /// # Errors
    ///
    /// As [`Solver::solve`], and a `C` out of range.
    fn solve_path(&self, problem: &Problem<'_>, cs: &[f64], max_iterations: usize) -> Result<Vec<Solution>> {
        cs.iter().map(|&c| self.solve(&problem.with_c(c)?, None, max_iterations)).collect()
    }
}

/// A fitted probe.
#[derive(Clone, Debug)]
pub struct Probe {
    /// One weight a (standardised) feature, `[h]`.
    pub weights: Array1<f64>,
    /// The constant.
    pub bias: f64,
    /// Iterations spent, where the solver tells.
    pub iterations: Option<usize>,
    /// The objective reached (mean loss plus penalty).
    pub objective: f64,
    /// Euclidean norm of the objective's gradient there.
    pub gradient_norm: f64,
    /// Whether that norm is at most [`CONVERGED_GRADIENT_NORM`]; if not, more iterations would have moved it.
    pub converged: bool,
}

impl Probe {
    /// `x . w + b` for each row of `features` `[n, h]`: positive where label 1 is the likelier.
    ///
    /// # Errors
    ///
    /// Another number of columns than the probe has weights.
    pub fn decision_function(&self, features: ArrayView2<'_, f32>) -> Result<Array1<f64>> {
        if features.ncols() != self.weights.len() {
            return Err(Error::input(
                "features",
                format!("{} columns, but the probe has {} weights", features.ncols(), self.weights.len()),
            ));
        }
        Ok(times(features, &self.weights) + self.bias)
    }

    /// The weights and the bias, as a start for the next fit.
    pub fn parameters(&self) -> Parameters {
        Parameters { weights: self.weights.clone(), bias: self.bias }
    }
}

/// Fits with the default solver from zero: see [`Problem`] for the arguments and [`fit_with`] for the errors.
pub fn fit(features: ArrayView2<'_, f32>, labels: &[u8], c: f64, max_iterations: usize) -> Result<Probe> {
    fit_with(&NewtonSolver, &Problem::new(features.reborrow(), labels, c)?, None, max_iterations)
}

/// Fits `problem` with `solver` from `start`.
///
/// # Errors
///
/// `max_iterations` 0, or what the solver says.
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
    probe_of(solver, problem, solver.solve(problem, start, max_iterations)?)
}

/// Fits the samples of `problem` at each of `cs` with `solver`, and gives the probes in the order of `cs`.
///
/// # Errors
///
/// `max_iterations` 0, a `C` out of range, or what the solver says.
pub fn fit_path(solver: &dyn Solver, problem: &Problem<'_>, cs: &[f64], max_iterations: usize) -> Result<Vec<Probe>> {
    check_iterations(max_iterations)?;
    let solutions = solver.solve_path(problem, cs, max_iterations)?;
    cs.iter().zip(solutions).map(|(&c, solution)| probe_of(solver, &problem.with_c(c)?, solution)).collect()
}

/// The probe of a solution, measured by the objective itself and not by what the solver thinks of it.
fn probe_of(solver: &dyn Solver, problem: &Problem<'_>, solution: Solution) -> Result<Probe> {
    let Solution { parameters, iterations } = solution;
    let losses = Losses::of(&parameters.decide(problem.features()).to_vec(), problem.labels());
    let objective = problem.penalised(&parameters, losses.sum);
    let gradient_norm = norm(&problem.gradient_of(&parameters, losses.residuals));
    if !(parameters.is_finite() && objective.is_finite() && gradient_norm.is_finite()) {
        return Err(Error::Numeric(format!(
            "the solver {} ended with a NaN or infinity on {} samples of {} features at C {}; standardise the features or lower C",
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

fn check_c(c: f64) -> Result<()> {
    if C_RANGE.contains(&c) {
        return Ok(());
    }
    Err(Error::usage(format!(
        "C is {c}; it must lie between {:e} and {:e} (a larger C penalises less)",
        C_RANGE.start(),
        C_RANGE.end()
    )))
}

fn check_iterations(max_iterations: usize) -> Result<()> {
    if max_iterations == 0 {
        return Err(Error::usage("the probe needs at least 1 iteration; 60 to 100 are usual"));
    }
    Ok(())
}

/// Euclidean norm of a gradient by weights and by bias.
fn norm((by_weights, by_bias): &(Array1<f64>, f64)) -> f64 {
    (by_weights.dot(by_weights) + by_bias * by_bias).sqrt()
}
