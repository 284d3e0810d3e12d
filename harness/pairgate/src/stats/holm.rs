//! Holm's correction of the p-values of several tests.
//!
//! Holm, "A simple sequentially rejective multiple test procedure", 1979: the probability of any false rejection among
//! all tests is at most the level, however the tests depend on each other. It is never less powerful than Bonferroni's
//! correction.

use crate::error::{Error, Result};

/// The adjusted p-value of each test, in the order given, to be compared with the level for all of them together.
///
/// # Errors
/// A p-value outside `0..=1`.
pub fn holm(p_values: &[f64]) -> Result<Vec<f64>> {
    if let Some(index) = p_values.iter().position(|p_value| !(0.0..=1.0).contains(p_value)) {
        return Err(Error::input(
            "tests",
            format!("p-value {index} is {}; it must lie between 0 and 1", p_values[index]),
        ));
    }
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|a, b| p_values[*a].total_cmp(&p_values[*b]));
    let mut adjusted = vec![0.0; p_values.len()];
    let mut largest: f64 = 0.0;
    for (done, index) in order.into_iter().enumerate() {
        // Adjusted p-values keep the order of the p-values.
        largest = largest.max(((p_values.len() - done) as f64 * p_values[index]).min(1.0));
        adjusted[index] = largest;
    }
    Ok(adjusted)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn adjusted_p_values_match_hand_computation() {
        let adjusted = holm(&[0.01, 0.04, 0.03, 0.005]).unwrap();
        for (found, wanted) in adjusted.iter().zip([0.03, 0.06, 0.06, 0.02]) {
            assert!((found - wanted).abs() < 1e-15, "{adjusted:?}");
        }
        assert!(holm(&[]).unwrap().is_empty());
        assert_eq!(holm(&[0.9, 0.8]).unwrap(), [1.0, 1.0]);
    }

    #[test]
    fn values_outside_zero_to_one_are_refused() {
        for bad in [f64::NAN, -0.1, 1.1] {
            assert!(holm(&[0.5, bad]).unwrap_err().to_string().contains("p-value 1"), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn adjusted_is_between_raw_and_bonferroni(p_values in prop::collection::vec(0.0_f64..=1.0, 1..30)) {
            for (adjusted, p_value) in holm(&p_values).unwrap().iter().zip(&p_values) {
                prop_assert!(*adjusted >= *p_value);
                prop_assert!(*adjusted <= (p_value * p_values.len() as f64).min(1.0) + 1e-15);
            }
        }
    }
}
