//! Order statistics of a series of measurements: one slow run must not change a summary.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Seven numbers that describe a series, in the unit of the series.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Number of observations.
    pub n: usize,
    /// The smallest observation.
    pub min: f64,
    /// A quarter of the observations lies below; see [`quantile`].
    pub lower_quartile: f64,
    /// The middle observation, or the mean of the two in the middle.
    pub median: f64,
    /// A quarter of the observations lies above.
    pub upper_quartile: f64,
    /// The largest observation.
    pub max: f64,
    /// Median of the absolute deviations from the median, unscaled. Times 1.4826 it estimates the standard deviation
    /// of normal data.
    pub median_absolute_deviation: f64,
}

impl Summary {
    /// Summarizes `values`, in any order.
    ///
    /// # Errors
    ///
    /// No value, or one that is not finite.
    pub fn of(values: &[f64]) -> Result<Self> {
        let sorted = sorted(values)?;
        let quantile = |fraction: f64| quantile_of_sorted(&sorted, fraction);
        let median = quantile(0.5);
        let mut deviations: Vec<f64> = sorted.iter().map(|value| (value - median).abs()).collect();
        deviations.sort_unstable_by(f64::total_cmp);
        Ok(Self {
            n: sorted.len(),
            min: quantile(0.0),
            lower_quartile: quantile(0.25),
            median,
            upper_quartile: quantile(0.75),
            max: quantile(1.0),
            median_absolute_deviation: quantile_of_sorted(&deviations, 0.5),
        })
    }
}

/// The median of `values`.
///
/// # Errors
///
/// No value, or one that is not finite.
pub fn median(values: &[f64]) -> Result<f64> {
    quantile(values, 0.5)
}

/// The value below which a `fraction` of `values` lies: type 7 of Hyndman and Fan, "Sample quantiles in statistical
/// packages", 1996, the default of R and numpy (linear between the order statistics at `(n - 1) fraction`).
///
/// # Errors
///
/// No value, one that is not finite, or a fraction outside `0..=1`.
pub fn quantile(values: &[f64], fraction: f64) -> Result<f64> {
    if !(0.0..=1.0).contains(&fraction) {
        return Err(Error::usage(format!("the fraction of a quantile is {fraction}; it must lie between 0 and 1")));
    }
    Ok(quantile_of_sorted(&sorted(values)?, fraction))
}

/// `values` ascending, if there are any and all are finite.
fn sorted(values: &[f64]) -> Result<Vec<f64>> {
    if values.is_empty() {
        return Err(Error::input("measurements", "none to summarize"));
    }
    if let Some(index) = values.iter().position(|value| !value.is_finite()) {
        return Err(Error::input("measurements", format!("number {index} is {}", values[index])));
    }
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    Ok(sorted)
}

/// Type 7; `sorted` is not empty and `fraction` in `0..=1`.
fn quantile_of_sorted(sorted: &[f64], fraction: f64) -> f64 {
    let position = (sorted.len() - 1) as f64 * fraction;
    let (below, above) = (sorted[position.floor() as usize], sorted[position.ceil() as usize]);
    let weight = position.fract();
    // Weighted on both sides and not `below + (above - below) * weight`, which overflows for values far apart.
    if weight == 0.0 { below } else { (1.0 - weight) * below + weight * above }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn summary_matches_hand_computation() {
        let summary = Summary::of(&[4.0, 1.0, 100.0, 2.0]).unwrap();
        assert_eq!(
            summary,
            Summary {
                n: 4,
                min: 1.0,
                lower_quartile: 1.75,
                median: 3.0,
                upper_quartile: 28.0,
                max: 100.0,
                // Deviations 1 1 2 97.
                median_absolute_deviation: 1.5,
            }
        );
        let single = Summary::of(&[7.0]).unwrap();
        assert_eq!((single.min, single.median, single.max, single.median_absolute_deviation), (7.0, 7.0, 7.0, 0.0));
    }

    #[test]
    fn invalid_series_are_refused() {
        assert!(Summary::of(&[]).unwrap_err().to_string().contains("none"));
        assert!(Summary::of(&[1.0, f64::NAN]).unwrap_err().to_string().contains("number 1 is NaN"));
        assert!(quantile(&[1.0], 1.5).is_err());
        assert!(quantile(&[1.0], f64::NAN).is_err());
        assert!(median(&[]).is_err());
    }

    #[test]
    fn median_of_extreme_values_does_not_overflow() {
        assert_eq!(median(&[-f64::MAX, f64::MAX]).unwrap(), 0.0);
    }

    proptest! {
        #[test]
        fn quantiles_are_monotone_and_bounded(values in prop::collection::vec(-1e3_f64..1e3, 1..40), a in 0.0_f64..=1.0, b in 0.0_f64..=1.0) {
            let (low, high) = (quantile(&values, a.min(b)).unwrap(), quantile(&values, a.max(b)).unwrap());
            prop_assert!(low <= high + 1e-9);
            let summary = Summary::of(&values).unwrap();
            prop_assert!(summary.min <= low + 1e-9 && high <= summary.max + 1e-9);
        }
    }
}
