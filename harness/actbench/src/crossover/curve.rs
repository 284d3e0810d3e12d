//! Where a curve of ratios crosses 1.
//!
//! Between two numbers of samples the logarithm of the ratio is interpolated linearly in the logarithm of the samples: costs
//! are sums of powers of the samples, which are nearly straight in these coordinates, and the result does not depend on units.
//! The interval of the crossover lies between the crossings of the upper and lower ends of the ratios' intervals. If only one
//! method succeeded at a size, the ratio is infinite; a crossing next to it is placed at that size, because an infinite value
//! cannot be interpolated.

use serde::Serialize;

use crate::results::interval::{BLOCKS_OF_CONFIDENCE, Interval, is_same};

/// `ln(eager / lazy)` at one number of samples; lazy is better if it is above 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RatioPoint {
    /// Samples, above 0.
    pub samples: f64,
    /// The estimate; infinite if only one method succeeded.
    pub estimate: f64,
    /// Lower and upper end of its interval; the estimate twice if that is infinite, none for a single block.
    pub ends: Option<(f64, f64)>,
    /// Blocks that the estimate is based on; none if it is infinite, because one method alone succeeded.
    pub blocks: Option<usize>,
}

impl RatioPoint {
    /// The point of a ratio and its interval.
    pub fn of_ratio(samples: usize, ratio: f64, interval: Option<Interval>) -> Self {
        let ends = interval.map(|interval| (interval.low.ln(), interval.high.ln()));
        let blocks = Some(interval.map_or(1, |interval| interval.n));
        RatioPoint { samples: samples as f64, estimate: ratio.ln(), ends, blocks }
    }

    /// The point of a size at which only lazy succeeded, or only eager.
    pub fn one_method(samples: usize, lazy_succeeded: bool) -> Self {
        let value = if lazy_succeeded { f64::INFINITY } else { f64::NEG_INFINITY };
        RatioPoint { samples: samples as f64, estimate: value, ends: Some((value, value)), blocks: None }
    }

    fn wins(&self) -> bool {
        self.estimate > 0.0
    }
}

/// The numbers of samples, within the measured range, at which lazy is better.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum WinningRange {
    /// At every measured size.
    Everywhere,
    /// From this size to the largest measured one.
    From(f64),
    /// From the smallest measured size to this one.
    Until(f64),
    /// Between two sizes.
    Between(f64, f64),
    /// At no measured size.
    Never,
}

impl WinningRange {
    /// The range of a curve of `(samples, value)`, sorted by samples, in which the value is above 0. If a curve crosses 0
    /// more than once, the last crossing counts: beyond it the winner no longer changes.
    fn of(curve: &[(f64, f64)]) -> WinningRange {
        let wins = |value: f64| value > 0.0;
        let Some(&(_, last)) = curve.last() else { return WinningRange::Never };
        let turn = curve.windows(2).rev().find(|pair| wins(pair[0].1) != wins(last));
        match (wins(last), turn) {
            (true, None) => WinningRange::Everywhere,
            (false, None) => WinningRange::Never,
            (true, Some(pair)) => WinningRange::From(crossing(pair[0], pair[1])),
            (false, Some(pair)) => WinningRange::Until(crossing(pair[0], pair[1])),
        }
    }

    /// The intersection of two ranges.
    pub fn and(self, other: WinningRange) -> WinningRange {
        let (Some(a), Some(b)) = (self.ends(), other.ends()) else { return WinningRange::Never };
        match (a.0.max(b.0), a.1.min(b.1)) {
            (from, until) if from >= until => WinningRange::Never,
            (f64::NEG_INFINITY, f64::INFINITY) => WinningRange::Everywhere,
            (from, f64::INFINITY) => WinningRange::From(from),
            (f64::NEG_INFINITY, until) => WinningRange::Until(until),
            (from, until) => WinningRange::Between(from, until),
        }
    }

