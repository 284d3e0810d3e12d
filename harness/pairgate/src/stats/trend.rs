//! Drift of a series: Mann's trend test with Kendall's exact null distribution.
//!
//! Mann, "Nonparametric tests against trend", 1945; the distribution of the number of inversions as in Kendall, "A new
//! measure of rank correlation", 1938. It needs no model of the noise, and six observations are enough to show a steady
//! climb. A drift is reported; the value that the series would have had without it is not estimated.

use serde::{Deserialize, Serialize};

use super::check_observations;
use super::summary::median;
use crate::error::Result;

/// The drift of a series from its beginning to its end.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trend {
    /// Kendall's tau of the series with its own order: -1 always down, 1 always up. Ties count for neither.
    pub tau: f64,
    /// Two-sided p-value: the probability of a tau this far from zero without a trend. Exact without ties, an upper bound
    /// with ties.
    pub p: f64,
    /// Median of the last third over that of the first third.
    pub last_over_first: f64,
    /// Number of observations.
    pub n: usize,
}

/// A trend is reported if its p-value is at most this...
pub const LEVEL: f64 = 0.01;

/// ...and if it changed the series by more than this fraction.
pub const MATERIAL: f64 = 0.02;

impl Trend {
    /// Tests positive `values` in the order in which they were measured; none for fewer than six, which cannot show a
    /// trend.
    ///
    /// # Errors
    /// A value that is not finite.
    pub fn of(values: &[f64]) -> Result<Option<Self>> {
        check_observations("measurements", values)?;
        let n = values.len();
        if n < 6 {
            return Ok(None);
        }
        let (mut up, mut down) = (0usize, 0usize);
        for (i, earlier) in values.iter().enumerate() {
            for later in &values[i + 1..] {
                up += usize::from(later > earlier);
                down += usize::from(later < earlier);
            }
        }
        let pairs = n * (n - 1) / 2;
        // Fewer inversions are rarer; ties count as inversions, which makes the test conservative.
        let inversions = pairs - up.max(down);
        let p = (2.0 * at_most_inversions(n, inversions)).min(1.0);
        let third = n / 3;
        let last_over_first = median(&values[n - third..])? / median(&values[..third])?;
        Ok(Some(Trend { tau: (up as f64 - down as f64) / pairs as f64, p, last_over_first, n }))
    }

    /// Whether the series is steady: no trend is shown, or one too small to matter.
    pub fn is_steady(&self) -> bool {
        !(self.p <= LEVEL && (self.last_over_first - 1.0).abs() > MATERIAL)
    }
}

/// The probability that a random order of `n` has at most so many inversions: the number of inversions is a sum of
/// independent uniform numbers, from `0..1` to `0..n`.
fn at_most_inversions(n: usize, inversions: usize) -> f64 {
    let mut mass = vec![1.0];
    for values in 2..=n {
        // A moving sum over `values` neighbors, from running sums; only counts up to `inversions` are kept.
        let length = (mass.len() + values - 1).min(inversions + 1);
        let mut running = vec![0.0];
        running.extend(mass.iter().scan(0.0, |sum, mass| {
            *sum += mass;
            Some(*sum)
        }));
        let sum_below = |end: usize| running[end.min(mass.len())];
        let next = (0..length)
            .map(|at| (sum_below(at + 1) - sum_below((at + 1).saturating_sub(values))) / values as f64)
            .collect();
        mass = next;
    }
    mass.iter().sum::<f64>().min(1.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn climb_is_a_trend_and_noise_is_not() {
        let climb = Trend::of(&[1.0, 1.1, 1.2, 1.3, 1.4, 1.5]).unwrap().unwrap();
        assert_eq!(climb.tau, 1.0);
        // One of 720 orders, and its mirror image.
        assert!((climb.p - 2.0 / 720.0).abs() < 1e-15);
        assert!((climb.last_over_first - 1.45 / 1.05).abs() < 1e-12);
        assert!(!climb.is_steady());
        let noise = Trend::of(&[1.0, 1.3, 0.9, 1.1, 1.2, 0.95, 1.05]).unwrap().unwrap();
        assert!(noise.is_steady() && noise.p > 0.5);
    }

    #[test]
    fn small_trend_is_steady() {
        let values: Vec<f64> = (0..20).map(|i| 1.0 + 1e-4 * f64::from(i)).collect();
        let trend = Trend::of(&values).unwrap().unwrap();
        assert!(trend.p < 1e-9 && trend.is_steady());
    }

    #[test]
    fn equal_or_few_values_show_no_trend() {
        assert_eq!(Trend::of(&[1.0; 8]).unwrap().unwrap().p, 1.0);
        assert_eq!(Trend::of(&[1.0, 2.0, 3.0, 4.0, 5.0]).unwrap(), None);
        assert!(Trend::of(&[1.0, f64::NAN, 3.0, 4.0, 5.0, 6.0]).is_err());
    }

    proptest! {
        #[test]
        fn reversed_series_has_the_opposite_trend(values in prop::collection::vec(0.5_f64..2.0, 6..30)) {
            let forward = Trend::of(&values).unwrap().unwrap();
            let reversed = Trend::of(&values.iter().rev().copied().collect::<Vec<_>>()).unwrap().unwrap();
            prop_assert!((forward.tau + reversed.tau).abs() < 1e-12);
            prop_assert!((forward.p - reversed.p).abs() < 1e-12);
            prop_assert!((forward.last_over_first * reversed.last_over_first - 1.0).abs() < 1e-9);
        }
    }
}
