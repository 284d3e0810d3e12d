//! Newton's step through the samples' inner products, for fewer samples than features.
//!
//! The minimum lies in the span of the samples (the representer theorem: Kimeldorf and Wahba, 1971), so `w = X^T u` with
//! one coefficient a sample, and features come in through `K = X X^T` `[n, n]` alone, once for all `C`. With the losses'
//! curvatures `D = diag(d)`, residuals `r` and `v = r + u / C`, the derivative by the weights is `X^T v`, and the step of
//! `u` and `b` solves
//!
//! ```text
//! (I + C D K) du = -C (v + d db),     sum(u + du) = 0,
//! ```
//!
//! where the second line is the stationarity of the bias. With `S = D^(1/2)` all solutions go through the symmetric
//! `B = I + C S K S`, whose eigenvalues are at least 1: `(I + C D K)^-1 v = v - C S B^-1 S K v` and
//! `(I + C D K)^-1 d = S B^-1 S 1` (Rasmussen and Williams, "Gaussian Processes for Machine Learning", section 3.4).
//!
//! `K` and the factor of `B` may be of single precision ([`Real`]): the steps are then a little off, and so are the
//! decisions that they add up to, which is why the iteration ends only where [`Iterate::at`] has computed them anew.

use ndarray::{Array1, ArrayView1, ArrayView2};

use super::super::dense::{Factor, Real, Symmetric};
use super::super::products::{sum_of_squares, times, transposed_times};
use super::system::{Direction, Gradient, Iterate, Step, System};

/// The ridge of a projection on the span of the samples, beside the mean of `K`'s eigenvalues.
const PROJECTION_RIDGE: f64 = 1e-11;

/// A layer's training samples by their inner products.
pub(super) struct DualSystem<'a, T: Real> {
    features: ArrayView2<'a, f32>,
    /// `K`.
    inner_products: Symmetric<T>,
}

impl<'a, T: Real> DualSystem<'a, T> {
    /// Computes `K` of `features` `[n, h]`.
    pub(super) fn new(features: ArrayView2<'a, f32>) -> Self {
        Self { features, inner_products: Symmetric::of_rows(features) }
    }
}

/// `B` factorised.
pub(super) struct DualModel<T: Real> {
    c: f64,
    /// The diagonal of `S`.
    root: Array1<f64>,
    /// `(I + C D K)^-1 d`.
    of_bias: Array1<f64>,
    factor: Factor<T>,
}

impl<T: Real> System for DualSystem<'_, T> {
    type Model = DualModel<T>;

    const KEEPS_MODELS: bool = true;

    const ROUNDING: f64 = T::EPSILON;

    fn dimension(&self) -> usize {
        self.features.nrows()
    }

    fn gradient(&self, iterate: &Iterate, residual: &[f64], c: f64) -> Gradient {
        let residual = ArrayView1::from(residual);
        let by_point = &residual + &(&iterate.point / c);
        // Of v itself and not of its parts, whose rounding would outlast the gradient.
        let product = self.inner_products.times(&by_point);
        Gradient { by_point, product, by_bias: residual.sum() }
    }

    fn model(&self, curvature: Array1<f64>, c: f64, spent: Option<DualModel<T>>) -> DualModel<T> {
        let root = curvature.mapv(f64::sqrt);
        let factor = self.inner_products.scaled_and_shifted(&(&root * c.sqrt()), 1.0, spent.map(|spent| spent.factor));
        let of_bias = factor.solve(&root) * &root;
        DualModel { c, root, of_bias, factor }
    }

    fn solve(&self, model: &DualModel<T>, gradient: &Gradient, _: f64) -> Direction {
        let DualModel { c, root, of_bias, factor } = model;
        let mut point = gradient.by_point.clone();
        point.scaled_add(-c, &(factor.solve(&(root * &gradient.product)) * root));
        // By the stationarity of the bias, where sum(u) / C = sum(v) - sum(r).
        let bias = ((gradient.by_point.sum() - gradient.by_bias) - point.sum()) / of_bias.sum();
        point.scaled_add(bias, of_bias);
        point *= *c;
        Direction { product: self.inner_products.times(&point), point, bias: -bias }
    }

    fn pairing(&self, direction: &Direction, gradient: &Gradient) -> f64 {
        direction.product.dot(&gradient.by_point) + direction.bias * gradient.by_bias
    }

    fn norm(&self, gradient: &Gradient) -> f64 {
        (gradient.by_point.dot(&gradient.product).max(0.0) + gradient.by_bias * gradient.by_bias).sqrt()
    }

    fn step(&self, iterate: &Iterate, direction: Direction) -> Step {
        Step {
            weights_by_change: iterate.point.dot(&direction.product),
            squared_norm: direction.point.dot(&direction.product).max(0.0),
            decisions: &direction.product + direction.bias,
            direction,
        }
    }

    fn point_of(&self, weights: &Array1<f64>) -> Array1<f64> {
        let products = Symmetric::<f64>::of_rows(self.features);
        let squares = sum_of_squares(self.features);
        let ridge = (PROJECTION_RIDGE * squares / self.dimension() as f64).max(f64::MIN_POSITIVE);
        products.shifted(ridge, None).solve(&self.image(weights))
    }

    fn weights(&self, point: &Array1<f64>) -> Array1<f64> {
        transposed_times(self.features, &point.to_vec())
    }

    fn image(&self, weights: &Array1<f64>) -> Array1<f64> {
        times(self.features, weights)
    }
}