    /// First and last size; infinite if the range extends to an end of the measured sizes.
    fn ends(self) -> Option<(f64, f64)> {
        match self {
            WinningRange::Everywhere => Some((f64::NEG_INFINITY, f64::INFINITY)),
            WinningRange::From(from) => Some((from, f64::INFINITY)),
            WinningRange::Until(until) => Some((f64::NEG_INFINITY, until)),
            WinningRange::Between(from, until) => Some((from, until)),
            WinningRange::Never => None,
        }
    }
}

/// The number of samples at which the line between two points of opposite sign crosses 0.
fn crossing((x0, y0): (f64, f64), (x1, y1): (f64, f64)) -> f64 {
    match (y0.is_finite(), y1.is_finite()) {
        (true, true) => (x0.ln() + (x1.ln() - x0.ln()) * (-y0 / (y1 - y0))).exp(),
        // An infinite value: at that size the method that succeeded has won.
        (true, false) => x1,
        (false, _) => x0,
    }
}

/// Why the points do not decide where lazy is better.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(tag = "because", rename_all = "kebab-case")]
pub enum Undecided {
    /// The ratio is within 2 % of 1.
    Same {
        /// Samples of such a point.
        samples: f64,
    },
    /// A crossing lies next to a point of too few blocks for 95 % confidence.
    FewBlocks {
        /// Samples of the point.
        samples: f64,
        /// Its blocks.
        blocks: usize,
    },
}

impl Undecided {
    /// The reason for points sorted by samples. Only those from the last crossing on count: earlier ones change nothing about
    /// the answer. Without a crossing all count, and few blocks are only a matter of the confidence that stands next to it.
    fn of(points: &[RatioPoint]) -> Option<Self> {
        let last = points.last()?;
        let turn = points.windows(2).rposition(|pair| pair[0].wins() != last.wins());
        let deciding = &points[turn.unwrap_or(0)..];
        let same = deciding.iter().find(|point| is_same(point.estimate.exp()));
        let few = |point: &RatioPoint| {
            let blocks = point.blocks.filter(|blocks| *blocks < BLOCKS_OF_CONFIDENCE)?;
            Some(Undecided::FewBlocks { samples: point.samples, blocks })
        };
        match same {
            Some(point) => Some(Undecided::Same { samples: point.samples }),
            None => turn.and_then(|_| deciding.iter().take(2).find_map(few)),
        }
    }
}

/// Where lazy is better, with the uncertainty.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Crossover {
    /// The range by the estimates.
    pub estimate: WinningRange,
    /// The ranges by the upper and by the lower ends of the intervals: where lazy is possibly better, and where it is shown
    /// to be better. None if a size has a single block.
    pub interval: Option<(WinningRange, WinningRange)>,
    /// Why the range is not to be claimed, if it is not.
    pub undecided: Option<Undecided>,
}

impl Crossover {
    /// The crossover of points at different sizes, in any order; none without points.
    pub fn of(points: &[RatioPoint]) -> Option<Self> {
        let mut points = points.to_vec();
        points.sort_by(|a, b| a.samples.total_cmp(&b.samples));
        let curve = |value: fn(&RatioPoint) -> Option<f64>| -> Option<WinningRange> {
            let curve: Option<Vec<(f64, f64)>> = points.iter().map(|it| Some((it.samples, value(it)?))).collect();
            curve.filter(|curve| !curve.is_empty()).map(|curve| WinningRange::of(&curve))
        };
        Some(Crossover {
            estimate: curve(|point| Some(point.estimate))?,
            interval: curve(|point| point.ends.map(|(_, high)| high))
                .zip(curve(|point| point.ends.map(|(low, _)| low))),
            undecided: Undecided::of(&points),
        })
    }

