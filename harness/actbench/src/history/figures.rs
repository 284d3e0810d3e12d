//! What a result file comes to, figure by figure: medians of each task, method and metric, with what they are of.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::case::{Method, Task};
use crate::gate::Metric;
use crate::results::{ResultFile, Row, Status};
use crate::stats::summary::median;

/// Settings that say how often, how long and from where, and not what is worked on.
const NOT_WORK: [&str; 7] = ["tasks", "methods", "repetitions", "warmup", "budget_s", "ablate", "data_dir"];

/// A task with a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Case {
    /// What was done.
    pub task: Task,
    /// How.
    pub method: Method,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{} {}", self.task, self.method))
    }
}

/// A metric of a case, measured several times.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// The case.
    pub case: Case,
    /// The metric.
    pub metric: Metric,
    /// An observation a repetition that came through.
    pub values: Vec<f64>,
    /// Of digests: each that was seen.
    pub digests: Vec<String>,
    /// Repetitions that did not come through.
    pub failed: usize,
}

impl Figure {
    /// The middle of the observations.
    pub fn median(&self) -> Option<f64> {
        median(&self.values).ok()
    }
}

/// All figures of `results`, by case in the order of its settings; metrics that no row has are left out, but never a case.
pub fn figures(results: &ResultFile) -> Vec<Figure> {
    let mut found = Vec::new();
    for task in &results.config.tasks {
        for method in &results.config.methods {
            let is_of = |row: &&Row| (row.task, row.method) == (*task, *method) && row.ablated().is_none();
            let rows: Vec<&Row> = results.rows.iter().filter(is_of).collect();
            let case = Case { task: *task, method: *method };
            found.extend(Metric::ALL.into_iter().filter_map(|metric| figure(case, metric, &rows)));
        }
    }
    found
}

/// A case that never came through keeps its time, so that it is seen to be missing.
fn figure(case: Case, metric: Metric, rows: &[&Row]) -> Option<Figure> {
    let ok: Vec<&&Row> = rows.iter().filter(|row| row.status == Status::Ok).collect();
    let mut digests: Vec<String> = match metric {
        Metric::FeatureDigest => ok.iter().filter_map(|row| row.feature_digest()).map(str::to_owned).collect(),
        _ => Vec::new(),
    };
    digests.sort();
    digests.dedup();
    let values: Vec<f64> = ok.iter().filter_map(|row| value(row, metric)).collect();
    let nothing = values.is_empty() && digests.is_empty();
    (!nothing || metric == Metric::Wall).then(|| Figure {
        case,
        metric,
        values,
        digests,
        failed: rows.len() - ok.len(),
    })
}

fn value(row: &Row, metric: Metric) -> Option<f64> {
    match metric {
        Metric::Wall => row.elapsed_s,
        Metric::Cpu => row.metrics.cpu_s.flatten(),
        Metric::PeakRss => row.cpu_peak_rss_mb,
        Metric::PeakHeap => row.cpu_peak_heap_mb,
        Metric::GpuUsed => row.gpu_peak_alloc_mb,
        Metric::GpuReserved => row.gpu_peak_reserved_mb,
        Metric::Instructions => row.metrics.unknown.get("instructions").and_then(Value::as_f64),
        Metric::Auroc => row.metric_value,
        Metric::FeatureDigest => None,
    }
    .filter(|value| value.is_finite())
}

/// The settings that define the work, by name: two runs are of the same work if these are equal. One that is new counts
/// as such until it is known not to, so that different work is never taken for the same.
pub fn work_of(results: &ResultFile) -> Vec<(String, String)> {
    let settings = match serde_json::to_value(&results.config) {
        Ok(Value::Object(settings)) => settings,
        _ => Default::default(),
    };
    let mut work: Vec<(String, String)> = settings
        .into_iter()
        .filter(|(name, _)| !NOT_WORK.contains(&name.as_str()))
        .map(|(name, value)| match value {
            Value::String(text) => (name, text),
            Value::Null => (name, "default".to_owned()),
            other => (name, other.to_string()),
        })
        .collect();
    work.sort();
    work
}
