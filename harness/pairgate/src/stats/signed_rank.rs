//! Wilcoxon's signed-rank statistic with its exact null distribution. The normal approximation is inaccurate for the sizes
//! of benchmarks: 10 to 40 pairs and small levels.

use std::sync::{Arc, OnceLock};

use super::check_observations;
use crate::error::Result;

/// Up to so many differences the distribution is computed once per process: a gate uses the same few sizes again and
/// again.
const CACHED_SIZES: usize = 64;

/// The null distribution of the sum of the ranks of the positive differences: each rank is positive with probability one
/// half, independently.
///
/// Computed by adding one rank at a time: with rank `r` the mass at `t` becomes `(p(t) + p(t - r)) / 2` (Wilcoxon,
/// "Individual comparisons by ranking methods", 1945; the recursion in Hollander, Wolfe and Chicken, "Nonparametric
/// Statistical Methods", 3.1). Only positive numbers are added, so that even the smallest tail keeps its relative
/// accuracy.
#[derive(Clone, Debug, PartialEq)]
pub struct SignedRankDistribution {
    /// Probability of each sum of ranks, or of half ranks.
    mass: Vec<f64>,
    /// Running sum of `mass` from below; the upper tail is its mirror image.
    cumulative: Vec<f64>,
    /// Ranks are counted in half ranks where there are ties.
    halves: bool,
}

impl SignedRankDistribution {
    /// The distribution for `n` differences without ties: the ranks are `1..=n`, the sums `0..=n (n + 1) / 2`.
    pub fn new(n: usize) -> Self {
        Self::of_ranks((1..=n).collect(), false)
    }

    /// [`SignedRankDistribution::new`], computed once per process for usual `n`.
    pub fn shared(n: usize) -> Arc<Self> {
        static DISTRIBUTIONS: [OnceLock<Arc<SignedRankDistribution>>; CACHED_SIZES + 1] =
            [const { OnceLock::new() }; CACHED_SIZES + 1];
        match DISTRIBUTIONS.get(n) {
            Some(distribution) => distribution.get_or_init(|| Arc::new(Self::new(n))).clone(),
            None => Arc::new(Self::new(n)),
        }
    }

    /// The distribution for any ranks; `halves` if they are doubled.
    fn of_ranks(ranks: Vec<usize>, halves: bool) -> Self {
        let mut mass = vec![0.0; ranks.iter().sum::<usize>() + 1];
        mass[0] = 1.0;
        let mut largest = 0;
        for rank in ranks {
            largest += rank;
            for sum in (0..=largest).rev() {
                let without = if sum <= largest - rank { mass[sum] } else { 0.0 };
                let with = if sum >= rank { mass[sum - rank] } else { 0.0 };
                mass[sum] = 0.5 * (without + with);
            }
        }
        let mut total = 0.0;
        let cumulative = mass
            .iter()
            .map(|mass| {
                total += mass;
                total
            })
            .collect();
        Self { mass, cumulative, halves }
    }

    /// The largest possible sum of ranks.
    pub fn largest(&self) -> f64 {
        self.value(self.mass.len() - 1)
    }

    /// The probability of a sum of at most `sum`.
    pub fn at_most(&self, sum: f64) -> f64 {
        let index = (if self.halves { 2.0 * sum } else { sum }).floor();
        // The saturating cast sends a NaN to 0; sums come from ranks and are never NaN.
        if index < 0.0 { 0.0 } else { self.cumulative[(index as usize).min(self.cumulative.len() - 1)].min(1.0) }
    }

    /// The probability of a sum of at least `sum`, which by symmetry is that of at most `largest - sum`.
    pub fn at_least(&self, sum: f64) -> f64 {
        self.at_most(self.largest() - sum)
    }

    /// The largest sum `k` with `at_most(k) <= level`, if there is one.
    pub fn quantile_below(&self, level: f64) -> Option<f64> {
        self.cumulative.partition_point(|&tail| tail <= level).checked_sub(1).map(|index| self.value(index))
    }

    fn value(&self, index: usize) -> f64 {
        if self.halves { index as f64 / 2.0 } else { index as f64 }
    }
}

/// The outcome of the exact signed-rank test that differences are symmetric about a value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SignedRankTest {
    /// Differences that were ranked: all that are not zero.
    pub n: usize,
    /// Sum of the ranks of the positive differences.
    pub statistic: f64,
    /// One-sided p-value of a statistic at least this large: small if the differences lie above the value.
    pub p_greater: f64,
    /// One-sided p-value of a statistic at most this large: small if the differences lie below the value.
    pub p_less: f64,
    /// Two-sided p-value: twice the smaller one-sided one, at most 1.
    pub p_two_sided: f64,
}

