//! The ratio of two methods from paired observations.
//!
//! Pairs are measured next to each other, so that what slows both cancels in `ln(numerator / denominator)`; the centre
//! of these logarithms, with its interval, is carried back by the exponential. A ratio of medians would throw the
//! pairing away, and a mean of ratios would not be the inverse of the mean of the inverses.

use serde::{Deserialize, Serialize};

use super::hodges_lehmann::WalshAverages;
use crate::error::{Error, Result};

/// A ratio with its interval. `null` in JSON, not NaN, where there is none.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RatioEstimate {
    /// The estimated ratio, numerator over denominator.
    pub estimate: f64,
    /// Lower end of the interval; none for fewer than two pairs.
    pub low: Option<f64>,
    /// Upper end of the interval.
    pub high: Option<f64>,
    /// The confidence that the interval has; below what was asked for if `nominal_reached` is false.
    pub confidence: Option<f64>,
    /// Whether there were enough pairs for the confidence asked for (six for 0.95).
    pub nominal_reached: bool,
    /// Pairs.
    pub n: usize,
}

impl RatioEstimate {
    /// Of `numerators` over `denominators`, pair by pair, with a two-sided interval at `confidence` (usually 0.95).
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

    /// Whether the data leave open that both are equal: the interval holds 1, or there are too few pairs for an
    /// interval at the confidence asked for.
    pub fn no_difference_shown(&self) -> bool {
        match (self.low, self.high) {
            (Some(low), Some(high)) => !self.nominal_reached || (low <= 1.0 && 1.0 <= high),
            _ => true,
        }
    }

    /// Half the interval's width as a share of the ratio, `sqrt(high / low) - 1`: 0.015 is 1.5 %. None without an
    /// interval at the confidence asked for, so that a stopping rule on it never stops too early.
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
            let good = |value: f64| value.is_finite() && value > 0.0;
            if good(numerator) && good(denominator) {
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
    fn a_constant_ratio_is_found_whatever_the_drift() {
        let denominators = [1.0, 5.0, 2.0, 9.0, 3.0, 100.0];
        let numerators = denominators.map(|value| 2.0 * value);
        let ratio = RatioEstimate::of_pairs(&numerators, &denominators, 0.95).unwrap();
        assert!((ratio.estimate - 2.0).abs() <= 1e-12);
        assert!(!ratio.no_difference_shown());
        assert!(ratio.relative_half_width().unwrap() <= 1e-12);
    }

    #[test]
    fn an_interval_that_holds_one_shows_no_difference() {
        let ones = [1.0; 7];
        let around = [0.98, 1.01, 1.03, 0.99, 1.0, 1.02, 0.97];
        assert!(RatioEstimate::of_pairs(&around, &ones, 0.95).unwrap().no_difference_shown());
        assert!(RatioEstimate::of_pairs(&ones, &ones, 0.95).unwrap().no_difference_shown());
    }

    #[test]
    fn too_few_pairs_show_no_difference_however_far_apart() {
        let few = RatioEstimate::of_pairs(&[3.0, 3.1, 2.9], &[1.0; 3], 0.95).unwrap();
        assert!((few.confidence.unwrap() - 0.75).abs() <= 1e-15);
        assert!(few.low.unwrap() > 2.0 && !few.nominal_reached);
        assert!(few.no_difference_shown());
        assert_eq!(few.relative_half_width(), None);
        let single = RatioEstimate::of_pairs(&[3.0], &[1.0], 0.95).unwrap();
        assert_eq!((single.low, single.high, single.confidence, single.n), (None, None, None, 1));
        assert!((single.estimate - 3.0).abs() <= 1e-12);
        assert!(single.no_difference_shown());
    }

    #[test]
    fn refusals_name_the_pair() {
        let says = |a: &[f64], b: &[f64], part: &str| {
            let error = RatioEstimate::of_pairs(a, b, 0.95).unwrap_err();
            assert!(error.to_string().contains(part), "{error}");
        };
        says(&[1.0, 0.0], &[1.0, 1.0], "pair 1 is 0 over 1");
        says(&[1.0], &[f64::NAN], "pair 0 is 1 over NaN");
        says(&[1.0], &[-1.0], "pair 0");
        says(&[1.0], &[], "1 numerators, but 0 denominators");
        says(&[], &[], "none");
    }

    #[test]
    fn json_keeps_its_names() {
        let single = RatioEstimate::of_pairs(&[1.0], &[1.0], 0.95).unwrap();
        let json = serde_json::to_string(&single).unwrap();
        assert_eq!(json, r#"{"estimate":1.0,"low":null,"high":null,"confidence":null,"nominal_reached":false,"n":1}"#);
        assert_eq!(serde_json::from_str::<RatioEstimate>(&json).unwrap(), single);
    }

    proptest! {
        #[test]
        fn exchanged_sides_give_the_inverse(pairs in prop::collection::vec((0.1_f64..10.0, 0.1_f64..10.0), 2..25)) {
            let (a, b): (Vec<f64>, Vec<f64>) = pairs.into_iter().unzip();
            let ratio = RatioEstimate::of_pairs(&a, &b, 0.9).unwrap();
            let inverse = RatioEstimate::of_pairs(&b, &a, 0.9).unwrap();
            prop_assert!((ratio.estimate * inverse.estimate - 1.0).abs() <= 1e-12);
            prop_assert!((ratio.low.unwrap() * inverse.high.unwrap() - 1.0).abs() <= 1e-12);
            prop_assert_eq!(ratio.no_difference_shown(), inverse.no_difference_shown());
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
