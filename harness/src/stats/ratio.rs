//! Ratios of paired measurements, estimated on the logarithm, where they are symmetric.

use super::hodges_lehmann::centre;

/// A ratio with an interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RatioEstimate {
    /// The ratio.
    pub estimate: f64,
    /// Lower end of the interval; none for a single pair.
    pub low: Option<f64>,
    /// Upper end.
    pub high: Option<f64>,
    /// Exact confidence of the interval; below the one asked for where there are few pairs.
    pub confidence: Option<f64>,
    /// Pairs it rests on.
    pub n: usize,
}

impl RatioEstimate {
    /// Whether the interval holds 1, so that no difference is shown. No interval shows nothing either.
    pub fn no_difference_shown(&self) -> bool {
        match (self.low, self.high) {
            (Some(low), Some(high)) => low <= 1.0 && 1.0 <= high,
            _ => true,
        }
    }
}

/// `above / below` from pairs of positive measurements made side by side: the Hodges-Lehmann estimate of the
/// log-ratios and its exact signed-rank interval, transformed back.
///
/// None for no pairs, unequal lengths, or a value that is not positive and finite.
pub fn paired_ratio(above: &[f64], below: &[f64], confidence: f64) -> Option<RatioEstimate> {
    let usable = |values: &[f64]| values.iter().all(|value| value.is_finite() && *value > 0.0);
    if above.len() != below.len() || !usable(above) || !usable(below) {
        return None;
    }
    let logs: Vec<f64> = above.iter().zip(below).map(|(above, below)| (above / below).ln()).collect();
    let centre = centre(&logs, confidence)?;
    Some(RatioEstimate {
        estimate: centre.estimate.exp(),
        low: centre.interval.map(|interval| interval.0.exp()),
        high: centre.interval.map(|interval| interval.1.exp()),
        confidence: centre.interval.map(|interval| interval.2),
        n: logs.len(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drift_that_hits_both_sides_of_a_pair_alike_is_no_noise() {
        let drift = [1.0, 3.0, 0.5, 2.0, 1.5, 0.7];
        let eager: Vec<f64> = drift.iter().map(|speed| 6.0 * speed).collect();
        let lazy: Vec<f64> = drift.iter().map(|speed| 2.0 * speed).collect();
        let ratio = paired_ratio(&eager, &lazy, 0.95).unwrap();
        assert!((ratio.estimate - 3.0).abs() < 1e-12);
        assert!((ratio.low.unwrap() - 3.0).abs() < 1e-12 && (ratio.high.unwrap() - 3.0).abs() < 1e-12);
        assert!(!ratio.no_difference_shown());
    }

    #[test]
    fn what_cannot_be_a_ratio_is_none() {
        assert_eq!(paired_ratio(&[], &[], 0.95), None);
        assert_eq!(paired_ratio(&[1.0], &[1.0, 2.0], 0.95), None);
        assert_eq!(paired_ratio(&[1.0, 0.0], &[1.0, 2.0], 0.95), None);
        assert_eq!(paired_ratio(&[1.0, f64::NAN], &[1.0, 2.0], 0.95), None);
        let single = paired_ratio(&[3.0], &[2.0], 0.95).unwrap();
        assert!(single.low.is_none() && single.no_difference_shown());
    }
}
