//! The logistic loss of many samples and its derivative, in one vectorized pass.
//!
//! The exponential and the logarithm of the standard library are calls with one number each; they took as long as the
//! GEMV with the Gram matrix of the samples. The functions here are exact to a few units in the last place for their
//! arguments, and give the same bits on every machine.

use super::simd::{SimdLoop, run_simd};

/// Samples per vector step.
const LANES: usize = 8;

/// The losses of all samples at one point.
#[derive(Clone, Debug)]
pub(super) struct Losses {
    /// The sum of the losses.
    pub(super) sum: f64,
    /// The predicted probability of label 1 minus the label, for each sample.
    pub(super) residuals: Vec<f64>,
}

impl Losses {
    /// The losses of `decisions` `[n]` for `labels` `[n]`, each 0 or 1.
    pub(super) fn new(decisions: &[f64], labels: &[u8]) -> Self {
        let mut residuals = vec![0.0; decisions.len()];
        let sum = run_simd(LossLoop { decisions, labels, residuals: &mut residuals });
        Self { sum, residuals }
    }
}

struct LossLoop<'a> {
    decisions: &'a [f64],
    labels: &'a [u8],
    residuals: &'a mut [f64],
}

impl SimdLoop for LossLoop<'_> {
    type Output = f64;

    #[inline(always)]
    fn run(self) -> f64 {
        let mut acc = [0.0; LANES];
        let (decisions, decisions_left) = self.decisions.as_chunks::<LANES>();
        let (labels, labels_left) = self.labels.as_chunks::<LANES>();
        let (residuals, residuals_left) = self.residuals.as_chunks_mut::<LANES>();
        for ((decisions, labels), residuals) in decisions.iter().zip(labels).zip(residuals) {
            // One operation at a time for all lanes, so that each becomes a vector instruction.
            let signs: [f64; LANES] = std::array::from_fn(|lane| sign(labels[lane]));
            let against: [f64; LANES] = std::array::from_fn(|lane| signs[lane] * decisions[lane]);
            let small: [f64; LANES] = std::array::from_fn(|lane| exp_of_negative(-against[lane].abs()));
            let tails: [f64; LANES] = std::array::from_fn(|lane| ln_1p_unit(small[lane]));
            for lane in 0..LANES {
                acc[lane] += positive_part(against[lane]) + tails[lane];
                residuals[lane] = signs[lane] * probability(against[lane], small[lane]);
            }
        }
        for (lane, residual) in residuals_left.iter_mut().enumerate() {
            let sign = sign(labels_left[lane]);
            let against = sign * decisions_left[lane];
            let small = exp_of_negative(-against.abs());
            acc[lane] += positive_part(against) + ln_1p_unit(small);
            *residual = sign * probability(against, small);
        }
        let mut sum = 0.0;
        for lane in acc {
            sum += lane;
        }
        sum
    }
}

/// -1 for a positive and 1 for a negative sample. With `against = sign * decision`, the loss is `softplus(against)`
/// and the residual `sign * sigmoid(against)`, without differences of large numbers.
#[inline(always)]
fn sign(label: u8) -> f64 {
    1.0 - 2.0 * f64::from(label)
}

/// The sigmoid of `against`, where `small` is `e^-|against|`.
#[inline(always)]
fn probability(against: f64, small: f64) -> f64 {
    let above = if against >= 0.0 { 1.0 } else { small };
    above / (1.0 + small)
}

/// Uses a comparison, because `max` would drop a NaN.
#[inline(always)]
fn positive_part(x: f64) -> f64 {
    if x < 0.0 { 0.0 } else { x }
}

