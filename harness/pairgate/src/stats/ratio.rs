//! The ratio of two methods from paired observations.
//!
//! The observations of a pair are measured next to each other, so that a common slowdown cancels in
//! `ln(numerator / denominator)`. The ratio and its interval are the exponentials of the center of these logarithms and of
//! its interval. A ratio of medians would ignore the pairing, and a mean of ratios is not the inverse of the mean of the
//! inverse ratios.

use serde::{Deserialize, Serialize};

use super::hodges_lehmann::WalshAverages;
use crate::error::{Error, Result};

/// A ratio with its confidence interval. In JSON a missing end is `null`, not NaN.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RatioEstimate {
    /// The estimated ratio, numerator over denominator.
    pub estimate: f64,
    /// Lower end of the interval; none for fewer than two pairs.
    pub low: Option<f64>,
    /// Upper end of the interval.
    pub high: Option<f64>,
    /// The confidence of the interval; less than the requested one if `nominal_reached` is false.
    pub confidence: Option<f64>,
    /// Whether there were enough pairs for the requested confidence (six for 0.95).
    pub nominal_reached: bool,
    /// Number of pairs.
    pub n: usize,
}

impl RatioEstimate {
    /// Estimates `numerators` over `denominators`, pair by pair, with a two-sided interval at `confidence` (usually 0.95).
    ///
    /// # Errors
    ///
    /// No pair, lengths that differ, an observation that is not a positive finite number, or `confidence` not between
    /// 0 and 1.
    pub fn of_pairs(numerators: &[f64], denominators: &[f64], confidence: f64) -> Result<Self> {
        let averages = WalshAverages::of(&log_ratios(numerators, denominators)?)?;
        let interval = averages.interval(confidence)?;
        Ok(Self {
            estimate: averages.estimate().exp(),
            low: interval.map(|interval| interval.low.exp()),
            high: interval.map(|interval| interval.high.exp()),
            confidence: interval.map(|interval| interval.confidence),
            nominal_reached: interval.is_some_and(|interval| interval.nominal_reached),
            n: averages.n(),
        })
    }

    /// Half the interval's width as a fraction of the ratio, `sqrt(high / low) - 1`: 0.015 is 1.5 %. None without an
    /// interval at the requested confidence, so that a stopping rule never stops too early.
    pub fn relative_half_width(&self) -> Option<f64> {
        match (self.low, self.high) {
            (Some(low), Some(high)) if self.nominal_reached => Some((high / low).sqrt() - 1.0),
            _ => None,
        }
    }
}

