//! Draws rows and splits them into a training and a test side, keeping the proportion of the classes.
//!
//! The number of rows of each class follows the method of the largest remainder, as in scikit-learn's stratified
//! `train_test_split`; which rows they are follows the seed alone. The generator differs from NumPy's, so the rows do.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::error::{Error, Result};

/// Rows drawn from a data set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// Indices of the training rows, in random order.
    pub train: Vec<usize>,
    /// Indices of the test rows, in random order; none of them in `train`.
    pub test: Vec<usize>,
    /// Rows asked for.
    pub requested: usize,
    /// Rows drawn: fewer than `requested` when the data set is smaller.
    pub taken: usize,
}

impl Split {
    /// What to tell the user when there were fewer rows than asked for.
    pub fn shortfall(&self) -> Option<String> {
        (self.taken < self.requested).then(|| {
            format!("{} rows were asked for and the data set has {}; using all of them", self.requested, self.taken)
        })
    }
}

/// Takes `samples` rows (all, if there are fewer) with the class proportions of `labels`, then a share of `train_frac` of
/// them, in the same proportions, as the training side: `floor(train_frac * taken)` rows. The rest is the test side.
///
/// # Errors
/// `samples` is 0; `train_frac` is not inside (0, 1); a side would lack one of the classes.
pub fn stratified_sample_and_split(labels: &[bool], samples: usize, train_frac: f64, seed: u64) -> Result<Split> {
    if samples == 0 {
        return Err(Error::usage("--samples 0 leaves nothing to measure; ask for at least 4"));
    }
    // Written so that NaN is refused as well.
    if !(train_frac > 0.0 && train_frac < 1.0) {
        return Err(Error::usage(format!("--train-frac {train_frac} is not between 0 and 1 (both excluded)")));
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut classes: [Vec<usize>; 2] =
        [false, true].map(|class| (0..labels.len()).filter(|row| labels[*row] == class).collect());
    for class in &mut classes {
        class.shuffle(&mut rng);
    }
    let taken = samples.min(labels.len());
    let drawn = largest_remainder([classes[0].len(), classes[1].len()], taken);
    for (class, n) in classes.iter_mut().zip(drawn) {
        class.truncate(n);
    }

    // A product such as 0.29 * 100 falls just short of the whole number that is meant.
    let n_train = (train_frac * taken as f64 + 1e-9).floor() as usize;
    let in_train = largest_remainder(drawn, n_train);
    let mut train = Vec::with_capacity(n_train);
    let mut test = Vec::with_capacity(taken - n_train);
    for (class, n) in classes.iter().zip(in_train) {
        train.extend_from_slice(&class[..n]);
        test.extend_from_slice(&class[n..]);
    }
    for (side, of_class) in [("training", in_train), ("test", [drawn[0] - in_train[0], drawn[1] - in_train[1]])] {
        if of_class.contains(&0) {
            return Err(Error::usage(format!(
                "the {side} side would hold {} rows of class 0 and {} of class 1 ({taken} rows, {} and {} of the classes, \
                 --train-frac {train_frac}); it needs both, so raise --samples or change --train-frac",
                of_class[0], of_class[1], drawn[0], drawn[1],
            )));
        }
    }
    train.shuffle(&mut rng);
    test.shuffle(&mut rng);
    Ok(Split { train, test, requested: samples, taken })
}

/// Shares `total` (at most the sum of `counts`) out in proportion to `counts`: each gets its whole part, and what is
/// left goes to the larger remainder, to class 0 when they are equal. With two classes at most one is left.
fn largest_remainder(counts: [usize; 2], total: usize) -> [usize; 2] {
    let all = (counts[0] + counts[1]) as u128;
    if all == 0 {
        return [0, 0];
    }
    let product = counts.map(|count| count as u128 * total as u128);
    let mut shares = product.map(|product| (product / all) as usize);
    if shares[0] + shares[1] < total {
        shares[usize::from(product[1] % all > product[0] % all)] += 1;
    }
    shares
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn positives(labels: &[bool], rows: &[usize]) -> usize {
        rows.iter().filter(|row| labels[**row]).count()
    }

    #[test]
    fn the_default_sizes_are_those_of_scikit_learn() {
        let labels: Vec<bool> = (0..612).map(|row| row % 2 == 1).collect();
        let split = stratified_sample_and_split(&labels, 600, 0.8, 0).unwrap();
        assert_eq!((split.train.len(), split.test.len()), (480, 120));
        assert_eq!((positives(&labels, &split.train), positives(&labels, &split.test)), (240, 60));
        assert_eq!(split.shortfall(), None);
    }

    #[test]
    fn remainders_go_to_the_class_that_is_owed_more() {
        assert_eq!(largest_remainder([7, 3], 5), [4, 1]); // 3.5 and 1.5: equal remainders, class 0
        assert_eq!(largest_remainder([62, 38], 10), [6, 4]); // 6.2 and 3.8
        assert_eq!(largest_remainder([1, 999], 10), [0, 10]);
        assert_eq!(largest_remainder([0, 0], 0), [0, 0]);
        assert_eq!(largest_remainder([usize::MAX / 2, usize::MAX / 2], 3), [2, 1]);
    }

    #[test]
    fn a_share_that_rounding_makes_fall_short_is_not_cut() {
        let labels: Vec<bool> = (0..100).map(|row| row % 2 == 1).collect();
        assert_eq!(stratified_sample_and_split(&labels, 100, 0.29, 0).unwrap().train.len(), 29);
    }

    #[test]
    fn fewer_rows_than_asked_for_are_all_taken_and_said() {
        let labels = [true, false, true, false, true, false];
        let split = stratified_sample_and_split(&labels, 600, 0.5, 1).unwrap();
        assert_eq!((split.requested, split.taken), (600, 6));
        insta::assert_snapshot!(split.shortfall().unwrap(), @"600 rows were asked for and the data set has 6; using all of them");
    }

    #[test]
    fn a_side_without_a_class_is_refused_with_the_numbers() {
        let labels: Vec<bool> = (0..20).map(|row| row == 0).collect();
        let error = stratified_sample_and_split(&labels, 20, 0.8, 0).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        insta::assert_snapshot!(error, @"the test side would hold 4 rows of class 0 and 0 of class 1 (20 rows, 19 and 1 of the classes, --train-frac 0.8); it needs both, so raise --samples or change --train-frac");
        assert!(stratified_sample_and_split(&[], 4, 0.5, 0).is_err());
        assert!(stratified_sample_and_split(&[true; 9], 4, 0.5, 0).is_err());
    }

    #[test]
    fn bad_fractions_and_no_samples_are_usage_errors() {
        for fraction in [0.0, 1.0, -0.5, 1.5, f64::NAN, f64::INFINITY] {
            let error = stratified_sample_and_split(&[true, false, true, false], 4, fraction, 0).unwrap_err();
            assert!(matches!(error, Error::Usage(_)), "{fraction}");
        }
        assert!(stratified_sample_and_split(&[true, false], 0, 0.5, 0).is_err());
    }

    proptest! {
        #[test]
        fn sides_are_disjoint_sized_and_proportional(
            labels in prop::collection::vec(any::<bool>(), 0..200),
            samples in 1usize..250,
            train_frac in 0.01f64..0.99,
            seed in any::<u64>(),
        ) {
            let Ok(split) = stratified_sample_and_split(&labels, samples, train_frac, seed) else {
                return Ok(());
            };
            let rows: HashSet<usize> = split.train.iter().chain(&split.test).copied().collect();
            prop_assert_eq!(rows.len(), split.train.len() + split.test.len());
            prop_assert!(rows.iter().all(|row| *row < labels.len()));
            prop_assert_eq!(split.taken, samples.min(labels.len()));
            prop_assert_eq!(rows.len(), split.taken);
            prop_assert_eq!(split.train.len(), (train_frac * split.taken as f64 + 1e-9).floor() as usize);

            let share = labels.iter().filter(|label| **label).count() as f64 / labels.len() as f64;
            let drawn = split.train.iter().chain(&split.test).filter(|row| labels[**row]).count() as f64;
            prop_assert!((drawn - share * split.taken as f64).abs() < 1.0);
            let drawn_share = drawn / split.taken as f64;
            for side in [&split.train, &split.test] {
                let of_side = positives(&labels, side) as f64;
                prop_assert!((of_side - drawn_share * side.len() as f64).abs() < 1.0);
                prop_assert!(of_side > 0.0 && of_side < side.len() as f64);
            }
            prop_assert_eq!(&split, &stratified_sample_and_split(&labels, samples, train_frac, seed).unwrap());
        }

        #[test]
        fn a_refusal_has_a_reason(
            labels in prop::collection::vec(any::<bool>(), 8..200),
            samples in 8usize..250,
            seed in any::<u64>(),
        ) {
            // With a quarter of each class and at least eight rows, both sides hold both classes.
            let of_class = labels.iter().filter(|label| **label).count();
            prop_assume!(4 * of_class >= labels.len() && 4 * (labels.len() - of_class) >= labels.len());
            prop_assert!(stratified_sample_and_split(&labels, samples, 0.5, seed).is_ok());
        }
    }
}
