//! The center of a symmetric distribution: the median of the Walsh averages, with its confidence interval.
//!
//! Estimate: Hodges and Lehmann, "Estimates of location based on rank tests", 1963. Interval: Tukey's, as in Hollander,
//! Wolfe and Chicken, "Nonparametric Statistical Methods", 3.2 and 3.3. On resampled benchmark noise of 10 to 40 pairs
//! its coverage is nominal, while that of the bootstrap of the mean (BCa) is up to nine points lower.

use std::sync::Arc;

use super::signed_rank::SignedRankDistribution;
use super::{check_confidence, check_observations};
use crate::error::{Error, Result};

/// All averages `(d_i + d_j) / 2` with `i <= j` of `n` observations, sorted: `n (n + 1) / 2` of them.
#[derive(Clone, Debug, PartialEq)]
pub struct WalshAverages {
    sorted: Vec<f64>,
    null: Arc<SignedRankDistribution>,
    n: usize,
}

/// A confidence interval for the center.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ConfidenceInterval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// The coverage: the probability that such an interval contains the center. At least the nominal confidence if that is
    /// reached. Exact for continuous symmetric observations, a lower bound with ties.
    pub confidence: f64,
    /// Whether `confidence` is at least the requested one. If not, there are too few observations, and this is their
    /// whole range.
    pub nominal_reached: bool,
}

impl WalshAverages {
    /// Computes the averages of `observations`, in any order.
    ///
    /// # Errors
    ///
    /// No observation, more than [`super::MAX_OBSERVATIONS`], or one that is not finite.
    pub fn of(observations: &[f64]) -> Result<Self> {
        check_observations("observations", observations)?;
        let n = observations.len();
        if n == 0 {
            return Err(Error::input("observations", "none; a center needs at least 1"));
        }
        let mut sorted = Vec::with_capacity(n * (n + 1) / 2);
        for (i, first) in observations.iter().enumerate() {
            // Halved before the addition, so that two large observations do not overflow.
            sorted.extend(observations[i..].iter().map(|second| 0.5 * first + 0.5 * second));
        }
        sorted.sort_unstable_by(f64::total_cmp);
        Ok(Self { sorted, null: SignedRankDistribution::shared(n), n })
    }

    /// The number of observations.
    pub fn n(&self) -> usize {
        self.n
    }

    /// The Walsh averages, ascending.
    pub fn sorted(&self) -> &[f64] {
        &self.sorted
    }

    /// The Hodges-Lehmann estimate: the median of the averages.
    pub fn estimate(&self) -> f64 {
        let middle = self.sorted.len() / 2;
        if self.sorted.len() % 2 == 1 {
            self.sorted[middle]
        } else {
            0.5 * self.sorted[middle - 1] + 0.5 * self.sorted[middle]
        }
    }

    /// The two-sided interval at `confidence`: from the `k + 1`-th smallest to the `k + 1`-th largest average, with `k`
    /// the largest signed-rank sum whose lower tail is at most `(1 - confidence) / 2`.
    ///
    /// `None` for one observation, from which no interval follows. With fewer observations than `confidence` needs
    /// (six for 0.95) it is the range of the observations, with the confidence of that.
    ///
    /// # Errors
    ///
    /// `confidence` not between 0 and 1.
    pub fn interval(&self, confidence: f64) -> Result<Option<ConfidenceInterval>> {
        check_confidence(confidence)?;
        if self.n < 2 {
            return Ok(None);
        }
        let (cut, tail, nominal_reached) = self.cut((1.0 - confidence) / 2.0);
        Ok(Some(ConfidenceInterval {
            low: self.sorted[cut],
            high: self.sorted[self.sorted.len() - 1 - cut],
            confidence: 1.0 - 2.0 * tail,
            nominal_reached,
        }))
    }