/// `ln(numerator / denominator)` of each pair.
///
/// # Errors
///
/// Lengths that differ, or an observation that is not a positive finite number.
pub fn log_ratios(numerators: &[f64], denominators: &[f64]) -> Result<Vec<f64>> {
    if numerators.len() != denominators.len() {
        return Err(Error::input(
            "paired observations",
            format!("{} numerators, but {} denominators", numerators.len(), denominators.len()),
        ));
    }
    let pairs = numerators.iter().zip(denominators).enumerate();
    pairs
        .map(|(index, (&numerator, &denominator))| {
            let is_valid = |value: f64| value.is_finite() && value > 0.0;
            if is_valid(numerator) && is_valid(denominator) {
                Ok(numerator.ln() - denominator.ln())
            } else {
                Err(Error::input(
                    "paired observations",
                    format!("pair {index} is {numerator} over {denominator}; both must be positive and finite"),
                ))
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn constant_ratio_is_found_despite_drift() {
        let denominators = [1.0, 5.0, 2.0, 9.0, 3.0, 100.0];
        let numerators = denominators.map(|value| 2.0 * value);
        let ratio = RatioEstimate::of_pairs(&numerators, &denominators, 0.95).unwrap();
        assert!((ratio.estimate - 2.0).abs() <= 1e-12);
        assert!(ratio.relative_half_width().unwrap() <= 1e-12);
    }

    #[test]
    fn interval_of_equal_methods_contains_one() {
        let ones = [1.0; 7];
        let around = [0.98, 1.01, 1.03, 0.99, 1.0, 1.02, 0.97];
        for numerators in [around, ones] {
            let ratio = RatioEstimate::of_pairs(&numerators, &ones, 0.95).unwrap();
            assert!(ratio.nominal_reached && ratio.low.unwrap() <= 1.0 && ratio.high.unwrap() >= 1.0, "{ratio:?}");
        }
    }

    #[test]
    fn too_few_pairs_reach_no_nominal_confidence() {
        let few = RatioEstimate::of_pairs(&[3.0, 3.1, 2.9], &[1.0; 3], 0.95).unwrap();
        assert!((few.confidence.unwrap() - 0.75).abs() <= 1e-15);
        assert!(few.low.unwrap() > 2.0 && !few.nominal_reached);
        assert_eq!(few.relative_half_width(), None);
        let single = RatioEstimate::of_pairs(&[3.0], &[1.0], 0.95).unwrap();
        assert_eq!((single.low, single.high, single.confidence, single.n), (None, None, None, 1));
        assert!((single.estimate - 3.0).abs() <= 1e-12);
        assert!(!single.nominal_reached);
    }

    #[test]
    fn errors_name_the_pair() {
        let assert_error = |a: &[f64], b: &[f64], part: &str| {
            let error = RatioEstimate::of_pairs(a, b, 0.95).unwrap_err();
            assert!(error.to_string().contains(part), "{error}");
        };
        assert_error(&[1.0, 0.0], &[1.0, 1.0], "pair 1 is 0 over 1");
        assert_error(&[1.0], &[f64::NAN], "pair 0 is 1 over NaN");
        assert_error(&[1.0], &[-1.0], "pair 0");
        assert_error(&[1.0], &[], "1 numerators, but 0 denominators");
        assert_error(&[], &[], "none");
    }

    #[test]
    fn json_has_stable_names() {
        let single = RatioEstimate::of_pairs(&[1.0], &[1.0], 0.95).unwrap();
        let json = serde_json::to_string(&single).unwrap();
        assert_eq!(json, r#"{"estimate":1.0,"low":null,"high":null,"confidence":null,"nominal_reached":false,"n":1}"#);
        assert_eq!(serde_json::from_str::<RatioEstimate>(&json).unwrap(), single);
    }

    proptest! {
        #[test]
        fn swapped_sides_give_the_inverse_ratio(pairs in prop::collection::vec((0.1_f64..10.0, 0.1_f64..10.0), 2..25)) {
            let (a, b): (Vec<f64>, Vec<f64>) = pairs.into_iter().unzip();
            let ratio = RatioEstimate::of_pairs(&a, &b, 0.9).unwrap();
            let inverse = RatioEstimate::of_pairs(&b, &a, 0.9).unwrap();
            prop_assert!((ratio.estimate * inverse.estimate - 1.0).abs() <= 1e-12);
            prop_assert!((ratio.low.unwrap() * inverse.high.unwrap() - 1.0).abs() <= 1e-12);
            prop_assert_eq!(ratio.nominal_reached, inverse.nominal_reached);
        }

        #[test]
        fn units_cancel(pairs in prop::collection::vec((0.1_f64..10.0, 0.1_f64..10.0), 2..25), unit in 1e-6_f64..1e6) {
            let (a, b): (Vec<f64>, Vec<f64>) = pairs.into_iter().unzip();
            let scale = |values: &[f64]| values.iter().map(|value| value * unit).collect::<Vec<f64>>();
            let ratio = RatioEstimate::of_pairs(&a, &b, 0.9).unwrap();
            let scaled = RatioEstimate::of_pairs(&scale(&a), &scale(&b), 0.9).unwrap();
            prop_assert!((ratio.estimate / scaled.estimate - 1.0).abs() <= 1e-10);
        }
    }
}
