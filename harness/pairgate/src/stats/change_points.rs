//! Where the distribution of a series changes: E-divisive.
//!
//! Matteson and James, "A nonparametric approach for multiple change point analysis of multivariate data", Journal of
//! the American Statistical Association 109, 2014: the split with the largest energy distance (Szekely and Rizzo, with the
//! exponent 1) between its two sides, tested by permutations within the clusters found so far, repeated until none is
//! significant. It assumes no distribution and finds changes of scatter as well as of level. Permutations are drawn from a
//! seed, so that a series has the same change points on every machine.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{MAX_OBSERVATIONS, check_observations};
use crate::error::Result;

/// The smallest number of values on each side of a change; fewer are more likely to be one bad hour.
pub const MIN_SEGMENT: usize = 3;

/// The probability of a change point in a series without one.
pub const LEVEL: f64 = 0.001;

/// Permutations of each test: the fewest with which [`LEVEL`] can be reached.
pub const PERMUTATIONS: usize = 999;

/// The smallest length of a series in which a split can be significant by [`can_be_significant`].
pub const MIN_SERIES: usize = 14;

/// Statistics that differ by less than this fraction are equal: the same distances, summed in another order.
const EQUAL_WITHIN: f64 = 1e-9;

/// A change of the distribution.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct ChangePoint {
    /// The index of the first value after it.
    pub index: usize,
    /// The statistic of the split.
    pub statistic: f64,
}

/// Whether a change with so many values before it and from it on can be significant at [`LEVEL`], however large it is. Of the
/// permutations, two in `n choose k` have the same values on the same sides: in this order and mirrored.
pub fn can_be_significant(before: usize, after: usize) -> bool {
    let n = before + after;
    let ways: f64 = (0..before.min(after)).map(|index| (n - index) as f64 / (index + 1) as f64).product();
    before.min(after) >= MIN_SEGMENT && 2.0 / ways <= LEVEL
}

/// The latest of `n` values at which no change can be significant yet; all of them, if they are fewer than [`MIN_SERIES`].
pub fn n_undecidable(n: usize) -> usize {
    (MIN_SEGMENT..n).find(|after| can_be_significant(n - after, *after)).map_or(n, |after| after - 1)
}

/// The number of values from a change on with which it can be significant, if `before` values are before it.
pub fn needed_after(before: usize) -> Option<usize> {
    (MIN_SEGMENT..=MAX_OBSERVATIONS).find(|after| can_be_significant(before, *after))
}

/// The change points of `values`, in their order, ascending; no side of a change is shorter than [`MIN_SEGMENT`].
///
/// # Errors
/// More than [`super::MAX_OBSERVATIONS`] values, or one that is not finite.
pub fn change_points(values: &[f64], seed: u64) -> Result<Vec<ChangePoint>> {
    check_observations("series", values)?;
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut ends = vec![0, values.len()];
    let mut found = Vec::new();
    while let Some(best) = best_split(values, &ends).filter(|best| best.statistic > 0.0) {
        let sides = ends.windows(2).find(|cluster| (cluster[0]..cluster[1]).contains(&best.index));
        let is_decidable =
            sides.is_some_and(|cluster| can_be_significant(best.index - cluster[0], cluster[1] - best.index));
        // Without the first condition, the drawn permutations would decide a split whose p-value is above the level.
        if !is_decidable || !is_significant(values, &ends, best.statistic, &mut random) {
            break;
        }
        ends.push(best.index);
        ends.sort_unstable();
        found.push(best);
    }
    found.sort_unstable_by_key(|point| point.index);
    Ok(found)
}

/// Whether no permutation within the clusters has a split as good: with [`PERMUTATIONS`], a p-value of at most [`LEVEL`].
fn is_significant(values: &[f64], ends: &[usize], statistic: f64, random: &mut ChaCha8Rng) -> bool {
    let mut permuted = values.to_vec();
    (0..PERMUTATIONS).all(|_| {
        for cluster in ends.windows(2) {
            let cluster = &mut permuted[cluster[0]..cluster[1]];
            for last in (1..cluster.len()).rev() {
                cluster.swap(last, random.random_range(0..=last));
            }
        }
        // A permutation with the same values on the same sides counts as equally good.
        best_split(&permuted, ends).is_none_or(|best| best.statistic < statistic * (1.0 - EQUAL_WITHIN))
    })
}

/// The best split of any cluster; none if all are too short.
fn best_split(values: &[f64], ends: &[usize]) -> Option<ChangePoint> {
    let splits = ends.windows(2).filter_map(|cluster| {
        let best = best_in_cluster(&values[cluster[0]..cluster[1]])?;
        Some(ChangePoint { index: cluster[0] + best.index, ..best })
    });
    splits.max_by(|a, b| a.statistic.total_cmp(&b.statistic))
}

