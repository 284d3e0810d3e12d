//! Draws rows and splits them into a training and a test side, stratified by class.
//!
//! The number of rows of each class follows the largest remainder method, as in scikit-learn's stratified
//! `train_test_split`. The seed determines which rows are drawn. The random generator differs from NumPy's, so the same
//! seed draws other rows than scikit-learn.

use std::collections::HashSet;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

use super::dialogue::Dialogue;
use crate::error::{Error, Result};

/// Indices of the rows drawn from a data set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataSplit {
    /// The training rows, in random order.
    pub train: Vec<usize>,
    /// The test rows, in random order and disjoint from `train`.
    pub test: Vec<usize>,
    /// The requested number of rows.
    pub requested: usize,
    /// The number of rows drawn: less than `requested` if the data set is smaller.
    pub taken: usize,
}

impl DataSplit {
    /// A warning if the data set has fewer rows than requested.
    pub fn shortfall(&self) -> Option<String> {
        (self.taken < self.requested)
            .then(|| format!("{} rows requested, the data set has {}; using all of them", self.requested, self.taken))
    }
}

/// Draws `samples` rows (or all, if there are fewer) with the class proportions of `labels`. The training side gets
/// `floor(train_frac * taken)` of them in the same proportions, the test side the rest. `is_whole` is whether the data set has
/// no further rows; it decides the advice of an error.
///
/// # Errors
/// `samples` is 0; `train_frac` is outside (0, 1); a side would lack one of the classes.
pub fn stratified_sample_and_split(
    labels: &[bool],
    samples: usize,
    train_frac: f64,
    seed: u64,
    is_whole: bool,
) -> Result<DataSplit> {
    if samples == 0 {
        return Err(Error::usage("--samples must be at least 4, not 0"));
    }
    // The negated form rejects NaN too.
    if !(train_frac > 0.0 && train_frac < 1.0) {
        return Err(Error::usage(format!("--train-frac must be greater than 0 and less than 1, not {train_frac}")));
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

    // Without the 1e-9, 0.29 * 100 = 28.999999999999996 would be floored to 28.
    let n_train = (train_frac * taken as f64 + 1e-9).floor() as usize;
    let in_train = largest_remainder(drawn, n_train);
    let mut train = Vec::with_capacity(n_train);
    let mut test = Vec::with_capacity(taken - n_train);
    for (class, n) in classes.iter().zip(in_train) {
        train.extend_from_slice(&class[..n]);
        test.extend_from_slice(&class[n..]);
    }
    for (side, class_rows) in [("training", in_train), ("test", [drawn[0] - in_train[0], drawn[1] - in_train[1]])] {
        if let Some(class) = class_rows.iter().position(|rows| *rows == 0) {
            let advice = match (is_whole && taken == labels.len(), drawn[class]) {
                (false, _) => "so increase --samples or change --train-frac".to_owned(),
                (true, 0 | 1) => format!("and all rows of the data set are drawn, so add rows of class {class}"),
                (true, _) => {
                    format!(
                        "and all rows of the data set are drawn, so add rows of class {class} or change --train-frac"
                    )
                }
            };
            return Err(Error::usage(format!(
                "the {side} split would have {} rows of class 0 and {} of class 1 ({taken} rows drawn, {} and {} per class, \
                 --train-frac {train_frac}); it needs both classes, {advice}",
                class_rows[0], class_rows[1], drawn[0], drawn[1],
            )));
        }
    }
    train.shuffle(&mut rng);
    test.shuffle(&mut rng);
    Ok(DataSplit { train, test, requested: samples, taken })
}

/// Test rows whose dialogue is also a training row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedRows {
    /// A training row has the label of the test row: a probe need not generalize to get it right.
    pub same_label: usize,
    /// Training rows have the other label only: a probe learns to get it wrong.
    pub other_label: usize,
}

