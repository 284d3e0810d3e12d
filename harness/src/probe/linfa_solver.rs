//! The [`Solver`] that stands on `linfa-logistic`: L-BFGS with a More-Thuente line search, in f64.
//!
//! What that crate (0.8.1, on argmin 0.11) does decides what is done here:
//!
//! - it minimises the *sum* of the losses plus `alpha |w|^2 / 2`, without penalising the intercept. That is `n` times
//!   our objective when `alpha` is `1 / C`;
//! - it calls the class with more samples positive (on equal counts the class of the first sample), so that weights,
//!   intercept and a start change sign with the label counts;
//! - it stops when the gradient of that sum has a norm below the tolerance, when the cost stays the same to the last
//!   bit, at the iteration limit, or, without saying so, when the line search fails. It then returns the best point
//!   seen, which after a failure in the first step is the start;
//! - its line search has no iteration limit of its own and never ends once a NaN got in, which takes features so
//!   large that all losses saturate. [`Problem::new`] keeps such features and extreme `C` out.
//!
//! Hence the gradient is measured again on what comes back, and a start that did not move is an error.

use linfa::traits::Fit;
use linfa::{DatasetBase, ParamGuard};
use linfa_logistic::LogisticRegression;
use ndarray::{Array1, ArrayView1, s};

use super::logistic::{CONVERGED_GRADIENT_NORM, Parameters, Problem, Solution, Solver};
use crate::error::{Error, Result};

/// Norm of the *mean* gradient at which the iteration stops. Below [`CONVERGED_GRADIENT_NORM`], so that rounding
/// between linfa's gradient and ours cannot make a stopped fit look unconverged; far above f64's noise, where the
/// line search fails.
const STOPPING_GRADIENT_NORM: f64 = 1e-7;

/// Logistic regression by `linfa-logistic`. It does not tell how many iterations it took.
#[derive(Clone, Copy, Debug, Default)]
pub struct LinfaSolver;

impl Solver for LinfaSolver {
    fn name(&self) -> &'static str {
        "linfa"
    }

    fn solve(&self, problem: &Problem<'_>, start: Option<&Parameters>, max_iterations: usize) -> Result<Solution> {
        let featureless = problem.featureless();
        let start = start.unwrap_or(&featureless);
        let regression = LogisticRegression::default()
            .alpha(1.0 / problem.c())
            .max_iterations(max_iterations as u64)
            .gradient_tolerance(STOPPING_GRADIENT_NORM * problem.labels().len() as f64)
            .initial_params(linfa_parameters(start, positive_class(problem.labels())))
            .check()
            .map_err(|error| failed(problem, &error.to_string()))?;
        let dataset = DatasetBase::new(problem.features(), ArrayView1::from(problem.labels()));
        let fitted = regression.fit(&dataset).map_err(|error| failed(problem, &error.to_string()))?;
        let sign = sign_of(fitted.labels().pos.class);
        let parameters = Parameters { weights: fitted.params() * sign, bias: fitted.intercept() * sign };
        let moved = problem.objective(&parameters) < problem.objective(start);
        if !moved && !(problem.gradient_norm(&parameters) <= CONVERGED_GRADIENT_NORM) {
            return Err(failed(problem, "the line search found no lower point in the first step"));
        }
        Ok(Solution { parameters, iterations: None })
    }
}

/// The label that linfa takes for its positive class.
fn positive_class(labels: &[u8]) -> u8 {
    let ones = labels.iter().filter(|&&label| label == 1).count();
    match (2 * ones).cmp(&labels.len()) {
        std::cmp::Ordering::Greater => 1,
        std::cmp::Ordering::Less => 0,
        std::cmp::Ordering::Equal => labels.first().copied().unwrap_or(1),
    }
}

/// The factor between linfa's weights and those for label 1.
fn sign_of(positive_class: u8) -> f64 {
    if positive_class == 1 { 1.0 } else { -1.0 }
}

/// linfa's parameter vector `[h + 1]`: the weights, then the intercept.
fn linfa_parameters(parameters: &Parameters, positive_class: u8) -> Array1<f64> {
    let columns = parameters.weights.len();
    let mut vector = Array1::zeros(columns + 1);
    vector.slice_mut(s![..columns]).assign(&parameters.weights);
    vector[columns] = parameters.bias;
    vector * sign_of(positive_class)
}

fn failed(problem: &Problem<'_>, why: &str) -> Error {
    Error::Numeric(format!(
        "the logistic regression failed on {} samples of {} features at C {}: {why}; standardise the features or choose another C",
        problem.features().nrows(),
        problem.features().ncols(),
        problem.c()
    ))
}
