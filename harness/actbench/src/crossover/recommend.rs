//! The method to use by default, for small, medium and large runs on each class of device, with the evidence.
//!
//! For each size and device class, the methods are compared over the cells of that size and class. Methods that failed in the
//! fewest cells are ranked first; among these, the fastest by the geometric mean of its time relative to eager in the same
//! cell. Methods within [`EQUAL_TIME_FRACTION`] of it count as equally fast, and the one of them that uses the least memory is
//! recommended. All cells have the same weight, whatever their workload, model and layers.

use std::fmt;

use serde::Serialize;

use super::answer::ComparedQuantity;
use super::cell::{Cell, MethodFigures};
use super::setting::DeviceClass;
use crate::case::{Method, Task};
use crate::results::Status;
use crate::results::summary::{EQUAL_TIME_FRACTION, Interval};

/// The numbers of samples that separate small, medium and large runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct SizeBounds {
    /// Samples from which a run is medium.
    pub medium_from: usize,
    /// Samples from which a run is large.
    pub large_from: usize,
}

impl Default for SizeBounds {
    /// A probe is often trained on some hundred samples; from ten thousand on, the activations of 16 layers of a small
    /// model need tens of gigabytes.
    fn default() -> Self {
        SizeBounds { medium_from: 1000, large_from: 10_000 }
    }
}

/// The size class of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunSize {
    /// Below the first bound.
    Small,
    /// From the first bound on.
    Medium,
    /// From the second bound on.
    Large,
}

impl RunSize {
    /// All of them, ascending.
    pub const ALL: [RunSize; 3] = [RunSize::Small, RunSize::Medium, RunSize::Large];

    /// The size class of a run with this number of samples.
    pub fn of(samples: usize, bounds: SizeBounds) -> Self {
        match samples {
            samples if samples >= bounds.large_from => RunSize::Large,
            samples if samples >= bounds.medium_from => RunSize::Medium,
            _ => RunSize::Small,
        }
    }
}

impl fmt::Display for RunSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            RunSize::Small => "small",
            RunSize::Medium => "medium",
            RunSize::Large => "large",
        })
    }
}

/// One cell and lazy method that a recommendation is based on.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Evidence {
    /// Result file.
    pub run: String,
    /// Workload.
    pub task: Task,
    /// Model.
    pub model: String,
    /// Samples.
    pub samples: usize,
    /// `layer 12` or `16 layers`.
    pub depth: String,
    /// Pooling.
    pub pool: String,
    /// The lazy method.
    pub method: Method,
    /// Time of eager divided by that of the method.
    pub time: Option<(f64, Option<Interval>)>,
    /// Peak memory of eager divided by that of the method: GPU memory if there is a GPU, otherwise resident memory.
    pub memory: Option<(f64, Option<Interval>)>,
    /// Method and status of the side that failed.
    pub failure: Option<(Method, Status)>,
}

/// The recommendation for one size and device class.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Recommendation {
    /// The device class.
    pub device: DeviceClass,
    /// The size class.
    pub size: RunSize,
    /// The method; none if nothing was measured.
    pub mode: Option<Method>,
    /// The reason, in one sentence.
    pub why: String,
    /// The evidence, cell by cell.
    pub evidence: Vec<Evidence>,
}

/// A method over the cells of one size and device class.
struct MethodScore {
    method: Method,
    cells: usize,
    failed: usize,
    /// Geometric mean of the time of eager divided by that of the method.
    time: Option<f64>,
    /// The same for memory.
    memory: Option<f64>,
}

/// A recommendation for each device class and size, in their order.
pub fn recommendations(cells: &[Cell], bounds: SizeBounds) -> Vec<Recommendation> {
    let classes =
        DeviceClass::ALL.into_iter().flat_map(|device| RunSize::ALL.into_iter().map(move |size| (device, size)));
    classes
        .map(|(device, size)| {
            let here = cells
                .iter()
                .filter(|cell| cell.setting.device == device && RunSize::of(cell.samples, bounds) == size)
                .filter(|cell| !cell.comparisons.is_empty());
            recommendation(device, size, &here.collect::<Vec<_>>())
        })
        .collect()
}

