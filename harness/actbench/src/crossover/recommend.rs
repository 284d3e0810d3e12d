//! The method to use by default, for each workload, size of a run and class of device, with the evidence.
//!
//! The rule is that of [`choice`](crate::results::choice), which `plan` uses too. Methods are compared only over cells that all
//! of them ran: the mean of a method over other cells would compare workloads and not methods. Only cells of one setting are
//! averaged, that is, of one model, data set, depth, type and machine: the mean over two models can be wrong for both. Within a
//! setting all cells of a size class have the same weight.

use std::fmt;

use serde::Serialize;

use super::answer::ComparedQuantity;
use super::cell::{Cell, MethodFigures, cells_of};
use super::setting::{DeviceClass, Setting, distinguishing_labels};
use crate::case::{Method, Task};
use crate::results::choice::{MethodNeeds, RepetitionCounts, UndecidedTimes, candidates, choose, not_tried};
use crate::results::interval::{IntervalBasis, shows_difference};
use crate::results::summary::Interval;
use crate::results::{NamedResults, ResultFile, Status};

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
    /// The model as tables show it.
    #[serde(skip)]
    pub shown_model: String,
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

/// The recommendation for one workload, setting and size.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Recommendation {
    /// The device class.
    pub device: DeviceClass,
    /// The workload.
    pub task: Task,
    /// Model as named by the user.
    pub model: String,
    /// What distinguishes the setting from the others of the workload and device: `SmolLM2, 8 layers`; empty if there is only one.
    pub setting: String,
    /// The size class.
    pub size: RunSize,
    /// The method; none if the measurements allow no comparison.
    pub mode: Option<Method>,
    /// The number of compared cells, and the confidence of their intervals.
    pub based_on: String,
    /// The reason, in one sentence, and the methods that were not compared.
    pub why: String,
    /// The evidence, cell by cell.
    pub evidence: Vec<Evidence>,
}

/// A recommendation for each device class, workload, size and setting that has measurements, in their order. `cells` are ordered
/// as [`cells_of`] orders them.
pub fn recommendations(cells: &[Cell], bounds: SizeBounds) -> Vec<Recommendation> {
    let is_usable = |cell: &&Cell| !cell.comparisons.is_empty() && cell.methods.iter().any(|figures| figures.n > 0);
    let usable: Vec<&Cell> = cells.iter().filter(is_usable).collect();
    let mut found = Vec::new();
    for device in DeviceClass::ALL {
        for task in [Task::Train, Task::Sweep] {
            let of_task = |cell: &&&Cell| (cell.setting.device, cell.setting.task) == (device, task);
            let of_task: Vec<&Cell> = usable.iter().filter(of_task).copied().collect();
            let groups: Vec<&[&Cell]> = of_task.chunk_by(|a, b| a.setting == b.setting).collect();
            let settings: Vec<&Setting> = groups.iter().map(|group| &group[0].setting).collect();
            let labels = distinguishing_labels(&settings);
            for size in RunSize::ALL {
                for (group, label) in groups.iter().zip(&labels) {
                    let here: Vec<&Cell> =
                        group.iter().copied().filter(|cell| RunSize::of(cell.samples, bounds) == size).collect();
                    if let Some(first) = here.first() {
                        found.push(recommendation(&first.setting, label, size, &here));
                    }
                }
            }
        }
    }
    found
}

/// The recommendations for the tasks of one run.
pub fn recommendations_of_run(results: &ResultFile) -> Vec<Recommendation> {
    let file = NamedResults { name: String::new(), path: String::new(), results: results.clone() };
    recommendations(&cells_of(&[file]), SizeBounds::default())
}

