//! The summary of a task: ratios of methods within blocks, with confidence intervals.

use serde::{Deserialize, Serialize};

use super::ablation::AblationResult;
pub use super::interval::{CONFIDENCE, Interval};
use super::row::{Row, Status};
use crate::case::{Method, Task};
use pairgate::stats::ratio::RatioEstimate;
use pairgate::stats::summary::median;

/// Eager compared with a lazy method. Ratios are eager / lazy: above 1, lazy is better.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Ratio of `elapsed_s`.
    pub speedup_lazy_vs_eager: Option<f64>,
    /// Ratio of `cpu_peak_rss_mb`.
    pub cpu_mem_reduction_x: Option<f64>,
    /// Ratio of `gpu_peak_alloc_mb`.
    pub gpu_alloc_reduction_x: Option<f64>,
    /// Ratio of `gpu_peak_reserved_mb`.
    pub gpu_reserved_reduction_x: Option<f64>,
    /// The intervals of these ratios.
    pub intervals: Intervals,
    /// Median metric of lazy minus that of eager.
    pub metric_delta: Option<f64>,
}

/// Intervals of the ratios of a [`Comparison`]; null if there are too few blocks.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Intervals {
    /// Interval of the ratio of the same name.
    pub speedup_lazy_vs_eager: Option<Interval>,
    /// Interval of the ratio of the same name.
    pub cpu_mem_reduction_x: Option<Interval>,
    /// Interval of the ratio of the same name.
    pub gpu_alloc_reduction_x: Option<Interval>,
    /// Interval of the ratio of the same name.
    pub gpu_reserved_reduction_x: Option<Interval>,
}

/// The summary of a task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskSummary {
    /// The lazy method of the fields next to this one: `lazy`, or `lazy-disk` if it is the only one.
    pub lazy_method: Method,
    /// Eager compared with that method.
    #[serde(flatten)]
    pub comparison: Comparison,
    /// Eager compared with `lazy-disk`, if `lazy` ran as well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lazy_disk: Option<Comparison>,
    /// The effect of each rule of the lazy plans, if it was measured.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ablation: Vec<AblationResult>,
    /// Whether all completed rows have the same feature digest; null if there are fewer than two.
    pub digests_agree: Option<bool>,
    /// Rows that failed.
    pub n_failed: usize,
}

impl TaskSummary {
    /// Summarizes the rows of `task`.
    pub fn of(task: Task, rows: &[Row]) -> Self {
        let all: Vec<&Row> = rows.iter().filter(|row| row.task == task).collect();
        let rows: Vec<&Row> = all.iter().copied().filter(|row| row.ablated().is_none()).collect();
        let has = |method: Method| rows.iter().any(|row| row.method == method);
        let (first, second) = match (has(Method::Lazy), has(Method::LazyDisk)) {
            (true, true) => (Method::Lazy, Some(Method::LazyDisk)),
            (false, true) => (Method::LazyDisk, None),
            _ => (Method::Lazy, None),
        };
        let digests: Vec<&str> =
            all.iter().filter(|row| row.status == Status::Ok).filter_map(|row| row.feature_digest()).collect();
        TaskSummary {
            lazy_method: first,
            comparison: Comparison::of(&rows, first),
            lazy_disk: second.map(|method| Comparison::of(&rows, method)),
            digests_agree: (digests.len() > 1).then(|| digests.windows(2).all(|pair| pair[0] == pair[1])),
            ablation: AblationResult::of(&all),
            n_failed: all.iter().filter(|row| row.status != Status::Ok).count(),
        }
    }

    /// The comparisons, each with its lazy method.
    pub fn by_method(&self) -> impl Iterator<Item = (Method, &Comparison)> {
        let second = self.lazy_disk.as_ref().map(|comparison| (Method::LazyDisk, comparison));
        std::iter::once((self.lazy_method, &self.comparison)).chain(second)
    }
}

