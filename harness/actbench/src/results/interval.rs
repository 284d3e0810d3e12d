//! Confidence intervals of ratios, as the result file stores them.

use serde::{Deserialize, Serialize};

use pairgate::stats::ratio::RatioEstimate;

/// Nominal confidence of the intervals.
pub const CONFIDENCE: f64 = 0.95;

/// An interval of a ratio.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Its exact confidence, which is below the nominal one if there are few blocks.
    pub confidence: f64,
    /// Number of blocks.
    pub n: usize,
}

impl Interval {
    /// The interval of `ratio`; none if there are too few pairs for one.
    pub(super) fn of(ratio: &RatioEstimate) -> Option<Self> {
        let (low, high) = ratio.low.zip(ratio.high)?;
        Some(Interval { low, high, confidence: ratio.confidence?, n: ratio.n })
    }

    /// Half its width as a fraction of the ratio, `sqrt(high / low) - 1`: 0.015 is 1.5 %.
    pub fn half_width(&self) -> f64 {
        (self.high / self.low).sqrt() - 1.0
    }

    /// Whether the interval contains 1: no difference is shown.
    pub fn contains_one(&self) -> bool {
        self.low <= 1.0 && self.high >= 1.0
    }
}
