//! The Hodges-Lehmann estimate of a centre (Hodges & Lehmann 1963) and its exact signed-rank interval.
//!
//! The estimate is the median of the Walsh averages `(d_i + d_j) / 2`, `i <= j`; the interval's ends are order
//! statistics of them. On paired measurements it is nearly as tight as the mean's and is not moved by an outlier.

use super::signed_rank::{distribution, tail_count};
use super::summary::median_of_sorted;

/// A centre with an interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Centre {
    /// The estimate.
    pub estimate: f64,
    /// Ends of the interval and its exact confidence; none for a single observation.
    pub interval: Option<(f64, f64, f64)>,
}

/// The centre of `values`, which must be finite, with an interval of at least `confidence` where there are enough
/// values for one, and else the widest there is, with its own lower confidence.
///
/// None for no values.
pub fn centre(values: &[f64], confidence: f64) -> Option<Centre> {
    let n = values.len();
    let averages = walsh_averages(values);
    let estimate = median_of_sorted(&averages)?;
    if n < 2 {
        return Some(Centre { estimate, interval: None });
    }
    let (mut left_out, mut below) = tail_count(n, (1.0 - confidence) / 2.0);
    if left_out == 0 {
        // The whole range of the averages leaves out one pattern of signs on each side.
        (left_out, below) = (1, distribution(n)[0]);
    }
    let (low, high) = (averages[left_out - 1], averages[averages.len() - left_out]);
    Some(Centre { estimate, interval: Some((low, high, 1.0 - 2.0 * below)) })
}

/// All `n (n + 1) / 2` averages of pairs, each value with itself included, sorted.
pub fn walsh_averages(values: &[f64]) -> Vec<f64> {
    let mut averages: Vec<f64> = values
        .iter()
        .enumerate()
        .flat_map(|(index, first)| values[index..].iter().map(move |second| (first + second) / 2.0))
        .collect();
    averages.sort_by(f64::total_cmp);
    averages
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_small_case_worked_by_hand() {
        // Walsh averages of 1, 2, 4: 1, 1.5, 2, 2.5, 3, 4.
        let centre = centre(&[4.0, 1.0, 2.0], 0.75).unwrap();
        assert_eq!(centre.estimate, 2.25);
        assert_eq!(centre.interval, Some((1.0, 4.0, 0.75)));
    }

    #[test]
    fn few_values_have_the_widest_interval_and_say_its_confidence() {
        let centre = centre(&[1.0, 2.0, 3.0, 4.0, 5.0], 0.95).unwrap();
        assert_eq!(centre.interval, Some((1.0, 5.0, 1.0 - 2.0 / 32.0)));
        assert_eq!(super::centre(&[7.0], 0.95).unwrap().interval, None);
        assert_eq!(super::centre(&[], 0.95), None);
    }

    proptest! {
        #[test]
        fn shifting_the_values_shifts_everything(
            values in prop::collection::vec(-100.0f64..100.0, 2..25), shift in -50.0f64..50.0,
        ) {
            let before = centre(&values, 0.9).unwrap();
            let moved: Vec<f64> = values.iter().map(|value| value + shift).collect();
            let after = centre(&moved, 0.9).unwrap();
            prop_assert!((after.estimate - before.estimate - shift).abs() < 1e-9);
            let ((low, high, confidence), (low_2, high_2, confidence_2)) =
                (before.interval.unwrap(), after.interval.unwrap());
            prop_assert!((low_2 - low - shift).abs() < 1e-9 && (high_2 - high - shift).abs() < 1e-9);
            prop_assert_eq!(confidence, confidence_2);
            prop_assert!(low <= before.estimate && before.estimate <= high);
        }

        #[test]
        fn more_confidence_is_never_narrower(values in prop::collection::vec(-100.0f64..100.0, 2..25)) {
            let wide = centre(&values, 0.99).unwrap().interval.unwrap();
            let narrow = centre(&values, 0.8).unwrap().interval.unwrap();
            prop_assert!(wide.0 <= narrow.0 && narrow.1 <= wide.1 && narrow.2 <= wide.2);
        }
    }
}
