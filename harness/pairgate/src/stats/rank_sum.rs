//! The shift between two unpaired series: the median of all differences, with its confidence interval.
//!
//! Hodges and Lehmann, 1963; interval by the exact distribution of the Mann-Whitney statistic, after Moses (Hollander,
//! Wolfe and Chicken, "Nonparametric Statistical Methods", 4.2 and 4.3).

use super::{ConfidenceInterval, check_confidence, check_observations};
use crate::error::{Error, Result};

/// The largest number of differences for which the exact distribution is computed.
const MAX_DIFFERENCES: usize = 10_000;

/// The shift from one series to another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shift {
    /// The median of all differences.
    pub estimate: f64,
    /// Its interval; none if either series has a single observation.
    pub interval: Option<ConfidenceInterval>,
}

impl Shift {
    /// The shift from `base` to `head`: above 0 if head is larger.
    ///
    /// # Errors
    /// An empty series, a value that is not finite, too many observations, or a confidence outside `0..1`.
    pub fn between(base: &[f64], head: &[f64], confidence: f64) -> Result<Self> {
        check_observations("base", base)?;
        check_observations("head", head)?;
        check_confidence(confidence)?;
        let n = base.len() * head.len();
        if n == 0 || n > MAX_DIFFERENCES {
            return Err(Error::input(
                "series",
                format!("{n} differences; the exact distribution is limited to 1 to {MAX_DIFFERENCES}"),
            ));
        }
        let mut differences: Vec<f64> = head.iter().flat_map(|head| base.iter().map(move |base| head - base)).collect();
        differences.sort_unstable_by(f64::total_cmp);
        let middle = 0.5 * differences[(n - 1) / 2] + 0.5 * differences[n / 2];
        let level = (1.0 - confidence) / 2.0;
        let interval = (base.len() > 1 && head.len() > 1).then(|| {
            // The largest statistic whose lower tail is at most the level, or 0.
            let mut tail = 0.0;
            let (mut cut, mut kept) = (0, None);
            for (statistic, probability) in distribution(base.len(), head.len()).into_iter().enumerate() {
                tail += probability;
                if tail > level {
                    break;
                }
                (cut, kept) = (statistic, Some(tail));
            }
            let smallest_tail = 1.0 / combinations(base.len(), head.len());
            let cut = cut.min((n - 1) / 2);
            ConfidenceInterval {
                low: differences[cut],
                high: differences[n - 1 - cut],
                confidence: 1.0 - 2.0 * kept.unwrap_or(smallest_tail),
                nominal_reached: kept.is_some(),
            }
        });
        Ok(Shift { estimate: middle, interval })
    }
}

/// The number of ways to choose the `m` observations of the first series among all.
fn combinations(m: usize, n: usize) -> f64 {
    (1..=m).map(|i| (n + i) as f64 / i as f64).product()
}

/// The null distribution of the Mann-Whitney statistic, 0 to `m n`: the coefficients of the Gaussian binomial, computed
/// factor by factor as `(1 - q^(n+i)) / (1 - q^i)`.
fn distribution(m: usize, n: usize) -> Vec<f64> {
    let size = m * n + 1;
    let mut ways = vec![0.0; size];
    ways[0] = 1.0;
    for i in 1..=m {
        for u in (n + i..size).rev() {
            ways[u] -= ways[u - n - i];
        }
        for u in i..size {
            ways[u] += ways[u - i];
        }
        // Probabilities instead of counts, which would overflow.
        let scale = i as f64 / (n + i) as f64;
        ways.iter_mut().for_each(|ways| *ways *= scale);
    }
    ways
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distribution_matches_enumeration_of_all_orders() {
        // Of 2 and 2: six orders, statistics 0 1 2 2 3 4.
        let masses = distribution(2, 2);
        for (actual, expected) in masses.iter().zip([1.0, 1.0, 2.0, 1.0, 1.0]) {
            assert!((actual - expected / 6.0).abs() <= 1e-12, "{masses:?}");
        }
        for (m, n) in [(1, 5), (5, 7), (10, 10), (20, 30)] {
            let masses = distribution(m, n);
            assert!((masses.iter().sum::<f64>() - 1.0).abs() <= 1e-9, "{m} {n}");
            assert!((masses[0] * combinations(m, n) - 1.0).abs() <= 1e-6, "{m} {n}");
            assert!((masses[3] - masses[m * n - 3]).abs() <= 1e-9, "symmetric");
        }
    }

    #[test]
    fn tails_match_mann_whitney_recursion() {
        // Counted by the recursion of Mann and Whitney, 1947, in whole numbers; scipy's exact tails are the same.
        for (m, n, u, expected) in
            [(5, 5, 2, 0.015873015873015872), (10, 10, 23, 0.02162852627248912), (8, 6, 8, 0.021312021312021312)]
        {
            let tail: f64 = distribution(m, n).iter().take(u + 1).sum();
            assert!((tail - expected).abs() <= 1e-9, "{m} {n} {u}: {tail} instead of {expected}");
        }
    }

    #[test]
    fn shift_matches_hand_computation() {
        let shift = Shift::between(&[1.0, 2.0, 4.0], &[11.0, 12.0, 14.0], 0.95).unwrap();
        assert_eq!(shift.estimate, 10.0);
        let interval = shift.interval.unwrap();
        assert_eq!((interval.low, interval.high, interval.nominal_reached), (7.0, 13.0, false));
        assert!((interval.confidence - 0.9).abs() <= 1e-12, "{interval:?}");
        let base: Vec<f64> = (0..10).map(f64::from).collect();
        let head: Vec<f64> = base.iter().map(|value| value + 100.0).collect();
        let shift = Shift::between(&base, &head, 0.95).unwrap();
        assert_eq!(shift.estimate, 100.0);
        // The 24th smallest and largest of the 100 differences: scipy's tail at 23 is .0216, at 24 it is .0262.
        let mut all: Vec<f64> = head.iter().flat_map(|head| base.iter().map(move |base| head - base)).collect();
        all.sort_unstable_by(f64::total_cmp);
        let interval = shift.interval.unwrap();
        assert_eq!((interval.low, interval.high), (all[23], all[76]));
    }

    #[test]
    fn invalid_series_are_refused() {
        assert!(Shift::between(&[], &[1.0], 0.95).is_err());
        assert!(Shift::between(&[1.0], &[f64::NAN], 0.95).is_err());
        assert!(Shift::between(&[1.0; 200], &[1.0; 200], 0.95).is_err());
        assert_eq!(Shift::between(&[1.0], &[3.0, 4.0], 0.95).unwrap().interval, None);
    }
}
