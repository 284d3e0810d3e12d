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
//! - its line search has no iteration limit, and a NaN in it never leaves: the search goes on for ever. A NaN comes up
//!   when two gradients in a row are equal to the last bit, which happens where steps drown in rounding (a tolerance
//!   below the noise) or where all losses saturate (a first trial far out).
//!
//! Hence: the tolerance never goes below the noise (`Scaling::tolerance`), features are scaled down when the first
//! trial would be far out (`Scaling::of`), the gradient is measured again on what comes back, and a start that did
//! not move is an error.

use linfa::traits::Fit;
use linfa::{DatasetBase, ParamGuard};
use linfa_logistic::LogisticRegression;
use ndarray::{Array1, ArrayView1, s};

use super::logistic::{CONVERGED_GRADIENT_NORM, Parameters, Problem, Solution, Solver};
use super::products::{sum_of_squares, times};
use crate::error::{Error, Result};

/// Norm of the *mean* gradient at which the iteration stops, if the noise allows it. Well below
/// [`CONVERGED_GRADIENT_NORM`], so that the noise of common shapes does not make a stopped fit look unconverged.
const STOPPING_GRADIENT_NORM: f64 = 1e-7;

/// A step must lower the sum of the losses by this many units of its rounding to be told from noise.
const ROUNDINGS_PER_STEP: f64 = 20.0;

/// The largest decision that the first trial of the line search may reach. The trial is the whole gradient; the curved
/// part of the losses lies within a few units of zero, so the search must shrink the step by about this factor, and
/// it stops shrinking at `1e-10`.
const LARGEST_FIRST_DECISION: f64 = 1e7;

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
        let scaling = Scaling::of(problem);
        let scaled_start = Parameters { weights: &start.weights / scaling.factor, bias: start.bias };
        let records = problem.features().mapv(|value| f64::from(value) * scaling.factor);
        let regression = LogisticRegression::default()
            .alpha(scaling.factor.powi(2) / problem.c())
            .max_iterations(max_iterations as u64)
            .gradient_tolerance(scaling.tolerance)
            .initial_params(linfa_parameters(&scaled_start, positive_class(problem.labels())))
            .check()
            .map_err(|error| failed(problem, &error.to_string()))?;
        let dataset = DatasetBase::new(records, ArrayView1::from(problem.labels()));
        let fitted = regression.fit(&dataset).map_err(|error| failed(problem, &error.to_string()))?;
        let sign = sign_of(fitted.labels().pos.class);
        let weights = fitted.params() * (sign * scaling.factor);
        let parameters = Parameters { weights, bias: fitted.intercept() * sign };
        let moved = problem.objective(&parameters) < problem.objective(start);
        let at_minimum = problem.gradient_norm(&parameters) <= CONVERGED_GRADIENT_NORM;
        if !(moved || at_minimum) {
            return Err(failed(problem, "the line search found no lower point in the first step"));
        }
        Ok(Solution { parameters, iterations: None })
    }
}

/// What the features are multiplied by before linfa sees them, and the tolerance that goes with it.
struct Scaling {
    factor: f64,
    /// For the norm of the gradient of the summed losses, by the scaled weights.
    tolerance: f64,
}

impl Scaling {
    /// No scaling in all but extreme shapes: the factor is 1 as long as the first trial
    /// stays within [`LARGEST_FIRST_DECISION`], else it makes the curvature along that trial the bias's own.
    fn of(problem: &Problem<'_>) -> Self {
        let samples = problem.labels().len() as f64;
        let (mean_gradient, _) = problem.gradient(&problem.featureless());
        let trial = times(problem.features(), &mean_gradient) * samples;
        let factor = if trial.iter().any(|decision| decision.abs() > LARGEST_FIRST_DECISION) {
            samples.powf(1.5) * mean_gradient.dot(&mean_gradient).sqrt() / trial.dot(&trial).sqrt()
        } else {
            1.0
        };
        Self { factor, tolerance: Self::tolerance(problem, factor) }
    }

    /// The stopping norm, raised to where a step still shows in the sum of the losses.
    ///
    /// Where the curvature is at most `k`, a gradient `g` promises a decrease of at least `g^2 / (2 k)`; the loss is at
    /// most `n ln 2` and known to `epsilon` of that. The curvature is at most a quarter of the squares of all features
    /// and of the bias's ones, plus the penalty's.
    fn tolerance(problem: &Problem<'_>, factor: f64) -> f64 {
        let samples = problem.labels().len() as f64;
        let squares = sum_of_squares(problem.features()) * factor.powi(2);
        let curvature = (squares + samples) / 4.0 + factor.powi(2) / problem.c();
        let rounding = f64::EPSILON * samples * std::f64::consts::LN_2;
        let noise = (2.0 * curvature * ROUNDINGS_PER_STEP * rounding).sqrt();
        noise.max(STOPPING_GRADIENT_NORM * samples * factor.min(1.0))
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

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use super::super::logistic::fit_with;
    use super::*;

    /// 60 samples of 4 features of about `size`, with labels that the first feature half tells.
    fn features(size: f64) -> (Array2<f32>, Vec<u8>) {
        let value = |i: usize, j: usize| (((i + 1) * (37 + 11 * j) * (j + 3)) % 101) as f64 / 50.0 - 1.0;
        let features = Array2::from_shape_fn((60, 4), |(i, j)| (size * value(i, j)) as f32);
        let labels = (0..60).map(|i| u8::from(value(i, 0) + 1.5 * value(i, 3) * value(i, 1) > 0.1)).collect();
        (features, labels)
    }

    #[test]
    fn features_of_a_common_size_are_not_scaled() {
        let (features, labels) = features(1.0);
        assert_eq!(Scaling::of(&Problem::new(features.view(), &labels, 1.0).unwrap()).factor, 1.0);
    }

    #[test]
    fn a_far_first_trial_is_scaled_down_and_the_minimum_is_the_same() {
        // A power of two, so that the large features are the small ones to the last bit.
        let size = 4096.0;
        let (small, labels) = features(1.0);
        let (large, _) = features(size);
        let small = Problem::new(small.view(), &labels, 1.0).unwrap();
        let large = Problem::new(large.view(), &labels, 1.0 / (size * size)).unwrap();
        assert!(Scaling::of(&large).factor < 0.1);
        let expected = fit_with(&LinfaSolver, &small, None, 1000).unwrap();
        let actual = fit_with(&LinfaSolver, &large, None, 1000).unwrap();
        assert!((actual.objective - expected.objective).abs() <= 1e-12);
        assert!((actual.bias - expected.bias).abs() <= 1e-5);
        for (a, b) in actual.weights.iter().zip(&expected.weights) {
            assert!((a * size - b).abs() <= 1e-5, "{} instead of {b}", a * size);
        }
    }

    #[test]
    fn the_positive_class_is_the_larger_one_and_else_the_first() {
        assert_eq!(positive_class(&[0, 1, 1]), 1);
        assert_eq!(positive_class(&[1, 0, 0]), 0);
        assert_eq!(positive_class(&[0, 1, 1, 0]), 0);
        assert_eq!(positive_class(&[1, 0, 1, 0]), 1);
    }
}
