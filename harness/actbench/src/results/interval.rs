//! Confidence intervals of ratios, as the result file stores them, and how much they show.

use std::fmt;

use serde::{Deserialize, Serialize};

use pairgate::stats::ratio::RatioEstimate;

/// Nominal confidence of the intervals.
pub const CONFIDENCE: f64 = 0.95;

/// The smallest number of blocks whose interval reaches [`CONFIDENCE`].
pub const BLOCKS_OF_CONFIDENCE: usize = 6;

/// Ratios within this fraction of 1 count as the same time or the same memory: smaller differences exist between two builds of
/// one program, and no choice of a method should rest on them.
pub const SAME_FRACTION: f64 = 0.02;

/// Whether a ratio is within [`SAME_FRACTION`] of 1.
pub fn is_same(ratio: f64) -> bool {
    ratio.max(1.0 / ratio) <= 1.0 + SAME_FRACTION
}

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

    /// Whether the whole interval is within [`SAME_FRACTION`] of 1.
    pub fn shows_the_same(&self) -> bool {
        is_same(self.low) && is_same(self.high)
    }

    /// Whether it shows neither a difference nor that there is none: it contains 1 and reaches beyond [`SAME_FRACTION`].
    pub fn is_undecided(&self) -> bool {
        self.contains_one() && !self.shows_the_same()
    }
}

/// Whether a ratio shows a difference: it is not within [`SAME_FRACTION`] of 1, and its interval, if it has one, does not
/// contain 1.
pub fn shows_difference(ratio: f64, interval: Option<Interval>) -> bool {
    !is_same(ratio) && interval.is_none_or(|interval| !interval.contains_one())
}

/// The confidence and the number of blocks of one or several intervals, each from the smallest to the largest.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct IntervalBasis {
    /// Confidence.
    pub confidence: (f64, f64),
    /// Blocks.
    pub blocks: (usize, usize),
    /// Runs among those summarized whose ratio has no interval.
    pub n_without: usize,
}

impl IntervalBasis {
    /// The basis of `intervals`; none if there are none.
    pub fn of(intervals: impl IntoIterator<Item = Interval>) -> Option<Self> {
        let of_one = |it: Interval| IntervalBasis {
            confidence: (it.confidence, it.confidence),
            blocks: (it.n, it.n),
            n_without: 0,
        };
        intervals.into_iter().map(of_one).reduce(|a, b| IntervalBasis {
            confidence: (a.confidence.0.min(b.confidence.0), a.confidence.1.max(b.confidence.1)),
            blocks: (a.blocks.0.min(b.blocks.0), a.blocks.1.max(b.blocks.1)),
            n_without: 0,
        })
    }

    /// The same, next to `n_without` runs whose ratio has no interval: the confidence is not theirs.
    #[must_use]
    pub fn and_without(self, n_without: usize) -> Self {
        IntervalBasis { n_without, ..self }
    }

    /// `93.8 %, 5 blocks`, for a column of intervals.
    pub fn short(&self) -> String {
        format!("{}, {}{}", self.percent(), self.n_blocks(), self.without())
    }

    fn without(&self) -> String {
        if self.n_without == 0 { String::new() } else { format!("; {} without an interval", self.n_without) }
    }

    /// `93.8 %`.
    pub fn percent(&self) -> String {
        range(percent(self.confidence.0), percent(self.confidence.1))
    }

    fn n_blocks(&self) -> String {
        let noun = if self.blocks.1 == 1 { "block" } else { "blocks" };
        format!("{} {noun}", range(self.blocks.0.to_string(), self.blocks.1.to_string()))
    }
}

/// `93.8 % intervals, 5 blocks; 1 without an interval`.
impl fmt::Display for IntervalBasis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} intervals, {}{}", self.percent(), self.n_blocks(), self.without())
    }
}

/// `93.8 %`, or `50 %` without a decimal.
fn percent(fraction: f64) -> String {
    let text = format!("{:.1}", 100.0 * fraction);
    format!("{} %", text.strip_suffix(".0").unwrap_or(&text))
}

fn range(low: String, high: String) -> String {
    if low == high { low } else { format!("{low} to {high}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interval(confidence: f64, n: usize) -> Interval {
        Interval { low: 0.9, high: 1.1, confidence, n }
    }

    #[test]
    fn basis_states_confidence_and_blocks() {
        let basis = |of: &[Interval]| IntervalBasis::of(of.iter().copied()).map(|basis| basis.to_string());
        assert_eq!(basis(&[interval(0.5, 2)]).as_deref(), Some("50 % intervals, 2 blocks"));
        assert_eq!(basis(&[interval(0.9375, 5); 2]).as_deref(), Some("93.8 % intervals, 5 blocks"));
        let mixed = [interval(0.968_75, 6), interval(0.5, 2)];
        assert_eq!(basis(&mixed).as_deref(), Some("50 % to 96.9 % intervals, 2 to 6 blocks"));
        assert_eq!(IntervalBasis::of(mixed).unwrap().short(), "50 % to 96.9 %, 2 to 6 blocks");
        let some = IntervalBasis::of([interval(0.5, 2)]).unwrap().and_without(3);
        assert_eq!(some.to_string(), "50 % intervals, 2 blocks; 3 without an interval");
        assert_eq!(some.short(), "50 %, 2 blocks; 3 without an interval");
        assert_eq!(basis(&[]), None);
    }

    #[test]
    fn interval_around_one_shows_no_difference() {
        let ends = |low: f64, high: f64| Interval { low, high, confidence: 0.95, n: 6 };
        let undecided = [ends(0.9, 1.1), ends(0.99, 1.01), ends(1.01, 1.3)].map(|it| it.is_undecided());
        assert_eq!(undecided, [true, false, false]);
        assert!(!shows_difference(1.2, Some(ends(0.9, 1.5))) && !shows_difference(1.01, Some(ends(1.005, 1.02))));
        assert!(shows_difference(1.2, Some(ends(1.1, 1.3))) && shows_difference(0.5, None));
    }

    #[test]
    fn same_is_within_two_percent() {
        assert_eq!([1.0, 1.02, 1.0 / 1.02, 0.985].map(is_same), [true; 4]);
        assert_eq!([1.021, 1.0 / 1.021, 0.5, 0.0, f64::NAN, f64::INFINITY].map(is_same), [false; 6]);
    }
}