impl SignedRankTest {
    /// Tests `differences` against symmetry about `center`.
    ///
    /// Differences equal to `center` are omitted (Wilcoxon's own rule). Equal absolute values share their mean rank, and
    /// the distribution is that of exactly these ranks, so that the test is exact with ties too. Without a difference
    /// every p-value is 1.
    ///
    /// # Errors
    ///
    /// More than [`super::MAX_OBSERVATIONS`], or a value that is not finite.
    pub fn of(differences: &[f64], center: f64) -> Result<Self> {
        let mut shifted: Vec<f64> = differences.iter().map(|difference| difference - center).collect();
        check_observations("differences", &shifted)?;
        shifted.retain(|difference| *difference != 0.0);
        shifted.sort_unstable_by(|a, b| a.abs().total_cmp(&b.abs()));
        let mut doubled_ranks = Vec::with_capacity(shifted.len());
        let mut doubled_statistic = 0;
        for tied in shifted.chunk_by(|a, b| a.abs() == b.abs()) {
            // Twice the mean of the ranks done + 1 ..= done + tied.len().
            let doubled = 2 * doubled_ranks.len() + tied.len() + 1;
            doubled_statistic += doubled * tied.iter().filter(|difference| **difference > 0.0).count();
            doubled_ranks.extend(std::iter::repeat_n(doubled, tied.len()));
        }
        // Without ties the doubled ranks are 2, 4, 6, ...
        let untied = doubled_ranks.iter().enumerate().all(|(index, rank)| *rank == 2 * (index + 1));
        let distribution = if untied {
            SignedRankDistribution::shared(doubled_ranks.len())
        } else {
            Arc::new(SignedRankDistribution::of_ranks(doubled_ranks, true))
        };
        let statistic = doubled_statistic as f64 / 2.0;
        let (p_greater, p_less) = (distribution.at_least(statistic), distribution.at_most(statistic));
        let p_two_sided = (2.0 * p_greater.min(p_less)).min(1.0);
        Ok(Self { n: shifted.len(), statistic, p_greater, p_less, p_two_sided })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn small_distribution_matches_hand_computation() {
        let three = SignedRankDistribution::new(3);
        // Subsets of {1, 2, 3} by sum: 1 1 1 2 1 1 1, of 8.
        let tails: Vec<f64> = (0..=6).map(|sum| 8.0 * three.at_most(f64::from(sum))).collect();
        assert_eq!(tails, [1.0, 2.0, 3.0, 5.0, 6.0, 7.0, 8.0]);
        assert_eq!(three.at_least(6.0), 0.125);
        assert_eq!(three.at_most(-1.0), 0.0);
        assert_eq!(three.at_most(100.0), 1.0);
        assert_eq!(three.quantile_below(0.25), Some(1.0));
        assert_eq!(three.quantile_below(0.1), None);
        assert_eq!(SignedRankDistribution::new(0).at_least(0.0), 1.0);
    }

    #[test]
    fn smallest_tail_is_one_sign_pattern() {
        for n in [1, 10, 40, 100, 400] {
            let tail = SignedRankDistribution::new(n).at_most(0.0);
            assert_eq!(tail, 0.5_f64.powi(n as i32), "{n}");
        }
    }

    #[test]
    fn zero_differences_have_p_value_one() {
        let test = SignedRankTest::of(&[0.5, 0.5], 0.5).unwrap();
        assert_eq!((test.n, test.p_greater, test.p_less, test.p_two_sided), (0, 1.0, 1.0, 1.0));
        assert_eq!(SignedRankTest::of(&[], 0.0).unwrap().p_two_sided, 1.0);
    }

    #[test]
    fn infinite_or_too_many_values_are_refused() {
        assert!(SignedRankTest::of(&[1.0, f64::NAN], 0.0).unwrap_err().to_string().contains("observation 1 is NaN"));
        assert!(SignedRankTest::of(&[1.0], f64::INFINITY).is_err());
        assert!(SignedRankTest::of(&vec![1.0; 1001], 0.0).is_err());
    }

    proptest! {
        #[test]
        fn mirrored_differences_swap_the_tails(values in prop::collection::vec(-20_i32..21, 0..30)) {
            let differences: Vec<f64> = values.iter().map(|&value| f64::from(value) / 4.0).collect();
            let mirrored: Vec<f64> = differences.iter().map(|value| -value).collect();
            let (a, b) = (SignedRankTest::of(&differences, 0.0).unwrap(), SignedRankTest::of(&mirrored, 0.0).unwrap());
            prop_assert!((a.p_greater - b.p_less).abs() <= 1e-12);
            prop_assert!((a.p_two_sided - b.p_two_sided).abs() <= 1e-12);
            prop_assert!(a.p_greater + a.p_less >= 1.0 - 1e-12);
        }

        #[test]
        fn half_ranks_without_ties_are_equivalent(values in prop::collection::hash_set(1_i32..500, 1..25), signs in any::<u32>()) {
            let differences: Vec<f64> = values
                .iter()
                .enumerate()
                .map(|(i, &value)| f64::from(value) * if signs >> i & 1 == 1 { 1.0 } else { -1.0 })
                .collect();
            let test = SignedRankTest::of(&differences, 0.0).unwrap();
            let distribution = SignedRankDistribution::new(differences.len());
            prop_assert!((test.p_less - distribution.at_most(test.statistic)).abs() <= 1e-12);
        }

        #[test]
        fn lower_and_upper_tails_add_up_to_one(n in 0_usize..60, sum in 0_u32..2000) {
            let distribution = SignedRankDistribution::new(n);
            let sum = f64::from(sum).min(distribution.largest());
            let total = distribution.at_most(sum) + distribution.at_least(sum + 1.0);
            prop_assert!((total - 1.0).abs() <= 1e-12);
        }
    }
}
