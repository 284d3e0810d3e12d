//! AUROC, the metric of a probe: the probability that a random positive sample scores above a random negative one,
//! with ties counted as one half.

use crate::error::{Error, Result};

/// Area under the receiver operating characteristic of `scores` `[n]` against `labels` `[n]` (0 or 1), in `0..=1`.
///
/// With the rank sum `R` of the positive samples (ties get their mean rank) and `p` positive and `q` negative
/// samples, the area is `(R - p (p + 1) / 2) / (p q)` (Hanley and McNeil, "The meaning and use of the area under a
/// receiver operating characteristic curve", 1982; the Mann-Whitney statistic). Ranks are summed as integers, so that
/// only the last division rounds. Infinite scores are allowed.
///
/// # Errors
///
/// Different lengths, a label other than 0 and 1, a NaN score, or labels of one class only (the area is undefined).
pub fn auroc(scores: &[f64], labels: &[u8]) -> Result<f64> {
    if scores.len() != labels.len() {
        return Err(Error::input("AUROC", format!("{} scores for {} labels", scores.len(), labels.len())));
    }
    let [negatives, positives] = count_classes("AUROC labels", labels)?;
    if let Some(sample) = scores.iter().position(|score| score.is_nan()) {
        return Err(Error::input("AUROC", format!("the score of sample {sample} is NaN")));
    }
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_unstable_by(|&a, &b| scores[a].total_cmp(&scores[b]));
    let mut doubled_rank_sum: u128 = 0;
    let mut ranked = 0;
    // `==` determines ties, so -0 and +0 are tied.
    for tied in order.chunk_by(|&a, &b| scores[a] == scores[b]) {
        // Twice the mean of the ranks `ranked + 1..=ranked + tied.len()`.
        let doubled_mean_rank = (2 * ranked + tied.len() + 1) as u128;
        let tied_positives = tied.iter().filter(|&&sample| labels[sample] == 1).count();
        doubled_rank_sum += doubled_mean_rank * tied_positives as u128;
        ranked += tied.len();
    }
    let (p, q) = (positives as u128, negatives as u128);
    Ok((doubled_rank_sum - p * (p + 1)) as f64 / (2 * p * q) as f64)
}

/// The numbers of labels 0 and 1, at least one of each. `name` starts the messages.
pub(super) fn count_classes(name: &str, labels: &[u8]) -> Result<[usize; 2]> {
    if let Some((sample, label)) = labels.iter().enumerate().find(|(_, label)| **label > 1) {
        return Err(Error::input(name, format!("sample {sample} has label {label}; labels are 0 or 1")));
    }
    let positives = labels.iter().filter(|&&label| label == 1).count();
    match (labels.len() - positives, positives) {
        (0, 0) => Err(Error::input(name, "there are no samples")),
        (0, n) | (n, 0) => Err(Error::input(
            name,
            format!(
                "one class only (all {n} are {}); both are needed, so use more samples or another split",
                labels[0]
            ),
        )),
        (negatives, positives) => Ok([negatives, positives]),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn small_examples_have_known_areas() {
        assert_eq!(auroc(&[0.1, 0.4, 0.35, 0.8], &[0, 0, 1, 1]).unwrap(), 0.75);
        assert_eq!(auroc(&[1.0, 2.0], &[0, 1]).unwrap(), 1.0);
        assert_eq!(auroc(&[2.0, 1.0], &[0, 1]).unwrap(), 0.0);
        assert_eq!(auroc(&[3.0; 5], &[0, 1, 0, 1, 1]).unwrap(), 0.5);
        assert_eq!(auroc(&[-0.0, 0.0], &[0, 1]).unwrap(), 0.5);
        assert_eq!(auroc(&[f64::NEG_INFINITY, f64::INFINITY], &[0, 1]).unwrap(), 1.0);
    }

    #[test]
    fn invalid_input_is_rejected_with_reason() {
        let assert_error = |scores: &[f64], labels: &[u8], part: &str| {
            let error = auroc(scores, labels).unwrap_err();
            assert!(error.to_string().contains(part), "{error}");
            assert_eq!(error.exit_code(), 2);
        };
        assert_error(&[1.0, 2.0], &[1, 1], "one class only (all 2 are 1)");
        assert_error(&[1.0], &[0], "one class only");
        assert_error(&[], &[], "no samples");
        assert_error(&[1.0, f64::NAN], &[0, 1], "sample 1 is NaN");
        assert_error(&[1.0], &[0, 1], "1 scores for 2 labels");
        assert_error(&[1.0, 2.0], &[0, 7], "sample 1 has label 7");
    }

    fn auroc_by_pairs(scores: &[f64], labels: &[u8]) -> f64 {
        let (mut wins, mut pairs) = (0.0, 0.0);
        for (positive, _) in scores.iter().zip(labels).filter(|(_, label)| **label == 1) {
            for (negative, _) in scores.iter().zip(labels).filter(|(_, label)| **label == 0) {
                pairs += 1.0;
                wins += match positive.partial_cmp(negative).unwrap() {
                    std::cmp::Ordering::Greater => 1.0,
                    std::cmp::Ordering::Equal => 0.5,
                    std::cmp::Ordering::Less => 0.0,
                };
            }
        }
        wins / pairs
    }

    /// Scores on a coarse grid, so that most samples are tied; both classes are present.
    fn labeled_scores() -> impl Strategy<Value = (Vec<f64>, Vec<u8>)> {
        prop::collection::vec((-4_i32..5, 0_u8..2), 2..60)
            .prop_map(|pairs| pairs.into_iter().map(|(score, label)| (f64::from(score) / 2.0, label)).unzip())
            .prop_filter("both classes", |(_, labels): &(Vec<f64>, Vec<u8>)| labels.contains(&0) && labels.contains(&1))
    }

    proptest! {
        #[test]
        fn area_equals_count_over_pairs((scores, labels) in labeled_scores()) {
            let difference = (auroc(&scores, &labels).unwrap() - auroc_by_pairs(&scores, &labels)).abs();
            prop_assert!(difference <= 1e-12);
        }

        #[test]
        fn monotone_transformation_keeps_area((scores, labels) in labeled_scores()) {
            let mapped: Vec<f64> = scores.iter().map(|x| (3.0 * x).exp() - 7.0).collect();
            prop_assert_eq!(auroc(&scores, &labels).unwrap(), auroc(&mapped, &labels).unwrap());
        }

        #[test]
        fn flipped_labels_give_complement((scores, labels) in labeled_scores()) {
            let flipped: Vec<u8> = labels.iter().map(|label| 1 - label).collect();
            let sum = auroc(&scores, &labels).unwrap() + auroc(&scores, &flipped).unwrap();
            prop_assert!((sum - 1.0).abs() <= 1e-12);
        }

        #[test]
        fn sample_order_does_not_matter((scores, labels) in labeled_scores()) {
            let reversed: Vec<f64> = scores.iter().rev().copied().collect();
            let labels_reversed: Vec<u8> = labels.iter().rev().copied().collect();
            prop_assert_eq!(auroc(&scores, &labels).unwrap(), auroc(&reversed, &labels_reversed).unwrap());
        }
    }
}
