//! From how many samples on lazy wins, by measure: of each setting and lazy method that was run against eager.

use std::fmt;

use serde::Serialize;

use super::cell::{Cell, MethodFigures};
use super::curve::{Crossover, Point, Reach};
use super::setting::Setting;
use crate::case::Method;
use crate::results::summary::{Comparison, Interval};

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Measure {
    /// `elapsed_s`.
    Time,
    /// `cpu_peak_rss_mb`.
    CpuMemory,
    /// `gpu_peak_alloc_mb`.
    GpuMemory,
    /// All of the above that were measured.
    All,
}

impl Measure {
    /// The ratio of eager to lazy and its interval.
    pub fn ratio(self, comparison: &Comparison) -> Option<(f64, Option<Interval>)> {
        let intervals = &comparison.intervals;
        let (ratio, interval) = match self {
            Measure::Time => (comparison.speedup_lazy_vs_eager, intervals.speedup_lazy_vs_eager),
            Measure::CpuMemory => (comparison.cpu_mem_reduction_x, intervals.cpu_mem_reduction_x),
            Measure::GpuMemory => (comparison.gpu_alloc_reduction_x, intervals.gpu_alloc_reduction_x),
            Measure::All => return None,
        };
        // What an edited file holds may be anything.
        ratio.filter(|ratio| ratio.is_finite() && *ratio > 0.0).map(|ratio| (ratio, interval))
    }
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Measure::Time => "time",
            Measure::CpuMemory => "CPU memory",
            Measure::GpuMemory => "GPU memory",
            Measure::All => "time and memory",
        })
    }
}

/// The answer for one setting, method and measure.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Answer {
    /// What was held fixed.
    pub setting: Setting,
    /// The lazy method.
    pub method: Method,
    /// What is compared.
    pub measure: Measure,
    /// Samples at which both were tried, ascending.
    pub sizes: Vec<usize>,
    /// Where lazy wins.
    pub crossover: Crossover,
}

/// The answers of all settings in `cells`, in their order; `cells` come ordered as [`super::cells_of`] gives them.
///
/// Of several runs of one setting and size, the one that [`latest`] takes counts.
pub fn answers(cells: &[Cell]) -> Vec<Answer> {
    let mut answers = Vec::new();
    for of_setting in cells.chunk_by(|a, b| a.setting == b.setting) {
        for method in [Method::Lazy, Method::LazyDisk] {
            let tried: Vec<&Cell> = latest(of_setting).filter(|cell| was_tried(cell, method)).collect();
            let of = |measure: Measure| -> Option<Crossover> {
                let points: Vec<Point> = tried.iter().filter_map(|cell| point(cell, method, measure)).collect();
                Crossover::of(&points)
            };
            let single = [Measure::Time, Measure::CpuMemory, Measure::GpuMemory];
            let mut found: Vec<(Measure, Crossover)> =
                single.into_iter().filter_map(|measure| Some((measure, of(measure)?))).collect();
            if found.len() > 1
                && let Some(all) = found.iter().map(|(_, crossover)| *crossover).reduce(Crossover::and)
            {
                found.push((Measure::All, all));
            }
            let sizes: Vec<usize> = tried.iter().map(|cell| cell.samples).collect();
            answers.extend(found.into_iter().map(|(measure, crossover)| Answer {
                setting: of_setting[0].setting.clone(),
                method,
                measure,
                sizes: sizes.clone(),
                crossover,
            }));
        }
    }
    answers
}

/// Of each number of samples, the cell in which the most modes were compared, and of several the latest.
pub fn latest(cells: &[Cell]) -> impl Iterator<Item = &Cell> {
    let key = |cell: &Cell| (cell.comparisons.len(), cell.date.clone());
    let same_size = cells.chunk_by(|a, b| a.samples == b.samples);
    same_size.filter_map(move |same| same.iter().max_by_key(|cell| key(cell)))
}

fn was_tried(cell: &Cell, method: Method) -> bool {
    cell.method(Method::Eager).zip(cell.method(method)).is_some_and(|(eager, lazy)| eager.n > 0 && lazy.n > 0)
}

