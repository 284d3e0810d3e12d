//! The dual form: the Newton step by the Gram matrix of the samples, for fewer samples than features.
//!
//! The minimum is in the span of the samples (representer theorem: Kimeldorf and Wahba, 1971), so `w = X^T u` with
//! one coefficient per sample. The features only occur in `K = X X^T` `[n, n]`, which is computed once for all `C`.
//! With the curvatures `D = diag(d)` of the losses, residuals `r` and `v = r + u / C`, the derivative with respect to
//! the weights is `X^T v`, and the step of `u` and `b` solves
//!
//! ```text
//! (I + C D K) du = -C (v + d db),     sum(u + du) = 0,
//! ```
//!
//! where the second line is the stationarity of the bias. With `S = D^(1/2)`, all solutions use the symmetric
//! `B = I + C S K S`, whose eigenvalues are at least 1: `(I + C D K)^-1 v = v - C S B^-1 S K v` and
//! `(I + C D K)^-1 d = S B^-1 S 1` (Rasmussen and Williams, "Gaussian Processes for Machine Learning", section 3.4).
//!
//! `K` and the factor of `B` can have single precision ([`FactorFloat`]). The steps are then slightly inexact, and so
//! are the accumulated decisions. Therefore the iteration ends only after [`Iterate::exact`] has recomputed them.

use ndarray::{Array1, ArrayView1, ArrayView2};

use super::super::dense::{CholeskyFactor, FactorFloat, SymmetricMatrix};
use super::super::gemv::{gemv, gemv_transposed, sum_of_squares};
use super::system::{Iterate, NewtonStep, NewtonSystem, ObjectiveGradient, SearchDirection};

/// The ridge of a projection onto the span of the samples, relative to the mean eigenvalue of `K`.
const PROJECTION_RIDGE: f64 = 1e-11;

/// The dual form of one layer's training samples.
pub(super) struct DualSystem<'a, T: FactorFloat> {
    features: ArrayView2<'a, f32>,
    /// `K`.
    gram: SymmetricMatrix<T>,
}

impl<'a, T: FactorFloat> DualSystem<'a, T> {
    /// Computes `K` of `features` `[n, h]`.
    pub(super) fn new(features: ArrayView2<'a, f32>) -> Self {
        Self { features, gram: SymmetricMatrix::gram_of_rows(features) }
    }
}

/// The factorized `B`.
pub(super) struct DualModel<T: FactorFloat> {
    c: f64,
    /// The diagonal of `S`.
    root: Array1<f64>,
    /// `(I + C D K)^-1 d`.
    bias_response: Array1<f64>,
    factor: CholeskyFactor<T>,
}

impl<T: FactorFloat> NewtonSystem for DualSystem<'_, T> {
    type Model = DualModel<T>;

    const KEEPS_MODELS: bool = true;

    const ROUNDING: f64 = T::EPSILON;

    fn dimension(&self) -> usize {
        self.features.nrows()
    }

    fn gradient(&self, iterate: &Iterate, residual: &[f64], c: f64) -> ObjectiveGradient {
        let residual = ArrayView1::from(residual);
        let by_point = &residual + &(&iterate.point / c);
        // Computed from v and not from its parts: near the minimum their rounding errors would exceed the gradient.
        let gram_image = self.gram.multiply(&by_point);
        ObjectiveGradient { by_point, gram_image, by_bias: residual.sum() }
    }

    fn model(&self, curvature: Array1<f64>, c: f64, spent: Option<DualModel<T>>) -> DualModel<T> {
        let root = curvature.mapv(f64::sqrt);
        let factor = self.gram.scaled_and_shifted(&(&root * c.sqrt()), 1.0, spent.map(|spent| spent.factor));
        let bias_response = factor.solve(&root) * &root;
        DualModel { c, root, bias_response, factor }
    }

    fn solve(&self, model: &DualModel<T>, gradient: &ObjectiveGradient, _: f64) -> SearchDirection {
        let DualModel { c, root, bias_response, factor } = model;
        let mut point = gradient.by_point.clone();
        point.scaled_add(-c, &(factor.solve(&(root * &gradient.gram_image)) * root));
        // Stationarity of the bias, with sum(u) / C = sum(v) - sum(r).
        let bias = ((gradient.by_point.sum() - gradient.by_bias) - point.sum()) / bias_response.sum();
        point.scaled_add(bias, bias_response);
        point *= *c;
        SearchDirection { gram_image: self.gram.multiply(&point), point, bias: -bias }
    }

    fn pairing(&self, direction: &SearchDirection, gradient: &ObjectiveGradient) -> f64 {
        direction.gram_image.dot(&gradient.by_point) + direction.bias * gradient.by_bias
    }

    fn norm(&self, gradient: &ObjectiveGradient) -> f64 {
        (gradient.by_point.dot(&gradient.gram_image).max(0.0) + gradient.by_bias * gradient.by_bias).sqrt()
    }

    fn step(&self, iterate: &Iterate, direction: SearchDirection) -> NewtonStep {
        NewtonStep {
            weights_by_change: iterate.point.dot(&direction.gram_image),
            squared_norm: direction.point.dot(&direction.gram_image).max(0.0),
            decisions: &direction.gram_image + direction.bias,
            direction,
        }
    }

    fn point_from_weights(&self, weights: &Array1<f64>) -> Array1<f64> {
        let gram = SymmetricMatrix::<f64>::gram_of_rows(self.features);
        let squares = sum_of_squares(self.features);
        let ridge = (PROJECTION_RIDGE * squares / self.dimension() as f64).max(f64::MIN_POSITIVE);
        gram.shifted(ridge, None).solve(&self.image(weights))
    }

    fn weights(&self, point: &Array1<f64>) -> Array1<f64> {
        gemv_transposed(self.features, &point.to_vec())
    }

    fn image(&self, weights: &Array1<f64>) -> Array1<f64> {
        gemv(self.features, weights)
    }
}
