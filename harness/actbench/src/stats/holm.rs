//! Several tests at once: Holm's correction.
//!
//! Holm, "A simple sequentially rejective multiple test procedure", 1979: the chance of any false alarm among all
//! tests stays at the level, however they depend on each other; never weaker than Bonferroni's correction.

use crate::error::{Error, Result};

/// The adjusted chance of each test, in the order given: to be compared with the level for all of them together.
///
/// # Errors
/// One that is not a chance.
pub fn holm(chances: &[f64]) -> Result<Vec<f64>> {
    if let Some(index) = chances.iter().position(|chance| !(0.0..=1.0).contains(chance)) {
        return Err(Error::input(
            "tests",
            format!("chance {index} is {}; it must lie between 0 and 1", chances[index]),
        ));
    }
    let mut order: Vec<usize> = (0..chances.len()).collect();
    order.sort_by(|a, b| chances[*a].total_cmp(&chances[*b]));
    let mut adjusted = vec![0.0; chances.len()];
    let mut largest: f64 = 0.0;
    for (done, index) in order.into_iter().enumerate() {
        // A test is never surer than one that came before it.
        largest = largest.max(((chances.len() - done) as f64 * chances[index]).min(1.0));
        adjusted[index] = largest;
    }
    Ok(adjusted)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn adjusted_chances_by_hand() {
        let adjusted = holm(&[0.01, 0.04, 0.03, 0.005]).unwrap();
        for (found, wanted) in adjusted.iter().zip([0.03, 0.06, 0.06, 0.02]) {
            assert!((found - wanted).abs() < 1e-15, "{adjusted:?}");
        }
        assert!(holm(&[]).unwrap().is_empty());
        assert_eq!(holm(&[0.9, 0.8]).unwrap(), [1.0, 1.0]);
    }

    #[test]
    fn what_is_no_chance_is_refused() {
        for bad in [f64::NAN, -0.1, 1.1] {
            assert!(holm(&[0.5, bad]).unwrap_err().to_string().contains("chance 1"), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn between_the_chance_itself_and_bonferronis(chances in prop::collection::vec(0.0_f64..=1.0, 1..30)) {
            for (adjusted, chance) in holm(&chances).unwrap().iter().zip(&chances) {
                prop_assert!(*adjusted >= *chance);
                prop_assert!(*adjusted <= (chance * chances.len() as f64).min(1.0) + 1e-15);
            }
        }
    }
}