    /// Where lazy is better in both.
    pub fn and(self, other: Crossover) -> Crossover {
        // Where lazy is never better in one quantity, it is never better in both, whatever the other one is.
        let is_never = |it: Crossover| it.undecided.is_none() && it.estimate == WinningRange::Never;
        let undecided = if is_never(self) || is_never(other) { None } else { self.undecided.or(other.undecided) };
        Crossover {
            undecided,
            estimate: self.estimate.and(other.estimate),
            interval: self.interval.zip(other.interval).map(|((a, b), (c, d))| (a.and(c), b.and(d))),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn point(samples: usize, ratio: f64) -> RatioPoint {
        of_blocks(samples, ratio, 1.25, 6)
    }

    fn of_blocks(samples: usize, ratio: f64, width: f64, n: usize) -> RatioPoint {
        let interval = Interval { low: ratio / width, high: ratio * width, confidence: 0.95, n };
        RatioPoint::of_ratio(samples, ratio, Some(interval))
    }

    #[track_caller]
    fn assert_from(range: WinningRange, samples: f64) {
        let WinningRange::From(from) = range else { panic!("{range:?}") };
        assert!((from / samples - 1.0).abs() <= 1e-12, "{from} and not {samples}");
    }

    #[test]
    fn crossing_is_interpolated_in_logarithms() {
        // ln 0.5 and ln 2 are equally far from 0, so the crossing is the geometric mean of 100 and 10,000.
        let crossover = Crossover::of(&[point(10_000, 2.0), point(100, 0.5)]).unwrap();
        assert_from(crossover.estimate, 1000.0);
        let (possible, shown) = crossover.interval.unwrap();
        // ln 1.25 of the two logarithmic halves of ln 2, that is 0.3219 of a decade each way.
        let shift = 10.0_f64.powf(1.25_f64.ln() / 2.0_f64.ln());
        assert_from(possible, 1000.0 / shift);
        assert_from(shown, 1000.0 * shift);
    }

    #[test]
    fn curve_on_one_side_has_no_crossing() {
        let crossover = |ratios: &[f64]| {
            let points: Vec<RatioPoint> = ratios.iter().enumerate().map(|(i, ratio)| point(100 << i, *ratio)).collect();
            Crossover::of(&points).unwrap()
        };
        assert_eq!(crossover(&[2.0, 3.0]).estimate, WinningRange::Everywhere);
        assert_eq!(crossover(&[0.5, 0.9]).estimate, WinningRange::Never);
        // A ratio of 1 is not a win; the upper ends of the intervals leave the winner open.
        let open = crossover(&[0.5, 1.0]);
        assert_eq!((open.estimate, open.interval.unwrap().1), (WinningRange::Never, WinningRange::Never));
        assert!(matches!(open.interval.unwrap().0, WinningRange::From(_)));
        assert!(matches!(crossover(&[2.0, 0.5]).estimate, WinningRange::Until(_)));
        assert_eq!(Crossover::of(&[]), None);
    }

    #[test]
    fn last_of_several_crossings_counts() {
        let points = [point(100, 2.0), point(200, 0.5), point(400, 0.5), point(1600, 2.0), point(3200, 3.0)];
        assert_from(Crossover::of(&points).unwrap().estimate, 800.0);
    }

    #[test]
    fn only_successful_method_wins_at_its_size() {
        let crossover = Crossover::of(&[point(100, 0.5), RatioPoint::one_method(1000, true)]).unwrap();
        assert_from(crossover.estimate, 1000.0);
        let crossover = Crossover::of(&[RatioPoint::one_method(100, false), point(1000, 2.0)]).unwrap();
        assert_eq!(crossover.estimate, WinningRange::From(100.0));
    }

    #[test]
    fn single_block_has_no_interval() {
        let single = RatioPoint::of_ratio(100, 0.5, None);
        assert_eq!(Crossover::of(&[single, point(200, 2.0)]).unwrap().interval, None);
    }

    #[test]
    fn small_differences_and_few_blocks_decide_nothing() {
        let undecided = |points: &[RatioPoint]| Crossover::of(points).unwrap().undecided;
        let same = |samples: f64| Some(Undecided::Same { samples });
        // The 1.01 and 0.99 of a run of two blocks each are not a crossing.
        assert_eq!(undecided(&[of_blocks(60, 1.01, 1.001, 2), of_blocks(150, 0.99, 1.001, 2)]), same(60.0));
        assert_eq!(undecided(&[point(60, 0.5), point(150, 1.015)]), same(150.0));
        assert_eq!(undecided(&[point(60, 0.5), point(100, 2.0), point(150, 1.015)]), same(150.0));
        assert_eq!(undecided(&[point(60, 1.01)]), same(60.0));
        assert_eq!(undecided(&[point(30, 1.01), point(60, 0.5), point(150, 2.0)]), None, "before the last crossing");
        let few = Some(Undecided::FewBlocks { samples: 150.0, blocks: 5 });
        assert_eq!(undecided(&[point(60, 0.5), of_blocks(150, 2.0, 1.1, 5)]), few);
        assert!(undecided(&[point(60, 0.5), RatioPoint::of_ratio(150, 2.0, None)]).is_some(), "a single block");
        assert_eq!(undecided(&[of_blocks(60, 3.0, 1.1, 2), of_blocks(150, 2.0, 1.1, 5)]), None, "not a crossing");
        assert_eq!(undecided(&[point(60, 0.5), RatioPoint::one_method(150, true)]), None);
        assert_eq!(undecided(&[point(60, 0.5), point(150, 2.0)]), None);
    }

    #[test]
    fn undecided_quantity_leaves_both_open_unless_other_never_wins() {
        let of = |ratio: f64| Crossover::of(&[point(60, ratio)]).unwrap();
        assert!(of(1.01).and(of(2.0)).undecided.is_some());
        assert!(of(2.0).and(of(1.01)).undecided.is_some());
        let never = of(1.01).and(of(0.5));
        assert_eq!((never.estimate, never.undecided), (WinningRange::Never, None));
    }

    #[test]
    fn and_intersects_ranges() {
        let (from, until) = (WinningRange::From(500.0), WinningRange::Until(900.0));
        assert_eq!(from.and(WinningRange::From(700.0)), WinningRange::From(700.0));
        assert_eq!(from.and(until), WinningRange::Between(500.0, 900.0));
        assert_eq!(WinningRange::From(1000.0).and(until), WinningRange::Never);
        assert_eq!(WinningRange::Everywhere.and(until), until);
        assert_eq!(WinningRange::Never.and(WinningRange::Everywhere), WinningRange::Never);
    }

    proptest! {
        #[test]
        fn estimate_lies_in_interval_and_range(
            ratios in prop::collection::vec((0.2_f64..5.0, 1.0_f64..1.5), 2..7),
        ) {
            let points: Vec<RatioPoint> = ratios
                .iter()
                .enumerate()
                .map(|(i, (ratio, width))| of_blocks(100 << i, *ratio, *width, 6))
                .collect();
            let crossover = Crossover::of(&points).unwrap();
            let (possible, shown) = crossover.interval.unwrap();
            if let WinningRange::From(from) = crossover.estimate {
                prop_assert!((100.0..=points.last().unwrap().samples).contains(&from));
                // Lower end <= estimate <= upper end, so a win by the former is a win by the latter.
                let sooner = match possible {
                    WinningRange::Everywhere => true,
                    WinningRange::From(low) => low <= from * (1.0 + 1e-12),
                    _ => false,
                };
                let later = match shown {
                    WinningRange::From(high) => high >= from * (1.0 - 1e-12),
                    WinningRange::Until(_) | WinningRange::Never => true,
                    _ => false,
                };
                prop_assert!(sooner && later, "{:?}", crossover);
            }
            if crossover.estimate == WinningRange::Everywhere {
                prop_assert_eq!(possible, WinningRange::Everywhere);
            }
            if crossover.estimate == WinningRange::Never {
                prop_assert_eq!(shown, WinningRange::Never);
            }
        }
    }
}