/// Counts the test rows whose dialogue is also a training row.
///
/// Two dialogues are the same if the chat template receives the same messages and variables.
pub fn rows_on_both_sides(dialogues: &[Dialogue], split: &DataSplit) -> SharedRows {
    let key = |row: &usize| {
        let dialogue = &dialogues[*row];
        let mut hasher = blake3::Hasher::new();
        for message in &dialogue.messages {
            hasher.update(Value::Object(message.keys().clone()).to_string().as_bytes());
            hasher.update(b"\n");
        }
        hasher.update(Value::Object(dialogue.template_values.clone()).to_string().as_bytes());
        *hasher.finalize().as_bytes()
    };
    let train: HashSet<([u8; 32], bool)> = split.train.iter().map(|row| (key(row), dialogues[*row].label)).collect();
    let mut shared = SharedRows { same_label: 0, other_label: 0 };
    for row in &split.test {
        let (key, label) = (key(row), dialogues[*row].label);
        if train.contains(&(key, label)) {
            shared.same_label += 1;
        } else if train.contains(&(key, !label)) {
            shared.other_label += 1;
        }
    }
    shared
}

/// Distributes `total` (at most the sum of `counts`) in proportion to `counts`. Each class gets its integer part; the
/// row left over goes to the larger remainder, or to class 0 if they are equal. With two classes at most one row is
/// left over.
fn largest_remainder(counts: [usize; 2], total: usize) -> [usize; 2] {
    let all = (counts[0] + counts[1]) as u128;
    if all == 0 {
        return [0, 0];
    }
    let scaled = counts.map(|count| count as u128 * total as u128);
    let mut quotas = scaled.map(|scaled| (scaled / all) as usize);
    if quotas[0] + quotas[1] < total {
        quotas[usize::from(scaled[1] % all > scaled[0] % all)] += 1;
    }
    quotas
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::dialogue::{ChatMessage, Role};
    use super::*;

    fn positives(labels: &[bool], rows: &[usize]) -> usize {
        rows.iter().filter(|row| labels[**row]).count()
    }

    #[test]
    fn default_split_sizes_match_scikit_learn() {
        let labels: Vec<bool> = (0..612).map(|row| row % 2 == 1).collect();
        let split = stratified_sample_and_split(&labels, 600, 0.8, 0, true).unwrap();
        assert_eq!((split.train.len(), split.test.len()), (480, 120));
        assert_eq!((positives(&labels, &split.train), positives(&labels, &split.test)), (240, 60));
        assert_eq!(split.shortfall(), None);
    }

    #[test]
    fn largest_remainder_gets_row_left_over() {
        assert_eq!(largest_remainder([7, 3], 5), [4, 1]); // 3.5 and 1.5: equal remainders, class 0
        assert_eq!(largest_remainder([62, 38], 10), [6, 4]); // 6.2 and 3.8
        assert_eq!(largest_remainder([1, 999], 10), [0, 10]);
        assert_eq!(largest_remainder([0, 0], 0), [0, 0]);
        assert_eq!(largest_remainder([usize::MAX / 2, usize::MAX / 2], 3), [2, 1]);
    }

    #[test]
    fn train_fraction_rounding_does_not_lose_row() {
        let labels: Vec<bool> = (0..100).map(|row| row % 2 == 1).collect();
        assert_eq!(stratified_sample_and_split(&labels, 100, 0.29, 0, true).unwrap().train.len(), 29);
    }

    #[test]
    fn small_data_set_is_used_completely_with_warning() {
        let labels = [true, false, true, false, true, false];
        let split = stratified_sample_and_split(&labels, 600, 0.5, 1, true).unwrap();
        assert_eq!((split.requested, split.taken), (600, 6));
        insta::assert_snapshot!(split.shortfall().unwrap(), @"600 rows requested, the data set has 6; using all of them");
    }

    #[test]
    fn test_rows_that_are_training_rows_are_counted() {
        let dialogue = |text: &str, label| Dialogue::new(vec![ChatMessage::new(Role::Assistant, text)], label);
        let mut dialogues: Vec<Dialogue> = ["a", "b", "a", "c", "b"].map(|text| dialogue(text, text == "b")).into();
        let split = DataSplit { train: vec![0, 1], test: vec![2, 3, 4], requested: 5, taken: 5 };
        let shared = |dialogues: &[Dialogue]| {
            let SharedRows { same_label, other_label } = rows_on_both_sides(dialogues, &split);
            (same_label, other_label)
        };
        assert_eq!(shared(&dialogues), (2, 0));
        dialogues[4].label = false;
        assert_eq!(shared(&dialogues), (1, 1), "another label is the same dialogue");
        dialogues[4].template_values.insert("tools".to_owned(), Value::Null);
        assert_eq!(shared(&dialogues), (1, 0));
    }

    #[test]
    fn split_without_class_is_rejected_with_counts() {
        let labels: Vec<bool> = (0..20).map(|row| row == 0).collect();
        let error = stratified_sample_and_split(&labels, 20, 0.8, 0, true).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        insta::assert_snapshot!(error, @"the test split would have 4 rows of class 0 and 0 of class 1 (20 rows drawn, 19 and 1 per class, --train-frac 0.8); it needs both classes, and all rows of the data set are drawn, so add rows of class 1");
        let labels: Vec<bool> = (0..50).map(|row| row < 2).collect();
        let error = |samples, is_whole| {
            stratified_sample_and_split(&labels, samples, 0.8, 0, is_whole).unwrap_err().to_string()
        };
        assert!(error(600, true).ends_with("so add rows of class 1 or change --train-frac"), "{}", error(600, true));
        assert!(error(50, false).ends_with("so increase --samples or change --train-frac"));
        assert!(error(40, true).ends_with("so increase --samples or change --train-frac"));
        assert!(stratified_sample_and_split(&[], 4, 0.5, 0, true).is_err());
        assert!(stratified_sample_and_split(&[true; 9], 4, 0.5, 0, true).is_err());
    }

    #[test]
    fn invalid_fractions_and_zero_samples_are_usage_errors() {
        for fraction in [0.0, 1.0, -0.5, 1.5, f64::NAN, f64::INFINITY] {
            let error = stratified_sample_and_split(&[true, false, true, false], 4, fraction, 0, true).unwrap_err();
            assert!(matches!(error, Error::Usage(_)), "{fraction}");
        }
        assert!(stratified_sample_and_split(&[true, false], 0, 0.5, 0, true).is_err());
    }

    proptest! {
        #[test]
        fn sides_are_disjoint_sized_and_proportional(
            labels in prop::collection::vec(any::<bool>(), 0..200),
            samples in 1usize..250,
            train_frac in 0.01f64..0.99,
            seed in any::<u64>(),
        ) {
            let Ok(split) = stratified_sample_and_split(&labels, samples, train_frac, seed, true) else {
                return Ok(());
            };
            let rows: HashSet<usize> = split.train.iter().chain(&split.test).copied().collect();
            prop_assert_eq!(rows.len(), split.train.len() + split.test.len());
            prop_assert!(rows.iter().all(|row| *row < labels.len()));
            prop_assert_eq!(split.taken, samples.min(labels.len()));
            prop_assert_eq!(rows.len(), split.taken);
            prop_assert_eq!(split.train.len(), (train_frac * split.taken as f64 + 1e-9).floor() as usize);

            let fraction = labels.iter().filter(|label| **label).count() as f64 / labels.len() as f64;
            let drawn = split.train.iter().chain(&split.test).filter(|row| labels[**row]).count() as f64;
            prop_assert!((drawn - fraction * split.taken as f64).abs() < 1.0);
            let drawn_fraction = drawn / split.taken as f64;
            for side in [&split.train, &split.test] {
                let side_positives = positives(&labels, side) as f64;
                prop_assert!((side_positives - drawn_fraction * side.len() as f64).abs() < 1.0);
                prop_assert!(side_positives > 0.0 && side_positives < side.len() as f64);
            }
            prop_assert_eq!(&split, &stratified_sample_and_split(&labels, samples, train_frac, seed, true).unwrap());
        }

        #[test]
        fn balanced_labels_always_split(
            labels in prop::collection::vec(any::<bool>(), 8..200),
            samples in 8usize..250,
            seed in any::<u64>(),
        ) {
            // With at least a quarter of each class and eight rows, both sides get both classes.
            let positive = labels.iter().filter(|label| **label).count();
            prop_assume!(4 * positive >= labels.len() && 4 * (labels.len() - positive) >= labels.len());
            prop_assert!(stratified_sample_and_split(&labels, samples, 0.5, seed, true).is_ok());
        }
    }
}
