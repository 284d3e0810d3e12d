//! Where a curve of ratios crosses 1.
//!
//! Between two sizes the logarithm of the ratio is taken to be linear in the logarithm of the samples: costs are sums of
//! powers of the samples, which are nearly straight there, and the answer does not depend on units. The interval is where
//! the curves of the ratios' own upper and lower ends cross 1: the sizes at which the repetitions leave open who wins. A
//! size at which one side alone came through has an infinite ratio; what crosses next to it crosses at that size, for there
//! is nothing to interpolate with.

use serde::Serialize;

/// `ln(eager / lazy)` at one size: above 0 lazy wins.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Samples, above 0.
    pub samples: f64,
    /// The estimate; infinite where one side alone came through.
    pub estimate: f64,
    /// Lower and upper end of its interval; the estimate twice where it is infinite, none for a single block.
    pub ends: Option<(f64, f64)>,
}

impl Point {
    /// Of a ratio and its interval.
    pub fn of_ratio(samples: usize, ratio: f64, interval: Option<(f64, f64)>) -> Self {
        let ends = interval.map(|(low, high)| (low.ln(), high.ln()));
        Point { samples: samples as f64, estimate: ratio.ln(), ends }
    }

    /// Where lazy alone came through, or eager alone.
    pub fn one_side(samples: usize, lazy_came_through: bool) -> Self {
        let value = if lazy_came_through { f64::INFINITY } else { f64::NEG_INFINITY };
        Point { samples: samples as f64, estimate: value, ends: Some((value, value)) }
    }
}

/// The sizes, among those tried, at which lazy wins.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reach {
    /// At every size tried.
    Everywhere,
    /// From this size to the largest tried.
    From(f64),
    /// From the smallest tried to this size.
    Until(f64),
    /// Between two sizes.
    Between(f64, f64),
    /// Never in the range tried.
    Never,
}

impl Reach {
    /// Of a curve of `(samples, value)`, by samples: lazy wins where the value is above 0. Of a curve that crosses more
    /// than once, the last crossing counts, for that is where lazy wins or loses for good.
    fn of(curve: &[(f64, f64)]) -> Reach {
        let wins = |value: f64| value > 0.0;
        let Some(&(_, last)) = curve.last() else { return Reach::Never };
        let turn = curve.windows(2).rev().find(|pair| wins(pair[0].1) != wins(last));
        match (wins(last), turn) {
            (true, None) => Reach::Everywhere,
            (false, None) => Reach::Never,
            (true, Some(pair)) => Reach::From(crossing(pair[0], pair[1])),
            (false, Some(pair)) => Reach::Until(crossing(pair[0], pair[1])),
        }
    }

    /// Where both win.
    pub fn and(self, other: Reach) -> Reach {
        let (Some(a), Some(b)) = (self.ends(), other.ends()) else { return Reach::Never };
        match (a.0.max(b.0), a.1.min(b.1)) {
            (from, until) if from >= until => Reach::Never,
            (f64::NEG_INFINITY, f64::INFINITY) => Reach::Everywhere,
            (from, f64::INFINITY) => Reach::From(from),
            (f64::NEG_INFINITY, until) => Reach::Until(until),
            (from, until) => Reach::Between(from, until),
        }
    }

    /// First and last size, infinite where the range tried has no end of it.
    fn ends(self) -> Option<(f64, f64)> {
        match self {
            Reach::Everywhere => Some((f64::NEG_INFINITY, f64::INFINITY)),
            Reach::From(from) => Some((from, f64::INFINITY)),
            Reach::Until(until) => Some((f64::NEG_INFINITY, until)),
            Reach::Between(from, until) => Some((from, until)),
            Reach::Never => None,
        }
    }
}

/// The samples at which the line between two points of different sides crosses 0.
fn crossing((x0, y0): (f64, f64), (x1, y1): (f64, f64)) -> f64 {
    match (y0.is_finite(), y1.is_finite()) {
        (true, true) => (x0.ln() + (x1.ln() - x0.ln()) * (-y0 / (y1 - y0))).exp(),
        // At the size where one side alone came through, it has won for certain.
        (true, false) => x1,
        (false, _) => x0,
    }
}

/// Where lazy wins, and how sure that is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Crossover {
    /// By the estimates.
    pub estimate: Reach,
    /// By the upper ends of the intervals, and by the lower ones: where lazy may win, and where it does for certain; none
    /// where some size has a single block.
    pub interval: Option<(Reach, Reach)>,
}

impl Crossover {
    /// Of points at different sizes, in any order; none for no point.
    pub fn of(points: &[Point]) -> Option<Self> {
        let mut points = points.to_vec();
        points.sort_by(|a, b| a.samples.total_cmp(&b.samples));
        let curve = |value: fn(&Point) -> Option<f64>| -> Option<Reach> {
            let curve: Option<Vec<(f64, f64)>> = points.iter().map(|it| Some((it.samples, value(it)?))).collect();
            curve.filter(|curve| !curve.is_empty()).map(|curve| Reach::of(&curve))
        };
        Some(Crossover {
            estimate: curve(|point| Some(point.estimate))?,
            interval: curve(|point| point.ends.map(|(_, high)| high))
                .zip(curve(|point| point.ends.map(|(low, _)| low))),
        })
    }

