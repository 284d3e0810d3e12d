//! The mode to take by default, for small, medium and large runs on each kind of device, with the evidence for it.
//!
//! For each size and device, the modes are compared over the cells that belong there. The one that failed in the fewest
//! cells comes first; among those, the fastest by the geometric mean of its time relative to eager in the same cell; modes
//! within [`SAME_TIME`] of it count as equally fast, and the one of these that takes the least memory is recommended. Cells
//! weigh the same whichever workload, model or layers they are of.

use std::fmt;

use serde::Serialize;

use super::answer::Measure;
use super::cell::Cell;
use super::setting::Device;
use crate::case::{Method, Task};
use crate::results::Status;
use crate::results::summary::Interval;

/// Times that differ by less than this share are the same for a recommendation.
pub const SAME_TIME: f64 = 0.05;

/// Which sizes are small, medium and large.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct SizeBounds {
    /// Samples from which a run is medium.
    pub medium_from: usize,
    /// Samples from which a run is large.
    pub large_from: usize,
}

impl Default for SizeBounds {
    /// A probe is often trained on some hundred rows; from ten thousand on, the activations of 16 layers of a small model
    /// fill tens of gigabytes.
    fn default() -> Self {
        SizeBounds { medium_from: 1000, large_from: 10_000 }
    }
}

/// How large a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Size {
    /// Below the first bound.
    Small,
    /// From the first bound on.
    Medium,
    /// From the second bound on.
    Large,
}

impl Size {
    /// All of them, ascending.
    pub const ALL: [Size; 3] = [Size::Small, Size::Medium, Size::Large];

    /// The size of a run of so many samples.
    pub fn of(samples: usize, bounds: SizeBounds) -> Self {
        match samples {
            samples if samples >= bounds.large_from => Size::Large,
            samples if samples >= bounds.medium_from => Size::Medium,
            _ => Size::Small,
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Size::Small => "small",
            Size::Medium => "medium",
            Size::Large => "large",
        })
    }
}

/// One cell and mode that a recommendation rests on.
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
    /// The lazy mode.
    pub method: Method,
    /// Time of eager over that of the mode.
    pub time: Option<(f64, Option<Interval>)>,
    /// Peak memory of eager over that of the mode: of the GPU where there is one, else resident.
    pub memory: Option<(f64, Option<Interval>)>,
    /// How the side that never came through ended.
    pub failure: Option<(Method, Status)>,
}

/// What the evidence comes to for one size on one device.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Recommendation {
    /// On what.
    pub device: Device,
    /// How large.
    pub size: Size,
    /// The mode; none where nothing was measured.
    pub mode: Option<Method>,
    /// Why, in one sentence.
    pub why: String,
    /// The rows behind it.
    pub evidence: Vec<Evidence>,
}

/// A mode over the cells of one size and device.
struct Standing {
    method: Method,
    cells: usize,
    failed: usize,
    /// Geometric means of eager over this mode.
    time: Option<f64>,
    memory: Option<f64>,
}

/// A recommendation for each device and size, in their order.
pub fn recommendations(cells: &[Cell], bounds: SizeBounds) -> Vec<Recommendation> {
    let places = Device::ALL.into_iter().flat_map(|device| Size::ALL.into_iter().map(move |size| (device, size)));
    places
        .map(|(device, size)| {
            let here = cells
                .iter()
                .filter(|cell| cell.setting.device == device && Size::of(cell.samples, bounds) == size)
                .filter(|cell| !cell.comparisons.is_empty());
            of_place(device, size, &here.collect::<Vec<_>>())
        })
        .collect()
}