/// The split after `index` values with the largest statistic, compared with any number of the values after it: with a
/// second change later, the values beyond that change would blur the first.
fn best_in_cluster(values: &[f64]) -> Option<ChangePoint> {
    let n = values.len();
    let mut best: Option<ChangePoint> = None;
    // Sums of the distances of all pairs among the values from i to the newest, for each i; and from the first to each.
    let mut within_from = vec![0.0; n + 1];
    let mut within_to = vec![0.0; n + 1];
    for end in 1..=n {
        let newest = values[end - 1];
        let mut to_newest = 0.0;
        for start in (0..end - 1).rev() {
            to_newest += (values[start] - newest).abs();
            within_from[start] += to_newest;
        }
        within_to[end] = within_from[0];
        if end < 2 * MIN_SEGMENT {
            continue;
        }
        for index in MIN_SEGMENT..=end - MIN_SEGMENT {
            let (left, right) = (index as f64, (end - index) as f64);
            let (within_left, within_right) = (within_to[index], within_from[index]);
            let between = within_to[end] - within_left - within_right;
            let pairs = |n: f64| n * (n - 1.0) / 2.0;
            let energy = 2.0 * between / (left * right) - within_left / pairs(left) - within_right / pairs(right);
            let statistic = left * right / (left + right) * energy;
            if best.is_none_or(|best| statistic > best.statistic) {
                best = Some(ChangePoint { index, statistic });
            }
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Approximately normal, with the given level and scatter: the sum of twelve uniform numbers.
    fn noise(random: &mut ChaCha8Rng, n: usize, level: f64, scatter: f64) -> Vec<f64> {
        let normal = |random: &mut ChaCha8Rng| (0..12).map(|_| random.random_range(0.0..1.0)).sum::<f64>() - 6.0;
        (0..n).map(|_| level + scatter * normal(random)).collect()
    }

    fn indices(values: &[f64]) -> Vec<usize> {
        change_points(values, 0).unwrap().into_iter().map(|point| point.index).collect()
    }

    /// The statistic by its definition.
    fn statistic(left: &[f64], right: &[f64]) -> f64 {
        let mean = |a: &[f64], b: &[f64], skip: bool| {
            let pairs =
                a.iter().enumerate().flat_map(|(i, x)| b.iter().enumerate().map(move |(j, y)| (i, j, (x - y).abs())));
            let kept: Vec<f64> = pairs.filter(|(i, j, _)| !skip || i != j).map(|(.., distance)| distance).collect();
            kept.iter().sum::<f64>() / kept.len() as f64
        };
        let (m, n) = (left.len() as f64, right.len() as f64);
        m * n / (m + n) * (2.0 * mean(left, right, false) - mean(left, left, true) - mean(right, right, true))
    }

    #[test]
    fn step_of_five_percent_is_located() {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        for trial in 0..20 {
            let mut values = noise(&mut random, 15, 1.0, 0.01);
            values.extend(noise(&mut random, 15, 1.05, 0.01));
            let found = indices(&values);
            assert!(found.len() == 1 && found[0].abs_diff(15) <= 1, "trial {trial}: {found:?}");
        }
    }

    #[test]
    fn step_up_and_down_is_two_changes() {
        let mut random = ChaCha8Rng::seed_from_u64(2);
        let parts = [(20, 1.0), (20, 1.1), (20, 1.0)];
        let values: Vec<f64> = parts.iter().flat_map(|(n, level)| noise(&mut random, *n, *level, 0.01)).collect();
        assert_eq!(indices(&values), [20, 40]);
    }

    #[test]
    fn unchanged_series_seldom_has_a_change() {
        let mut random = ChaCha8Rng::seed_from_u64(3);
        let series = 1000;
        let alarms = (0..series).filter(|_| !indices(&noise(&mut random, 30, 1.0, 0.03)).is_empty()).count();
        // One in a thousand is expected; more than five then have a probability of 0.0006.
        assert!(alarms <= 5, "{alarms} of {series}");
    }

    #[test]
    fn short_or_constant_series_has_no_change() {
        assert_eq!(indices(&[]), [0usize; 0]);
        assert_eq!(indices(&[1.0; 40]), [0usize; 0]);
        let step: Vec<f64> = (0..MIN_SERIES - 1).map(|i| if i < MIN_SERIES / 2 { 1.0 } else { 9.0 }).collect();
        assert_eq!(indices(&step), [0usize; 0], "too few values to be significant");
        let step: Vec<f64> = (0..24).map(|i| if i < 12 { 1.0 } else { 9.0 }).collect();
        assert_eq!(indices(&step), [12]);
        assert!(change_points(&[1.0, f64::NAN], 0).is_err());
        assert!(change_points(&vec![1.0; 1001], 0).is_err());
    }

    #[test]
    fn number_of_runs_decides_which_change_can_be_significant() {
        assert!((0..MIN_SERIES).all(|before| !can_be_significant(before, MIN_SERIES - 1 - before)));
        assert!(can_be_significant(7, 7) && can_be_significant(9, 5) && can_be_significant(5, 9));
        assert_eq!([7, 8, 9, 12, 13, 20, 21].map(|before| needed_after(before).unwrap()), [7, 6, 5, 5, 4, 4, 3]);
        assert_eq!(needed_after(2), None);
        assert_eq!([2, 13, 14, 16, 17, 23, 24, 1000].map(n_undecidable), [2, 13, 4, 4, 3, 3, 2, 2]);
        // A step without any scatter that is one run too short, and one that is not.
        let step = |before: usize, after: usize| [vec![1.0; before], vec![9.0; after]].concat();
        for (before, after) in [(10, 3), (20, 3), (12, 4)] {
            assert_eq!(indices(&step(before, after)), [0usize; 0], "{before} + {after}");
        }
        assert_eq!(indices(&step(40, 4)), [40]);
    }

    proptest! {
        #[test]
        fn best_split_matches_the_definition(values in prop::collection::vec(-5.0_f64..5.0, 6..20)) {
            let best = best_in_cluster(&values).unwrap();
            let mut largest = f64::NEG_INFINITY;
            for end in 2 * MIN_SEGMENT..=values.len() {
                for index in MIN_SEGMENT..=end - MIN_SEGMENT {
                    largest = largest.max(statistic(&values[..index], &values[index..end]));
                }
            }
            prop_assert!((best.statistic - largest).abs() <= 1e-9 * (1.0 + largest.abs()));
        }
    }
}