/// The recommendation from `cells`, which have the same `setting`.
fn recommendation(setting: &Setting, label: &str, size: RunSize, cells: &[&Cell]) -> Recommendation {
    let memory = match setting.device {
        DeviceClass::Cpu => ComparedQuantity::CpuMemory,
        DeviceClass::OneGpu | DeviceClass::SeveralGpus => ComparedQuantity::GpuMemory,
    };
    // Without times nothing can be said about a cell, not even that a method never completed.
    let timed: Vec<&Cell> =
        cells.iter().copied().filter(|cell| !cell.methods.iter().any(MethodFigures::is_untimed)).collect();
    let (methods, compared) = comparable(&timed);
    let choice = choose_among(&methods, &compared, memory);
    let reason = match (&choice, timed.is_empty()) {
        (_, true) => "no time was measured".to_owned(),
        (None, _) => "eager and a lazy method never completed in the same case".to_owned(),
        (Some(choice), _) => choice.why.clone(),
    };
    let apart = (!timed.is_empty()).then(|| not_compared(&timed, &methods)).flatten();
    Recommendation {
        device: setting.device,
        task: setting.task,
        model: setting.model.clone(),
        setting: label.to_owned(),
        size,
        mode: choice.map(|choice| choice.method),
        based_on: based_on(&compared),
        why: std::iter::once(reason).chain(apart).collect::<Vec<_>>().join("; "),
        evidence: timed.iter().flat_map(|cell| evidence_of(cell, memory)).collect(),
    }
}

/// The methods to compare, and the cells that have all of them: all three methods if a cell has them, otherwise eager and the
/// lazy method that has more cells in common with it.
fn comparable<'a>(cells: &[&'a Cell]) -> (Vec<Method>, Vec<&'a Cell>) {
    let with_all = |methods: &[Method]| -> (Vec<Method>, Vec<&'a Cell>) {
        let common = cells.iter().copied().filter(|cell| methods.iter().all(|method| was_tried(cell, *method)));
        (methods.to_vec(), common.collect())
    };
    let all = with_all(&[Method::Eager, Method::Lazy, Method::LazyDisk]);
    if !all.1.is_empty() {
        return all;
    }
    let (lazy, disk) = (with_all(&[Method::Eager, Method::Lazy]), with_all(&[Method::Eager, Method::LazyDisk]));
    if disk.1.len() > lazy.1.len() { disk } else { lazy }
}

fn was_tried(cell: &Cell, method: Method) -> bool {
    cell.method(method).is_some_and(|figures| figures.n > 0)
}

/// A chosen method and the reason.
struct ReasonedChoice {
    method: Method,
    why: String,
}

fn choose_among(methods: &[Method], cells: &[&Cell], memory: ComparedQuantity) -> Option<ReasonedChoice> {
    let counts = |method: Method| -> Vec<RepetitionCounts> {
        cells.iter().filter_map(|cell| cell.method(method)).map(MethodFigures::counts).collect()
    };
    let counts: Vec<(Method, Vec<RepetitionCounts>)> = methods.iter().map(|it| (*it, counts(*it))).collect();
    let needs = needs(&candidates(&counts), cells, memory);
    let undecided = undecided_times(&needs, cells);
    let chosen = choose(&needs, &undecided)?;
    let failures = |(method, counts): &(Method, Vec<RepetitionCounts>)| {
        counts.iter().copied().sum::<RepetitionCounts>().failures(*method)
    };
    let mut reasons: Vec<String> = counts.iter().filter_map(failures).collect();
    let others: Vec<&MethodNeeds> = needs.iter().filter(|it| it.method != chosen.method).collect();
    if others.is_empty() && reasons.is_empty() {
        reasons.push("no other method completed".to_owned());
    }
    reasons.extend(others.into_iter().map(|other| other.against(&chosen, &undecided)));
    Some(ReasonedChoice { method: chosen.method, why: reasons.join("; ") })
}

/// The geometric means of time and memory of `methods` over the cells in which all of them completed.
fn needs(methods: &[Method], cells: &[&Cell], memory: ComparedQuantity) -> Vec<MethodNeeds> {
    let complete: Vec<&Cell> = cells
        .iter()
        .copied()
        .filter(|cell| methods.iter().all(|method| figure(cell, *method, methods, ComparedQuantity::Time).is_some()))
        .collect();
    let mean = |method: Method, quantity: ComparedQuantity| -> Option<f64> {
        let logarithms: Option<Vec<f64>> =
            complete.iter().map(|cell| figure(cell, method, methods, quantity).map(f64::ln)).collect();
        logarithms.filter(|it| !it.is_empty()).map(|it| (it.iter().sum::<f64>() / it.len() as f64).exp())
    };
    let of_method = |method: &Method| {
        let seconds = mean(*method, ComparedQuantity::Time)?;
        Some(MethodNeeds { method: *method, seconds, memory_mib: mean(*method, memory) })
    };
    methods.iter().filter_map(of_method).collect()
}