/// `e^x` for `x <= 0`, clamped at -708, the limit of normal numbers.
///
/// Cody and Waite's range reduction to `|r| <= ln(2) / 2` and the Taylor polynomial of degree 13, whose remainder there
/// is below 1e-17.
#[inline(always)]
fn exp_of_negative(x: f64) -> f64 {
    const LOWEST: f64 = -708.0;
    const LN2_HIGH: f64 = 6.931_471_803_691_238e-1;
    const LN2_LOW: f64 = 1.908_214_929_270_587_7e-10;
    // Adding and subtracting 1.5 * 2^52 rounds to the nearest integer without a call.
    const ROUND: f64 = 6_755_399_441_055_744.0;
    let clamped = if x < LOWEST { LOWEST } else { x };
    let shifted = clamped * std::f64::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (clamped - n * LN2_HIGH) - n * LN2_LOW;
    let mut p = 1.0 / 6_227_020_800.0;
    for inverse in [
        1.0 / 479_001_600.0,
        1.0 / 39_916_800.0,
        1.0 / 3_628_800.0,
        1.0 / 362_880.0,
        1.0 / 40_320.0,
        1.0 / 5_040.0,
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
        1.0,
        1.0,
    ] {
        p = p * r + inverse;
    }
    // The low bits of `shifted` are n.
    p * f64::from_bits(shifted.to_bits().wrapping_add(1023) << 52)
}

/// `ln(1 + x)` for `0 <= x <= 1`: `2 artanh(s)` with `s = x / (2 + x)`, at most 1/3, by its series, whose remainder is
/// below 1e-17.
#[inline(always)]
fn ln_1p_unit(x: f64) -> f64 {
    const TERMS: usize = 17;
    let s = x / (2.0 + x);
    let square = s * s;
    let mut sum = 0.0;
    for term in (0..TERMS).rev() {
        sum = sum * square + 1.0 / (2 * term + 1) as f64;
    }
    2.0 * s * sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_match_standard_library() {
        let decisions: Vec<f64> = (-40_000..40_001).map(|step| f64::from(step) * 1.7e-3).chain([0.0, -0.0]).collect();
        for label in [0, 1] {
            let labels = vec![label; decisions.len()];
            let found = Losses::new(&decisions, &labels);
            let mut expected_sum = 0.0;
            for (&z, &residual) in decisions.iter().zip(&found.residuals) {
                let against = if label == 1 { -z } else { z };
                expected_sum += against.max(0.0) + (-against.abs()).exp().ln_1p();
                let probability = 1.0 / (1.0 + (-against).exp());
                let expected = if label == 1 { -probability } else { probability };
                assert!((residual - expected).abs() <= 1e-15 * expected.abs() * 4.0, "{z}: {residual} {expected}");
            }
            assert!((found.sum - expected_sum).abs() <= 1e-13 * expected_sum, "{} {expected_sum}", found.sum);
        }
    }

    #[test]
    fn exp_and_ln_1p_are_accurate() {
        for step in 0..70_000 {
            let x = -f64::from(step) * 1.01e-2;
            let exact = x.exp();
            assert!((exp_of_negative(x) - exact).abs() <= 1e-15 * exact, "exp({x})");
            let x = f64::from(step) / 70_000.0;
            let exact = x.ln_1p();
            assert!((ln_1p_unit(x) - exact).abs() <= 1e-15 * exact, "ln_1p({x})");
        }
        assert_eq!(exp_of_negative(0.0), 1.0);
        assert!(exp_of_negative(f64::NEG_INFINITY) < 1e-300 && exp_of_negative(f64::NAN).is_nan());
    }

    #[test]
    fn extreme_decisions_saturate_and_nan_propagates() {
        let found = Losses::new(&[1e300, -1e300, 1e300, f64::INFINITY], &[1, 0, 0, 1]);
        assert_eq!(found.sum, 1e300);
        assert!(found.residuals[0].abs() < 1e-300 && found.residuals[1] < 1e-300 && found.residuals[2] == 1.0);
        let found = Losses::new(&[0.0, f64::NAN, 1.0], &[0, 1, 1]);
        assert!(found.sum.is_nan() && found.residuals[1].is_nan() && found.residuals[0] == 0.5);
    }
}
