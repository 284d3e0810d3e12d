//! From how many samples on lazy is better than eager, for each setting, lazy method and compared quantity.

use std::fmt;

use serde::Serialize;

use super::cell::{Cell, MethodFigures};
use super::curve::{Crossover, RatioPoint, Undecided, WinningRange};
use super::setting::Setting;
use crate::case::Method;
use crate::results::interval::{BLOCKS_OF_CONFIDENCE, IntervalBasis};
use crate::results::summary::{Comparison, Interval};

/// A quantity of which eager and lazy are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ComparedQuantity {
    /// `elapsed_s`.
    Time,
    /// `cpu_peak_rss_mb`.
    CpuMemory,
    /// `gpu_peak_alloc_mb`.
    GpuMemory,
    /// All of the above that were measured, at once.
    All,
}

impl ComparedQuantity {
    /// The ratio of eager to lazy and its interval.
    pub fn ratio(self, comparison: &Comparison) -> Option<(f64, Option<Interval>)> {
        let intervals = &comparison.intervals;
        let (ratio, interval) = match self {
            ComparedQuantity::Time => (comparison.speedup_lazy_vs_eager, intervals.speedup_lazy_vs_eager),
            ComparedQuantity::CpuMemory => (comparison.cpu_mem_reduction_x, intervals.cpu_mem_reduction_x),
            ComparedQuantity::GpuMemory => (comparison.gpu_alloc_reduction_x, intervals.gpu_alloc_reduction_x),
            ComparedQuantity::All => return None,
        };
        // A file that was edited by hand may have any number.
        ratio.filter(|ratio| ratio.is_finite() && *ratio > 0.0).map(|ratio| (ratio, interval))
    }
}

impl fmt::Display for ComparedQuantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            ComparedQuantity::Time => "time",
            ComparedQuantity::CpuMemory => "CPU memory",
            ComparedQuantity::GpuMemory => "GPU memory",
            ComparedQuantity::All => "time and memory",
        })
    }
}

/// The crossover of one setting, lazy method and quantity.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CrossoverAnswer {
    /// What is fixed while the number of samples varies.
    pub setting: Setting,
    /// The lazy method.
    pub method: Method,
    /// The compared quantity.
    pub measure: ComparedQuantity,
    /// Numbers of samples at which both methods were run, ascending.
    pub sizes: Vec<usize>,
    /// Where lazy is better.
    pub crossover: Crossover,
    /// The confidence of the ratios' intervals; none if there are none.
    pub basis: Option<IntervalBasis>,
}

/// The crossovers of all settings in `cells`, in their order. `cells` must be ordered as by [`super::cells_of`].
///
/// If a setting was run several times with the same number of samples, [`latest`] selects the run.
pub fn answers(cells: &[Cell]) -> Vec<CrossoverAnswer> {
    let mut answers = Vec::new();
    for same_setting in cells.chunk_by(|a, b| a.setting == b.setting) {
        for method in [Method::Lazy, Method::LazyDisk] {
            let tried: Vec<&Cell> = latest(same_setting).filter(|cell| was_tried(cell, method)).collect();
            let crossover = |measure: ComparedQuantity| -> Option<Crossover> {
                let points: Vec<RatioPoint> = tried.iter().filter_map(|cell| point(cell, method, measure)).collect();
                Crossover::of(&points)
            };
            let single = [ComparedQuantity::Time, ComparedQuantity::CpuMemory, ComparedQuantity::GpuMemory];
            let mut found: Vec<(ComparedQuantity, Crossover)> =
                single.into_iter().filter_map(|measure| Some((measure, crossover(measure)?))).collect();
            if found.len() > 1
                && let Some(all) = found.iter().map(|(_, crossover)| *crossover).reduce(Crossover::and)
            {
                found.push((ComparedQuantity::All, all));
            }
            let sizes: Vec<usize> = tried.iter().map(|cell| cell.samples).collect();
            let basis = |measure: ComparedQuantity| {
                let measures = if measure == ComparedQuantity::All { &single[..] } else { &[measure] };
                let comparisons = || tried.iter().filter_map(|cell| cell.comparison(method));
                let ratios = measures.iter().flat_map(|it| comparisons().filter_map(|comparison| it.ratio(comparison)));
                let n_without = comparisons().filter(|comparison| comparison.lacks_interval()).count();
                let basis = IntervalBasis::of(ratios.filter_map(|(_, interval)| interval));
                basis.map(|basis| basis.and_without(n_without))
            };
            answers.extend(found.into_iter().map(|(measure, crossover)| CrossoverAnswer {
                basis: basis(measure),
                setting: same_setting[0].setting.clone(),
                method,
                measure,
                sizes: sizes.clone(),
                crossover,
            }));
        }
    }
    answers
}

/// For each number of samples, the cell that compares the most methods; among equals, the latest.
pub fn latest(cells: &[Cell]) -> impl Iterator<Item = &Cell> {
    let key = |cell: &Cell| (cell.comparisons.len(), cell.date.clone());
    let same_size = cells.chunk_by(|a, b| a.samples == b.samples);
    same_size.filter_map(move |same| same.iter().max_by_key(|cell| key(cell)))
}

