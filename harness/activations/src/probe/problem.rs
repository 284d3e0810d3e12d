//! The optimization problem of a probe: logistic regression with a squared penalty.
//!
//! The objective is a mean over the samples, so its value does not depend on the sample count:
//!
//! ```text
//! J(w, b) = 1/n sum_i [ softplus(z_i) - y_i z_i ]  +  |w|^2 / (2 C n),     z_i = x_i . w + b
//! ```
//!
//! `C n J` is scikit-learn's `C sum log-loss + |w|^2 / 2`, so `C` has the same meaning; the bias is not penalized.
//! With both classes present and a finite `C`, the objective is strictly convex in `w` and has one minimum, so all
//! solvers that converge agree.

use ndarray::{Array1, ArrayView2};

use super::auroc::count_classes;
use super::gemv::{all_within, gemv, gemv_transposed};
use super::losses::Losses;
use super::standardize::not_finite;
use crate::error::{Error, Result};

/// A probe has converged if the Euclidean norm of the mean gradient is at most this. On standardized features the
/// weights then have about four correct digits, far more than the AUROC is sensitive to.
pub const CONVERGED_GRADIENT_NORM: f64 = 1e-5;

/// The range of `C`. Within it, `f64` resolves both the loss and the penalty. The search grid of scikit-learn is 1e-4
/// to 1e4.
pub const C_RANGE: std::ops::RangeInclusive<f64> = 1e-8..=1e8;

/// The maximum absolute value of a feature. Standardized training features of `n` samples are at most `sqrt(n)`, so
/// they are always below; larger values would saturate every loss.
pub const MAX_FEATURE: f32 = 1e4;

/// A validated problem: features `[n, h]`, labels `[n]` and `C`.
#[derive(Clone, Copy, Debug)]
pub struct Problem<'a> {
    features: ArrayView2<'a, f32>,
    labels: &'a [u8],
    c: f64,
}

impl<'a> Problem<'a> {
    /// Validates the parts; `features` should be standardized.
    ///
    /// # Errors
    ///
    /// `C` outside [`C_RANGE`], different lengths, a label other than 0 and 1, labels of one class only, or a feature
    /// that is not finite or above [`MAX_FEATURE`] (the message names its sample and column).
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
            return Err(Error::input("training features", "no columns to train on"));
        }
        if !all_within(features, MAX_FEATURE) {
            return Err(
                match features.indexed_iter().find(|(_, value)| value.is_finite() && value.abs() > MAX_FEATURE) {
                    Some(((sample, column), value)) if features.iter().all(|value| value.is_finite()) => Error::input(
                        "training features",
                        format!(
                            "sample {sample}, column {column} is {value:e}, too large for a standardized feature; standardize first"
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

    /// Zero weights, with the log-odds of the classes as the bias: the best probe without features, and the initial
    /// point of solvers.
    pub fn featureless(&self) -> Parameters {
        let positives = self.labels.iter().filter(|&&label| label == 1).count() as f64;
        let negatives = self.labels.len() as f64 - positives;
        Parameters { weights: Array1::zeros(self.features.ncols()), bias: (positives / negatives).ln() }
    }

    /// The objective `J(w, b)` of the module documentation.
    pub fn objective(&self, parameters: &Parameters) -> f64 {
        let decisions = parameters.decisions(self.features);
        self.penalized(parameters, Losses::new(&decisions.to_vec(), self.labels).sum)
    }

    /// The objective, given the sum of the losses at `parameters`.
    pub(super) fn penalized(&self, parameters: &Parameters, loss: f64) -> f64 {
        let n = self.labels.len() as f64;
        loss / n + parameters.weights.dot(&parameters.weights) / (2.0 * self.c * n)
    }

    /// The gradient of `J` with respect to the weights `[h]` and to the bias.
    pub fn gradient(&self, parameters: &Parameters) -> (Array1<f64>, f64) {
        let decisions = parameters.decisions(self.features);
        self.gradient_from_residuals(parameters, Losses::new(&decisions.to_vec(), self.labels).residuals)
    }

    /// The gradient, given the residuals `[n]` at `parameters`.
    pub(super) fn gradient_from_residuals(&self, parameters: &Parameters, residuals: Vec<f64>) -> (Array1<f64>, f64) {
        let n = self.labels.len() as f64;
        let mut weight_gradient = gemv_transposed(self.features, &residuals);
        weight_gradient.scaled_add(1.0 / self.c, &parameters.weights);
        (weight_gradient / n, residuals.iter().sum::<f64>() / n)
    }

    /// The Euclidean norm of [`Problem::gradient`], weights and bias together.
    pub fn gradient_norm(&self, parameters: &Parameters) -> f64 {
        norm(&self.gradient(parameters))
    }
}

/// The unknowns of a [`Problem`].
#[derive(Clone, Debug, PartialEq)]
pub struct Parameters {
    /// One weight per feature, `[h]`.
    pub weights: Array1<f64>,
    /// The bias, which is not penalized.
    pub bias: f64,
}

impl Parameters {
    /// `x . w + b` of each row; the caller has checked the number of columns.
    pub(super) fn decisions(&self, features: ArrayView2<'_, f32>) -> Array1<f64> {
        gemv(features, &self.weights) + self.bias
    }

    /// Whether all numbers are finite.
    pub fn is_finite(&self) -> bool {
        self.bias.is_finite() && self.weights.iter().all(|weight| weight.is_finite())
    }
}

fn check_c(c: f64) -> Result<()> {
    if C_RANGE.contains(&c) {
        return Ok(());
    }
    Err(Error::usage(format!(
        "C is {c}; it must be between {:e} and {:e} (a larger C penalizes less)",
        C_RANGE.start(),
        C_RANGE.end()
    )))
}

/// The Euclidean norm of a gradient with respect to weights and bias.
pub(super) fn norm((weight_gradient, bias_gradient): &(Array1<f64>, f64)) -> f64 {
    (weight_gradient.dot(weight_gradient) + bias_gradient * bias_gradient).sqrt()
}