impl Comparison {
    /// Eager compared with `method`, over the blocks in which both completed.
    fn of(rows: &[&Row], method: Method) -> Self {
        let ratio = |value: fn(&Row) -> Option<f64>| ratio(rows, (Method::Eager, method), value);
        let time = ratio(Row::time_s);
        let memory = ratio(|row| row.cpu_peak_rss_mb);
        let gpu_alloc = ratio(|row| row.gpu_peak_alloc_mb);
        let gpu_reserved = ratio(|row| row.gpu_peak_reserved_mb);
        let metric = |method: Method| {
            let ok = rows.iter().filter(|row| row.method == method && row.status == Status::Ok);
            median(&ok.filter_map(|row| row.metric_value).collect::<Vec<f64>>()).ok()
        };
        Comparison {
            intervals: Intervals {
                speedup_lazy_vs_eager: time.as_ref().and_then(Interval::of),
                cpu_mem_reduction_x: memory.as_ref().and_then(Interval::of),
                gpu_alloc_reduction_x: gpu_alloc.as_ref().and_then(Interval::of),
                gpu_reserved_reduction_x: gpu_reserved.as_ref().and_then(Interval::of),
            },
            speedup_lazy_vs_eager: time.map(|ratio| ratio.estimate),
            cpu_mem_reduction_x: memory.map(|ratio| ratio.estimate),
            gpu_alloc_reduction_x: gpu_alloc.map(|ratio| ratio.estimate),
            gpu_reserved_reduction_x: gpu_reserved.map(|ratio| ratio.estimate),
            metric_delta: metric(method).zip(metric(Method::Eager)).map(|(lazy, eager)| lazy - eager),
        }
    }

    /// Whether the ratio of the times has no interval, because it is that of a single block.
    pub fn lacks_interval(&self) -> bool {
        self.speedup_lazy_vs_eager.is_some() && self.intervals.speedup_lazy_vs_eager.is_none()
    }
}

/// The time ratios of `task`: eager / lazy for each lazy method that shares a block with eager.
pub fn time_ratios(task: Task, rows: &[Row]) -> Vec<RatioEstimate> {
    let rows: Vec<&Row> = rows.iter().filter(|row| row.task == task && row.ablated().is_none()).collect();
    let lazy = [Method::Lazy, Method::LazyDisk].into_iter();
    lazy.filter_map(|method| ratio(&rows, (Method::Eager, method), Row::time_s)).collect()
}

/// The time of `lazy` divided by that of `lazy-disk`, over the blocks of one task in which both completed.
pub fn lazy_time_ratio(rows: &[&Row]) -> Option<(f64, Option<Interval>)> {
    let ratio = ratio(rows, (Method::Lazy, Method::LazyDisk), Row::time_s)?;
    Some((ratio.estimate, Interval::of(&ratio)))
}

/// The first of `methods` divided by the second by `value`, over the blocks in which both completed with a positive value.
fn ratio(rows: &[&Row], methods: (Method, Method), value: fn(&Row) -> Option<f64>) -> Option<RatioEstimate> {
    let pairs = blocks(rows, methods)
        .filter_map(|(first, second)| value(first).zip(value(second)))
        .filter(|(first, second)| *first > 0.0 && *second > 0.0);
    let (first, second): (Vec<f64>, Vec<f64>) = pairs.unzip();
    RatioEstimate::of_pairs(&first, &second, CONFIDENCE).ok()
}

/// Pairs of a row of each of `methods` that completed in the same block.
fn blocks<'a>(rows: &'a [&'a Row], methods: (Method, Method)) -> impl Iterator<Item = (&'a Row, &'a Row)> {
    let ok = |wanted: Method| {
        rows.iter()
            .copied()
            .filter(move |row| row.method == wanted && row.status == Status::Ok && row.repetition.is_some())
    };
    let (first, second) = methods;
    ok(first)
        .filter_map(move |one| ok(second).find(|other| other.repetition == one.repetition).map(|other| (one, other)))
}