fn was_tried(cell: &Cell, method: Method) -> bool {
    cell.method(Method::Eager).zip(cell.method(method)).is_some_and(|(eager, lazy)| eager.n > 0 && lazy.n > 0)
}

/// The ratio, or which method succeeded if the other never did; none if neither did or nothing was measured.
fn point(cell: &Cell, method: Method, measure: ComparedQuantity) -> Option<RatioPoint> {
    let (eager, lazy): (&MethodFigures, &MethodFigures) = cell.method(Method::Eager).zip(cell.method(method))?;
    match (eager.never_succeeded(), lazy.never_succeeded()) {
        (true, true) => None,
        (eager_failed, lazy_failed) if eager_failed != lazy_failed => match measure {
            // If neither method reports GPU memory, there may be no GPU, and the failure says nothing about its memory.
            ComparedQuantity::GpuMemory if lazy.gpu_peak_alloc_mb.or(eager.gpu_peak_alloc_mb).is_none() => None,
            _ => Some(RatioPoint::one_method(cell.samples, eager_failed)),
        },
        _ => {
            let (ratio, interval) = measure.ratio(cell.comparison(method)?)?;
            Some(RatioPoint::of_ratio(cell.samples, ratio, interval))
        }
    }
}

impl CrossoverAnswer {
    /// `from about 1,240 samples on (840 to 1,900)`, `never in the range tried`, and so on.
    pub fn text(&self) -> String {
        let (smallest, largest) = match (self.sizes.first(), self.sizes.last()) {
            (Some(smallest), Some(largest)) => (count(*smallest as f64), count(*largest as f64)),
            _ => return "not measured".to_owned(),
        };
        let one_size = self.sizes.len() == 1;
        if let Some(undecided) = self.crossover.undecided {
            return undecided_text(undecided);
        }
        let estimate = match self.crossover.estimate {
            WinningRange::Everywhere if one_size => "at the one size tried".to_owned(),
            WinningRange::Everywhere => format!("at every size tried, {smallest} to {largest}"),
            WinningRange::From(from) => format!("from about {} samples on", count(from)),
            WinningRange::Until(until) => format!("up to about {} samples, not beyond", count(until)),
            WinningRange::Between(from, until) => format!("from about {} to {} samples", count(from), count(until)),
            WinningRange::Never if one_size => "not at the one size tried".to_owned(),
            WinningRange::Never => "never in the range tried".to_owned(),
        };
        let certainty = match (self.crossover.estimate, self.crossover.interval) {
            (_, None) => "; no interval from a single block".to_owned(),
            (estimate, Some((possible, shown))) if estimate == possible && estimate == shown => String::new(),
            (WinningRange::From(_), Some((possible, shown))) => {
                let low = match possible {
                    WinningRange::From(low) => count(low),
                    _ => format!("{smallest} or fewer"),
                };
                let high = match shown {
                    WinningRange::From(high) => count(high),
                    _ => format!("beyond {largest}"),
                };
                format!(" ({low} to {high})")
            }
            (WinningRange::Until(_), Some((possible, shown))) => {
                let low = match shown {
                    WinningRange::Until(low) => count(low),
                    _ => format!("below {smallest}"),
                };
                let high = match possible {
                    WinningRange::Until(high) => count(high),
                    _ => format!("{largest} or more"),
                };
                format!(" ({low} to {high})")
            }
            (WinningRange::Everywhere, Some((_, shown))) => match shown {
                WinningRange::From(from) => format!("; shown from {} on", count(from)),
                WinningRange::Everywhere => String::new(),
                _ => "; the intervals do not decide it".to_owned(),
            },
            (WinningRange::Never, Some((WinningRange::Never, _))) => String::new(),
            (WinningRange::Never, Some((possible, _))) => match possible {
                WinningRange::From(from) => format!("; the intervals do not decide it from {} on", count(from)),
                WinningRange::Until(until) => format!("; the intervals do not decide it up to {}", count(until)),
                _ => "; the intervals do not decide it".to_owned(),
            },
            (WinningRange::Between(..), Some(_)) => String::new(),
        };
        estimate + &certainty
    }
}

/// Why nothing is claimed, and how to get an answer.
fn undecided_text(undecided: Undecided) -> String {
    let (reason, remedy) = match undecided {
        Undecided::Same { samples } => (
            format!("eager and lazy are within 2 % at {} samples", count(samples)),
            "measure smaller and larger --samples".to_owned(),
        ),
        Undecided::FewBlocks { samples, blocks } => (
            format!("{blocks} {} at {} samples", if blocks == 1 { "block" } else { "blocks" }, count(samples)),
            format!("measure with --repetitions {BLOCKS_OF_CONFIDENCE} or more"),
        ),
    };
    format!("the data do not decide ({reason}): {remedy}")
}

/// A number of samples with thousands separators, rounded to three significant digits.
pub fn count(samples: f64) -> String {
    let rounded = match samples {
        samples if samples < 1000.0 => samples.round(),
        samples => {
            let unit = 10.0_f64.powf(samples.log10().floor() - 2.0);
            (samples / unit).round() * unit
        }
    };
    // The conversion saturates at 2^64.
    indicatif::HumanCount(rounded as u64).to_string()
}
