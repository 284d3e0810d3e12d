//! The [`Solver`] based on `linfa-logistic`: L-BFGS with a More-Thuente line search, in f64.
//!
//! The behavior of that crate (0.8.1, with argmin 0.11) determines this code:
//!
//! - It minimizes the *sum* of the losses plus `alpha |w|^2 / 2`, without a penalty on the intercept. That is `n`
//!   times the objective of [`problem`](super::problem) if `alpha` is `1 / C`.
//! - Its positive class is the one with more samples (the class of the first sample if the counts are equal), so the
//!   sign of weights, intercept and start depends on the label counts.
//! - It stops if the norm of the gradient of that sum is below the tolerance, if the cost does not change by a bit,
//!   at the iteration limit, or silently if the line search fails. It then returns the best point found, which is the
//!   start if the first step has failed.
//! - Its line search has no iteration limit, and a NaN makes it run forever. A NaN occurs if two consecutive
//!   gradients are equal to the last bit: if steps are below the rounding error (a tolerance below the noise), or if
//!   all losses saturate (a large first trial).
//!
//! Therefore the tolerance is never below the noise (`FeatureScaling::tolerance`), features are scaled down if the
//! first trial would be large (`FeatureScaling::new`), the gradient of the result is computed again, and a result
//! equal to the start is an error.

use linfa::traits::Fit;
use linfa::{DatasetBase, ParamGuard};
use linfa_logistic::LogisticRegression;
use ndarray::{Array1, ArrayView1, s};

use super::gemv::{gemv, sum_of_squares};
use super::problem::{CONVERGED_GRADIENT_NORM, Parameters, Problem};
use super::solver::{Solution, Solver};
use crate::error::{Error, Result};

/// The norm of the *mean* gradient at which the iteration stops, unless the noise is higher. Well below
/// [`CONVERGED_GRADIENT_NORM`], so that noise does not make a finished fit look unconverged.
const STOPPING_GRADIENT_NORM: f64 = 1e-7;

/// A step must decrease the sum of the losses by this many rounding errors to be distinguishable from noise.
const ROUNDINGS_PER_STEP: f64 = 20.0;

/// The maximum decision in the first trial of the line search. The trial is the whole gradient. The losses are curved
/// only within a few units of zero, so the search must shrink the step by about this factor, and it stops shrinking
/// at `1e-10`.
const MAX_FIRST_DECISION: f64 = 1e7;

/// Logistic regression by `linfa-logistic`, which does not report its number of iterations.
#[derive(Clone, Copy, Debug, Default)]
pub struct LinfaSolver;