fn of_place(device: Device, size: Size, cells: &[&Cell]) -> Recommendation {
    let measure = match device {
        Device::Cpu => Measure::CpuMemory,
        Device::OneGpu | Device::SeveralGpus => Measure::GpuMemory,
    };
    let evidence: Vec<Evidence> = cells.iter().flat_map(|cell| evidence_of(cell, measure)).collect();
    let mut standings: Vec<Standing> = [Method::Eager, Method::Lazy, Method::LazyDisk]
        .into_iter()
        .filter_map(|method| standing(method, cells, measure))
        .collect();
    let fewest = standings.iter().map(|it| it.failed * 1000 / it.cells.max(1)).min().unwrap_or(0);
    standings.retain(|it| it.failed * 1000 / it.cells.max(1) == fewest);
    let fastest = standings.iter().filter_map(|it| it.time).fold(f64::NEG_INFINITY, f64::max);
    let mut fast: Vec<&Standing> =
        standings.iter().filter(|it| it.time.is_none_or(|time| time >= fastest / (1.0 + SAME_TIME))).collect();
    // The first of equals stays: eager, which is the plainest.
    fast.sort_by(|a, b| b.memory.unwrap_or(1.0).total_cmp(&a.memory.unwrap_or(1.0)));
    let chosen = fast.first().copied();
    Recommendation {
        device,
        size,
        mode: chosen.map(|it| it.method),
        why: chosen.map_or_else(|| "not measured".to_owned(), |it| why(it, &standings, cells)),
        evidence,
    }
}

fn standing(method: Method, cells: &[&Cell], measure: Measure) -> Option<Standing> {
    let tried: Vec<&Cell> =
        cells.iter().copied().filter(|cell| cell.method(method).is_some_and(|figures| figures.n > 0)).collect();
    let mean = |measure: Measure| {
        let logarithms: Vec<f64> = tried
            .iter()
            .filter_map(|cell| measure.ratio(cell.comparison(method)?).map(|(ratio, _)| ratio.ln()))
            .collect();
        (!logarithms.is_empty()).then(|| (logarithms.iter().sum::<f64>() / logarithms.len() as f64).exp())
    };
    let (time, memory) = match method {
        Method::Eager => (Some(1.0), Some(1.0)),
        _ => (mean(Measure::Time), mean(measure)),
    };
    let failed =
        tried.iter().filter(|cell| cell.method(method).is_some_and(|figures| figures.n_ok < figures.n)).count();
    (!tried.is_empty()).then_some(Standing { method, cells: tried.len(), failed, time, memory })
}

/// `in 4 cells 2.31x faster than eager and 3.10x less memory; eager failed in 1 of them`.
fn why(chosen: &Standing, left: &[Standing], cells: &[&Cell]) -> String {
    let plural = |n: usize| if n == 1 { "1 cell".to_owned() } else { format!("{n} cells") };
    let failed = |method: Method| {
        let figures = cells.iter().filter_map(|cell| cell.method(method));
        figures.filter(|figures| figures.n_ok < figures.n).count()
    };
    let eager_failed = failed(Method::Eager);
    if chosen.method == Method::Eager {
        let others: Vec<String> = left
            .iter()
            .filter(|it| it.method != Method::Eager)
            .map(|it| format!("{} is {}", it.method, against_eager(it)))
            .collect();
        let others = if others.is_empty() { "the lazy modes failed".to_owned() } else { others.join(", ") };
        return format!("{}: {others}", plural(chosen.cells));
    }
    let failure = match eager_failed {
        0 => String::new(),
        n => format!(" where both came through; eager failed in {n}"),
    };
    match chosen.time {
        Some(_) => format!("{}: {}{failure}", plural(chosen.cells), against_eager(chosen)),
        None => format!("{}: eager never came through", plural(chosen.cells)),
    }
}

fn against_eager(standing: &Standing) -> String {
    let told = |ratio: Option<f64>, better: &str, worse: &str| match ratio {
        Some(ratio) if ratio >= 1.0 => format!("{ratio:.2}x {better}"),
        Some(ratio) => format!("{:.2}x {worse}", 1.0 / ratio),
        None => "with nothing to compare".to_owned(),
    };
    format!(
        "{} than eager with {}",
        told(standing.time, "faster", "slower"),
        told(standing.memory, "less memory", "more memory")
    )
}

fn evidence_of(cell: &Cell, measure: Measure) -> Vec<Evidence> {
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
            time: Measure::Time.ratio(comparison),
            memory: measure.ratio(comparison),
            failure: failure(Method::Eager).or_else(|| failure(*method)),
        })
        .collect()
}