fn recommendation(device: DeviceClass, size: RunSize, cells: &[&Cell]) -> Recommendation {
    let measure = match device {
        DeviceClass::Cpu => ComparedQuantity::CpuMemory,
        DeviceClass::OneGpu | DeviceClass::SeveralGpus => ComparedQuantity::GpuMemory,
    };
    // Without times nothing can be said about a cell, not even that a method never completed.
    let is_timed = |cell: &&Cell| !cell.methods.iter().any(MethodFigures::is_untimed);
    let (timed, untimed): (Vec<&Cell>, Vec<&Cell>) = cells.iter().copied().partition(is_timed);
    if timed.is_empty() && !untimed.is_empty() {
        return Recommendation {
            device,
            size,
            mode: None,
            why: "no time was measured".to_owned(),
            evidence: Vec::new(),
        };
    }
    let cells = &timed[..];
    let evidence: Vec<Evidence> = cells.iter().flat_map(|cell| evidence_of(cell, measure)).collect();
    let mut scores: Vec<MethodScore> = [Method::Eager, Method::Lazy, Method::LazyDisk]
        .into_iter()
        .filter_map(|method| score(method, cells, measure))
        .collect();
    let fewest = scores.iter().map(|it| it.failed * 1000 / it.cells.max(1)).min().unwrap_or(0);
    scores.retain(|it| it.failed * 1000 / it.cells.max(1) == fewest);
    let fastest = scores.iter().filter_map(|it| it.time).fold(f64::NEG_INFINITY, f64::max);
    let mut fast: Vec<&MethodScore> =
        scores.iter().filter(|it| it.time.is_none_or(|time| time >= fastest / (1.0 + EQUAL_TIME_FRACTION))).collect();
    // The sort is stable: among equals eager stays first, because it is the simplest.
    fast.sort_by(|a, b| b.memory.unwrap_or(1.0).total_cmp(&a.memory.unwrap_or(1.0)));
    let chosen = fast.first().copied();
    Recommendation {
        device,
        size,
        mode: chosen.map(|it| it.method),
        why: chosen.map_or_else(|| "not measured".to_owned(), |it| why(it, &scores, cells)),
        evidence,
    }
}

fn score(method: Method, cells: &[&Cell], measure: ComparedQuantity) -> Option<MethodScore> {
    let tried: Vec<&Cell> =
        cells.iter().copied().filter(|cell| cell.method(method).is_some_and(|figures| figures.n > 0)).collect();
    let mean = |measure: ComparedQuantity| {
        let logarithms: Vec<f64> = tried
            .iter()
            .filter_map(|cell| measure.ratio(cell.comparison(method)?).map(|(ratio, _)| ratio.ln()))
            .collect();
        (!logarithms.is_empty()).then(|| (logarithms.iter().sum::<f64>() / logarithms.len() as f64).exp())
    };
    let (time, memory) = match method {
        Method::Eager => (Some(1.0), Some(1.0)),
        _ => (mean(ComparedQuantity::Time), mean(measure)),
    };
    let failed =
        tried.iter().filter(|cell| cell.method(method).is_some_and(|figures| figures.n_ok < figures.n)).count();
    (!tried.is_empty()).then_some(MethodScore { method, cells: tried.len(), failed, time, memory })
}

/// `4 cells: 2.31x faster than eager with 3.10x less memory where both completed; eager failed in 1`.
fn why(chosen: &MethodScore, compared: &[MethodScore], cells: &[&Cell]) -> String {
    let n_cells = if chosen.cells == 1 { "1 cell".to_owned() } else { format!("{} cells", chosen.cells) };
    if chosen.method == Method::Eager {
        let others: Vec<String> = compared
            .iter()
            .filter(|score| score.method != Method::Eager)
            .map(|score| format!("{} is {}", score.method, against_eager(score)))
            .collect();
        let others = if others.is_empty() { "the lazy methods failed".to_owned() } else { others.join(", ") };
        return format!("{n_cells}: {others}");
    }
    if chosen.time.is_none() {
        return format!("{n_cells}: eager never completed");
    }
    let eager = cells.iter().filter_map(|cell| cell.method(Method::Eager));
    let failure = match eager.filter(|figures| figures.n_ok < figures.n).count() {
        0 => String::new(),
        failed => format!(" where both completed; eager failed in {failed}"),
    };
    format!("{n_cells}: {}{failure}", against_eager(chosen))
}

/// `2.31x faster than eager with 3.10x less memory`.
fn against_eager(score: &MethodScore) -> String {
    let time = match score.time.and_then(factor) {
        Some((factor, true)) => format!("{factor} faster than eager"),
        Some((factor, false)) => format!("{factor} slower than eager"),
        None => "as fast as eager".to_owned(),
    };
    let memory = match (score.memory, score.memory.and_then(factor)) {
        (None, _) => "with no memory figures".to_owned(),
        (_, Some((factor, true))) => format!("with {factor} less memory"),
        (_, Some((factor, false))) => format!("with {factor} more memory"),
        (_, None) => "with the same memory".to_owned(),
    };
    format!("{time} {memory}")
}

/// The factor of a ratio above or below 1, as `2.31x`, and whether it is above; none if it rounds to 1.00.
fn factor(ratio: f64) -> Option<(String, bool)> {
    let (factor, above) = if ratio >= 1.0 { (ratio, true) } else { (1.0 / ratio, false) };
    let text = format!("{factor:.2}x");
    (text != "1.00x").then_some((text, above))
}

fn evidence_of(cell: &Cell, measure: ComparedQuantity) -> Vec<Evidence> {
    let failure = |method: Method| {
        let figures = cell.method(method)?;
        let (status, _) = figures.failure.as_ref()?;
        Some((method, *status))
    };
    cell.comparisons
        .iter()
        .map(|(method, comparison)| Evidence {
            run: cell.run.clone(),
            task: cell.setting.task,
            model: cell.setting.model.clone(),
            samples: cell.samples,
            depth: cell.setting.depth(),
            pool: cell.setting.pool.clone(),
            method: *method,
            time: ComparedQuantity::Time.ratio(comparison),
            memory: measure.ratio(comparison),
            failure: failure(Method::Eager).or_else(|| failure(*method)),
        })
        .collect()
}