impl Solver for LinfaSolver {
    fn name(&self) -> &'static str {
        "linfa"
    }

    fn solve(&self, problem: &Problem<'_>, start: Option<&Parameters>, max_iterations: usize) -> Result<Solution> {
        let featureless = problem.featureless();
        let start = start.unwrap_or(&featureless);
        let scaling = FeatureScaling::new(problem);
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
        let sign = class_sign(fitted.labels().pos.class);
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

/// The factor that the features are multiplied by for linfa, and the tolerance for the scaled problem.
struct FeatureScaling {
    factor: f64,
    /// For the norm of the gradient of the summed losses with respect to the scaled weights.
    tolerance: f64,
}

impl FeatureScaling {
    /// The factor is 1 if the first trial is within [`MAX_FIRST_DECISION`], which holds for all but extreme shapes.
    /// Otherwise it makes the curvature along that trial equal to the curvature of the bias.
    fn new(problem: &Problem<'_>) -> Self {
        let samples = problem.labels().len() as f64;
        let (mean_gradient, _) = problem.gradient(&problem.featureless());
        let trial = gemv(problem.features(), &mean_gradient) * samples;
        let factor = if trial.iter().any(|decision| decision.abs() > MAX_FIRST_DECISION) {
            samples.powf(1.5) * mean_gradient.dot(&mean_gradient).sqrt() / trial.dot(&trial).sqrt()
        } else {
            1.0
        };
        Self { factor, tolerance: Self::tolerance(problem, factor) }
    }

    /// The stopping norm, raised to the level at which a step is visible in the sum of the losses.
    ///
    /// With a curvature of at most `k`, a gradient `g` promises a decrease of at least `g^2 / (2 k)`. The loss is at
    /// most `n ln 2`, with a relative error of `epsilon`. The curvature is at most a quarter of the sum of the
    /// squares of all features and of the ones of the bias, plus the curvature of the penalty.
    fn tolerance(problem: &Problem<'_>, factor: f64) -> f64 {
        let samples = problem.labels().len() as f64;
        let squares = sum_of_squares(problem.features()) * factor.powi(2);
        let curvature = (squares + samples) / 4.0 + factor.powi(2) / problem.c();
        let rounding = f64::EPSILON * samples * std::f64::consts::LN_2;
        let noise = (2.0 * curvature * ROUNDINGS_PER_STEP * rounding).sqrt();
        noise.max(STOPPING_GRADIENT_NORM * samples * factor.min(1.0))
    }
}

/// The label that linfa uses as its positive class.
fn positive_class(labels: &[u8]) -> u8 {
    let ones = labels.iter().filter(|&&label| label == 1).count();
    match (2 * ones).cmp(&labels.len()) {
        std::cmp::Ordering::Greater => 1,
        std::cmp::Ordering::Less => 0,
        std::cmp::Ordering::Equal => labels.first().copied().unwrap_or(1),
    }
}

/// The sign between linfa's weights and the weights for label 1.
fn class_sign(positive_class: u8) -> f64 {
    if positive_class == 1 { 1.0 } else { -1.0 }
}

/// linfa's parameter vector `[h + 1]`: the weights, then the intercept.
fn linfa_parameters(parameters: &Parameters, positive_class: u8) -> Array1<f64> {
    let columns = parameters.weights.len();
    let mut vector = Array1::zeros(columns + 1);
    vector.slice_mut(s![..columns]).assign(&parameters.weights);
    vector[columns] = parameters.bias;
    vector * class_sign(positive_class)
}

fn failed(problem: &Problem<'_>, why: &str) -> Error {
    Error::Numeric(format!(
        "the logistic regression failed on {} samples of {} features at C {}: {why}; standardize the features or choose another C",
        problem.features().nrows(),
        problem.features().ncols(),
        problem.c()
    ))
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use super::super::fit::fit_with;
    use super::*;

    /// 60 samples of 4 features of magnitude `size`, with labels that the first feature predicts in part.
    fn features(size: f64) -> (Array2<f32>, Vec<u8>) {
        let value = |i: usize, j: usize| (((i + 1) * (37 + 11 * j) * (j + 3)) % 101) as f64 / 50.0 - 1.0;
        let features = Array2::from_shape_fn((60, 4), |(i, j)| (size * value(i, j)) as f32);
        let labels = (0..60).map(|i| u8::from(value(i, 0) + 1.5 * value(i, 3) * value(i, 1) > 0.1)).collect();
        (features, labels)
    }

    #[test]
    fn ordinary_features_are_not_scaled() {
        let (features, labels) = features(1.0);
        assert_eq!(FeatureScaling::new(&Problem::new(features.view(), &labels, 1.0).unwrap()).factor, 1.0);
    }

    #[test]
    fn scaled_features_give_same_minimum() {
        // A power of two, so that scaling is exact.
        let size = 4096.0;
        let (small, labels) = features(1.0);
        let (large, _) = features(size);
        let small = Problem::new(small.view(), &labels, 1.0).unwrap();
        let large = Problem::new(large.view(), &labels, 1.0 / (size * size)).unwrap();
        assert!(FeatureScaling::new(&large).factor < 0.1);
        let expected = fit_with(&LinfaSolver, &small, None, 1000).unwrap();
        let actual = fit_with(&LinfaSolver, &large, None, 1000).unwrap();
        assert!((actual.objective - expected.objective).abs() <= 1e-12);
        assert!((actual.bias - expected.bias).abs() <= 1e-5);
        for (a, b) in actual.weights.iter().zip(&expected.weights) {
            assert!((a * size - b).abs() <= 1e-5, "{} instead of {b}", a * size);
        }
    }

    #[test]
    fn positive_class_is_larger_or_first_one() {
        assert_eq!(positive_class(&[0, 1, 1]), 1);
        assert_eq!(positive_class(&[1, 0, 0]), 0);
        assert_eq!(positive_class(&[0, 1, 1, 0]), 0);
        assert_eq!(positive_class(&[1, 0, 1, 0]), 1);
    }
}