/// The pairs of methods whose times showed no difference: in some cell the interval of their ratio contains 1, and no cell shows
/// the difference that their means have.
fn undecided_times(needs: &[MethodNeeds], cells: &[&Cell]) -> UndecidedTimes {
    let is_undecided = |one: &MethodNeeds, other: &MethodNeeds| {
        let ratios: Vec<(f64, Option<Interval>)> =
            cells.iter().filter_map(|cell| time_ratio(cell, one.method, other.method)).collect();
        let shows_means = |ratio: f64| (ratio > 1.0) == (one.seconds > other.seconds);
        ratios.iter().any(|(_, interval)| interval.is_some_and(|it| it.is_undecided()))
            && !ratios.iter().any(|(ratio, interval)| shows_difference(*ratio, *interval) && shows_means(*ratio))
    };
    let mut pairs = Vec::new();
    for (index, one) in needs.iter().enumerate() {
        let others = needs.iter().skip(index + 1).filter(|other| is_undecided(one, other));
        pairs.extend(others.map(|other| (one.method, other.method)));
    }
    UndecidedTimes(pairs)
}

/// The time of `one` divided by that of `other` within the blocks of `cell`, and its interval. `one` is the simpler method.
fn time_ratio(cell: &Cell, one: Method, other: Method) -> Option<(f64, Option<Interval>)> {
    match one {
        Method::Eager => ComparedQuantity::Time.ratio(cell.comparison(other)?),
        Method::Lazy | Method::LazyDisk => cell.lazy_time,
    }
}

/// The figure of `method` in `cell`, if it is compared with `methods`: eager's median divided by the ratio within blocks, in which
/// drift of the machine cancels. Without eager, or if it shares no block with the method, the method's own median.
fn figure(cell: &Cell, method: Method, methods: &[Method], quantity: ComparedQuantity) -> Option<f64> {
    let median = |figures: &MethodFigures| -> Option<f64> {
        let figure = match quantity {
            ComparedQuantity::Time => figures.elapsed_s,
            ComparedQuantity::CpuMemory => figures.cpu_peak_rss_mb,
            ComparedQuantity::GpuMemory => figures.gpu_peak_alloc_mb,
            ComparedQuantity::All => None,
        };
        figure.map(|figure| figure.median)
    };
    if !methods.contains(&Method::Eager) {
        return median(cell.shared_lazy.iter().find(|figures| figures.method == method)?);
    }
    let ratio = cell.comparison(method).and_then(|comparison| quantity.ratio(comparison));
    match (ratio, cell.method(Method::Eager).and_then(median)) {
        (Some((ratio, _)), Some(eager)) => Some(eager / ratio),
        _ => median(cell.method(method)?),
    }
}

/// `3 cells, 50 % intervals, 2 blocks; 1 without an interval`.
fn based_on(cells: &[&Cell]) -> String {
    let n_cells = if cells.len() == 1 { "1 cell".to_owned() } else { format!("{} cells", cells.len()) };
    let comparisons = cells.iter().flat_map(|cell| &cell.comparisons);
    let intervals = comparisons.filter_map(|(_, comparison)| comparison.intervals.speedup_lazy_vs_eager);
    let lacks_interval = |cell: &&&Cell| cell.comparisons.iter().any(|(_, comparison)| comparison.lacks_interval());
    match IntervalBasis::of(intervals) {
        Some(basis) => format!("{n_cells}, {}", basis.and_without(cells.iter().filter(lacks_interval).count())),
        None => format!("{n_cells}, no intervals"),
    }
}

/// The methods that were measured in other cells only, and those that were not tried; none if all are in `compared`.
fn not_compared(cells: &[&Cell], compared: &[Method]) -> Option<String> {
    let tried = |method: Method| cells.iter().any(|cell| was_tried(cell, method));
    let apart = [Method::Lazy, Method::LazyDisk].into_iter().find(|it| tried(*it) && !compared.contains(it));
    let apart = apart.map(|method| {
        format!("{method} was measured in other cells only (compare it with --methods eager,lazy,lazy-disk)")
    });
    let reasons: Vec<String> = [apart, not_tried(tried)].into_iter().flatten().collect();
    (!reasons.is_empty()).then(|| reasons.join("; "))
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
            shown_model: cell.setting.shown_model.clone(),
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