    /// Where both win.
    pub fn and(self, other: Crossover) -> Crossover {
        Crossover {
            estimate: self.estimate.and(other.estimate),
            interval: self.interval.zip(other.interval).map(|((a, b), (c, d))| (a.and(c), b.and(d))),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn point(samples: usize, ratio: f64) -> Point {
        Point::of_ratio(samples, ratio, Some((ratio / 1.25, ratio * 1.25)))
    }

    #[track_caller]
    fn assert_from(reach: Reach, samples: f64) {
        let Reach::From(from) = reach else { panic!("{reach:?}") };
        assert!((from / samples - 1.0).abs() <= 1e-12, "{from} and not {samples}");
    }

    #[test]
    fn a_crossing_is_interpolated_in_the_logarithms() {
        // ln 0.5 and ln 2 are equally far from 0, so the crossing is the geometric mean of 100 and 10,000.
        let crossover = Crossover::of(&[point(10_000, 2.0), point(100, 0.5)]).unwrap();
        assert_from(crossover.estimate, 1000.0);
        let (may, does) = crossover.interval.unwrap();
        // ln 1.25 of the two logarithmic halves of ln 2, that is 0.3219 of a decade each way.
        let shift = 10.0_f64.powf(1.25_f64.ln() / 2.0_f64.ln());
        assert_from(may, 1000.0 / shift);
        assert_from(does, 1000.0 * shift);
    }

    #[test]
    fn a_curve_on_one_side_has_no_crossing() {
        let of = |ratios: &[f64]| {
            let points: Vec<Point> = ratios.iter().enumerate().map(|(i, ratio)| point(100 << i, *ratio)).collect();
            Crossover::of(&points).unwrap()
        };
        assert_eq!(of(&[2.0, 3.0]).estimate, Reach::Everywhere);
        assert_eq!(of(&[0.5, 0.9]).estimate, Reach::Never);
        // 1 itself is no win, and the upper ends leave it open.
        let open = of(&[0.5, 1.0]);
        assert_eq!((open.estimate, open.interval.unwrap().1), (Reach::Never, Reach::Never));
        assert!(matches!(open.interval.unwrap().0, Reach::From(_)));
        assert!(matches!(of(&[2.0, 0.5]).estimate, Reach::Until(_)));
        assert_eq!(Crossover::of(&[]), None);
    }

    #[test]
    fn of_several_crossings_the_last_counts() {
        let points = [point(100, 2.0), point(200, 0.5), point(400, 0.5), point(1600, 2.0), point(3200, 3.0)];
        assert_from(Crossover::of(&points).unwrap().estimate, 800.0);
    }

    #[test]
    fn a_side_that_alone_comes_through_wins_at_its_size() {
        let crossover = Crossover::of(&[point(100, 0.5), Point::one_side(1000, true)]).unwrap();
        assert_from(crossover.estimate, 1000.0);
        let crossover = Crossover::of(&[Point::one_side(100, false), point(1000, 2.0)]).unwrap();
        assert_eq!(crossover.estimate, Reach::From(100.0));
    }

    #[test]
    fn a_single_block_gives_no_interval() {
        let single = Point::of_ratio(100, 0.5, None);
        assert_eq!(Crossover::of(&[single, point(200, 2.0)]).unwrap().interval, None);
    }

    #[test]
    fn both_win_where_each_does() {
        let (from, until) = (Reach::From(500.0), Reach::Until(900.0));
        assert_eq!(from.and(Reach::From(700.0)), Reach::From(700.0));
        assert_eq!(from.and(until), Reach::Between(500.0, 900.0));
        assert_eq!(Reach::From(1000.0).and(until), Reach::Never);
        assert_eq!(Reach::Everywhere.and(until), until);
        assert_eq!(Reach::Never.and(Reach::Everywhere), Reach::Never);
    }

    proptest! {
        #[test]
        fn the_estimate_lies_in_its_interval_and_inside_the_range(
            ratios in prop::collection::vec((0.2_f64..5.0, 1.0_f64..1.5), 2..7),
        ) {
            let points: Vec<Point> = ratios
                .iter()
                .enumerate()
                .map(|(i, (ratio, width))| Point::of_ratio(100 << i, *ratio, Some((ratio / width, ratio * width))))
                .collect();
            let crossover = Crossover::of(&points).unwrap();
            let (may, does) = crossover.interval.unwrap();
            if let Reach::From(from) = crossover.estimate {
                prop_assert!((100.0..=points.last().unwrap().samples).contains(&from));
                // A win by the lower ends is one by the estimates, and that one by the upper ends.
                let sooner = match may {
                    Reach::Everywhere => true,
                    Reach::From(low) => low <= from * (1.0 + 1e-12),
                    _ => false,
                };
                let later = match does {
                    Reach::From(high) => high >= from * (1.0 - 1e-12),
                    Reach::Until(_) | Reach::Never => true,
                    _ => false,
                };
                prop_assert!(sooner && later, "{:?}", crossover);
            }
            if crossover.estimate == Reach::Everywhere {
                prop_assert_eq!(may, Reach::Everywhere);
            }
            if crossover.estimate == Reach::Never {
                prop_assert_eq!(does, Reach::Never);
            }
        }
    }
}