    /// The number of averages to omit at each end for a tail of at most `level`, the probability of that tail, and whether
    /// it is at most `level`: with few observations even omitting none is not enough.
    fn cut(&self, level: f64) -> (usize, f64, bool) {
        match self.null.quantile_below(level) {
            // At a level of one half or more the two ends would cross: stop at the middle.
            Some(sum) => {
                let sum = sum.min(((self.sorted.len() - 1) / 2) as f64);
                (sum as usize, self.null.at_most(sum), true)
            }
            None => (0, self.null.at_most(0.0), false),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn estimate_matches_hand_computation() {
        // Averages of 1 2 6: 1 1.5 2 3.5 4 6.
        let averages = WalshAverages::of(&[6.0, 1.0, 2.0]).unwrap();
        assert_eq!(averages.sorted(), [1.0, 1.5, 2.0, 3.5, 4.0, 6.0]);
        assert_eq!(averages.estimate(), 2.75);
        assert_eq!(WalshAverages::of(&[3.0]).unwrap().estimate(), 3.0);
    }

    #[test]
    fn few_observations_report_their_actual_confidence() {
        let one = WalshAverages::of(&[1.0]).unwrap();
        assert_eq!(one.interval(0.95).unwrap(), None);
        let five = WalshAverages::of(&[1.0, 2.0, 3.0, 4.0, 5.0]).unwrap().interval(0.95).unwrap().unwrap();
        assert_eq!(five, ConfidenceInterval { low: 1.0, high: 5.0, confidence: 0.9375, nominal_reached: false });
        let six = WalshAverages::of(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap().interval(0.95).unwrap().unwrap();
        assert_eq!(six, ConfidenceInterval { low: 1.0, high: 6.0, confidence: 0.96875, nominal_reached: true });
        // One-sided, five are enough.
    }

    #[test]
    fn exactly_met_confidence_is_reached() {
        let five = WalshAverages::of(&[1.0, 2.0, 3.0, 4.0, 5.0]).unwrap().interval(0.9375).unwrap().unwrap();
        assert!(five.nominal_reached);
    }

    #[test]
    fn invalid_observations_are_refused() {
        assert!(WalshAverages::of(&[]).is_err());
        assert!(WalshAverages::of(&[1.0, f64::INFINITY]).unwrap_err().to_string().contains("observation 1 is inf"));
        for confidence in [0.0, 1.0, -0.5, f64::NAN, 95.0] {
            assert!(WalshAverages::of(&[1.0, 2.0]).unwrap().interval(confidence).is_err());
        }
    }

    fn observations() -> impl Strategy<Value = Vec<f64>> {
        prop::collection::vec(-10.0_f64..10.0, 2..30)
    }

    proptest! {
        #[test]
        fn shift_moves_estimate_and_interval(values in observations(), shift in -50.0_f64..50.0) {
            let moved: Vec<f64> = values.iter().map(|value| value + shift).collect();
            let (a, b) = (WalshAverages::of(&values).unwrap(), WalshAverages::of(&moved).unwrap());
            prop_assert!((a.estimate() + shift - b.estimate()).abs() <= 1e-10);
            let (x, y) = (a.interval(0.9).unwrap().unwrap(), b.interval(0.9).unwrap().unwrap());
            prop_assert!((x.low + shift - y.low).abs() <= 1e-10);
            prop_assert!((x.high + shift - y.high).abs() <= 1e-10);
        }

        #[test]
        fn mirrored_observations_mirror_the_interval(values in observations()) {
            let mirrored: Vec<f64> = values.iter().map(|value| -value).collect();
            let (a, b) = (WalshAverages::of(&values).unwrap(), WalshAverages::of(&mirrored).unwrap());
            prop_assert_eq!(a.estimate(), -b.estimate());
            let (x, y) = (a.interval(0.95).unwrap().unwrap(), b.interval(0.95).unwrap().unwrap());
            prop_assert_eq!((x.low, x.high), (-y.high, -y.low));
        }

        #[test]
        fn more_confidence_is_never_narrower(values in observations(), a in 0.01_f64..0.999, b in 0.01_f64..0.999) {
            let averages = WalshAverages::of(&values).unwrap();
            let narrow = averages.interval(a.min(b)).unwrap().unwrap();
            let wide = averages.interval(a.max(b)).unwrap().unwrap();
            prop_assert!(wide.low <= narrow.low && narrow.high <= wide.high);
            prop_assert!(wide.confidence >= narrow.confidence);
            prop_assert!(narrow.low <= averages.estimate() && averages.estimate() <= narrow.high);
            if narrow.nominal_reached {
                prop_assert!(narrow.confidence >= a.min(b) - 1e-12);
            }
        }

        #[test]
        fn interval_is_the_set_that_is_not_rejected(values in observations(), confidence in 0.5_f64..0.99) {
            use super::super::SignedRankTest;
            let averages = WalshAverages::of(&values).unwrap();
            let interval = averages.interval(confidence).unwrap().unwrap();
            if !interval.nominal_reached {
                return Ok(());
            }
            let p = |center: f64| SignedRankTest::of(&values, center).unwrap().p_two_sided;
            let width = 1e-9 * (1.0 + interval.low.abs() + interval.high.abs());
            prop_assert!(p(interval.low - width) <= 1.0 - confidence);
            prop_assert!(p(interval.high + width) <= 1.0 - confidence);
            prop_assert!(p(interval.low + width) > 1.0 - confidence || interval.low == interval.high);
        }
    }
}