/// A ratio, or the side that came through where the other never did; none where neither did or nothing was measured.
fn point(cell: &Cell, method: Method, measure: Measure) -> Option<Point> {
    let (eager, lazy): (&MethodFigures, &MethodFigures) = cell.method(Method::Eager).zip(cell.method(method))?;
    match (eager.never_came_through(), lazy.never_came_through()) {
        (true, true) => None,
        (eager_failed, lazy_failed) if eager_failed != lazy_failed => match measure {
            // Whether there is a GPU is not known of a size at which one side failed.
            Measure::GpuMemory if lazy.gpu_peak_alloc_mb.or(eager.gpu_peak_alloc_mb).is_none() => None,
            _ => Some(Point::one_side(cell.samples, eager_failed)),
        },
        _ => {
            let (ratio, interval) = measure.ratio(cell.comparison(method)?)?;
            Some(Point::of_ratio(cell.samples, ratio, interval.map(|interval| (interval.low, interval.high))))
        }
    }
}

impl Answer {
    /// `from about 1,240 samples on (840 to 1,900)`, `never in the range tried`, and so on.
    pub fn text(&self) -> String {
        let (smallest, largest) = match (self.sizes.first(), self.sizes.last()) {
            (Some(smallest), Some(largest)) => (count(*smallest as f64), count(*largest as f64)),
            _ => return "not measured".to_owned(),
        };
        let one_size = self.sizes.len() == 1;
        let estimate = match self.crossover.estimate {
            Reach::Everywhere if one_size => "at the one size tried".to_owned(),
            Reach::Everywhere => format!("at every size tried, from {smallest} on"),
            Reach::From(from) => format!("from about {} samples on", count(from)),
            Reach::Until(until) => format!("up to about {} samples, not beyond", count(until)),
            Reach::Between(from, until) => format!("from about {} to {} samples", count(from), count(until)),
            Reach::Never if one_size => "not at the one size tried".to_owned(),
            Reach::Never => "never in the range tried".to_owned(),
        };
        let sure = match (self.crossover.estimate, self.crossover.interval) {
            (_, None) => "; no interval from a single block".to_owned(),
            (estimate, Some((may, does))) if estimate == may && estimate == does => String::new(),
            (Reach::From(_), Some((may, does))) => {
                let low = match may {
                    Reach::From(low) => count(low),
                    _ => format!("{smallest} or fewer"),
                };
                let high = match does {
                    Reach::From(high) => count(high),
                    _ => format!("beyond {largest}"),
                };
                format!(" ({low} to {high})")
            }
            (Reach::Until(_), Some((may, does))) => {
                let low = match does {
                    Reach::Until(low) => count(low),
                    _ => format!("below {smallest}"),
                };
                let high = match may {
                    Reach::Until(high) => count(high),
                    _ => format!("{largest} or more"),
                };
                format!(" ({low} to {high})")
            }
            (Reach::Everywhere, Some((_, does))) => match does {
                Reach::From(from) => format!("; shown from {} on", count(from)),
                Reach::Everywhere => String::new(),
                _ => "; the intervals leave it open".to_owned(),
            },
            (Reach::Never, Some((Reach::Never, _))) => String::new(),
            (Reach::Never, Some((may, _))) => match may {
                Reach::From(from) => format!("; the intervals leave it open from {} on", count(from)),
                Reach::Until(until) => format!("; the intervals leave it open up to {}", count(until)),
                _ => "; the intervals leave it open".to_owned(),
            },
            (Reach::Between(..), Some(_)) => String::new(),
        };
        estimate + &sure
    }
}

/// A number of samples with thousands apart, rounded to three digits.
pub fn count(samples: f64) -> String {
    let rounded = match samples {
        samples if samples < 1000.0 => samples.round(),
        samples => {
            let unit = 10.0_f64.powf(samples.log10().floor() - 2.0);
            (samples / unit).round() * unit
        }
    };
    // Saturates; sizes beyond 2^64 are nobody's.
    indicatif::HumanCount(rounded as u64).to_string()
}
