//! Result files as runs of a history: the figures of each task, method and metric, and the facts that comparable runs share.

use std::fmt;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::case::{Method, Task};
use crate::measure::fingerprint::{Fingerprint, build_facts, machine_facts};
use crate::results::identity::RunIdentity;
use crate::results::{ResultFile, Row, Status};
use pairgate::Metric;
use pairgate::history::{RunFacts, RunFigure, RunRecord, SeriesKey};

/// Settings that change the number, the duration or the source of runs, but not their work.
const NOT_WORK: [&str; 7] = ["tasks", "methods", "repetitions", "warmup", "budget_s", "ablate", "data_dir"];

/// Settings that define how probes are trained and on which rows.
const PROBE_SETTINGS: [&str; 7] =
    ["seed", "solver", "sweep_cs", "sweep_max_iter", "train_c", "train_frac", "train_max_iter"];

/// A task with a method: the name of a case in a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TaskMethod {
    /// The task.
    pub task: Task,
    /// The method.
    pub method: Method,
}

impl fmt::Display for TaskMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{} {}", self.task, self.method))
    }
}

/// The run that `results` are of. `name` is the name of its file.
pub fn run_record(name: &str, results: &ResultFile) -> RunRecord<TaskMethod> {
    let named = |facts: Vec<(&'static str, String)>| -> Vec<(String, String)> {
        facts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    };
    let settings_of = |of_probe: bool| -> Vec<(String, String)> {
        let is_wanted = |(name, _): &(String, String)| PROBE_SETTINGS.contains(&name.as_str()) == of_probe;
        work_settings(results).into_iter().filter(is_wanted).collect()
    };
    let digest = |of: fn(&RunIdentity) -> Option<String>| -> Vec<(String, String)> {
        let digest = results.identity.as_ref().and_then(of);
        digest.map(|digest| ("digest".to_owned(), digest.chars().take(16).collect())).into_iter().collect()
    };
    RunRecord {
        name: name.to_owned(),
        label: label(results),
        date: begun(results),
        key: series_key(results),
        facts: RunFacts {
            work: settings_of(false),
            probe: settings_of(true),
            data: digest(|identity| identity.data.clone()),
            weights: digest(|identity| identity.weights.clone()),
            machine: named(machine_facts(&results.environment)),
            build: named(build_facts(&results.environment)),
        },
        figures: figures(results),
    }
}

/// When a run began, in milliseconds, so that dates are ordered like their texts. Older files have seconds.
pub fn begun(results: &ResultFile) -> String {
    let date = &results.environment.date;
    DateTime::parse_from_rfc3339(date)
        .map(|date| date.with_timezone(&Utc).to_rfc3339_opts(SecondsFormat::Millis, true))
        .unwrap_or_else(|_| date.clone())
}

/// The first digits of the commit, or the date if there is no commit.
pub fn label(results: &ResultFile) -> String {
    let environment = &results.environment;
    match &environment.commit {
        Some(commit) => {
            let dirty = if environment.dirty == Some(true) { "+" } else { "" };
            format!("{}{dirty}", commit.chars().take(7).collect::<String>())
        }
        None => environment.date.chars().take(10).collect(),
    }
}

/// Digests of the facts that runs share if they are comparable.
pub fn series_key(results: &ResultFile) -> SeriesKey {
    let settings = work_settings(results);
    let mut work: Vec<String> = settings.into_iter().map(|(name, value)| format!("{name}={value:?}")).collect();
    // Files without digests keep the key that they always had.
    if let Some(RunIdentity { data, weights }) = &results.identity {
        work.push(format!("identity={data:?},{weights:?}"));
    }
    let digest = blake3::hash(work.join("\n").as_bytes()).to_hex();
    let fingerprint = Fingerprint::of(&results.environment);
    SeriesKey { work: digest.chars().take(16).collect(), machine: fingerprint.machine, build: fingerprint.build }
}

/// In which inputs two runs differ: `model embedded against smollm2`. Inputs are the same if their digests are, or their names
/// where one of the runs recorded no digest.
pub fn different_inputs(base: &ResultFile, head: &ResultFile) -> Vec<String> {
    let identity = |results: &ResultFile| results.identity.clone().unwrap_or_default();
    let (base_identity, head_identity) = (identity(base), identity(head));
    let models = [base, head].map(|results| results.config.model_name());
    let model = different_input(
        "model",
        [Some(models[0].as_str()), Some(models[1].as_str())],
        [base_identity.weights.as_deref(), head_identity.weights.as_deref()],
    );
    let data = different_input(
        "data set",
        [base.config.dataset.as_deref(), head.config.dataset.as_deref()],
        [base_identity.data.as_deref(), head_identity.data.as_deref()],
    );
    model.into_iter().chain(data).collect()
}

fn different_input(kind: &str, names: [Option<&str>; 2], digests: [Option<&str>; 2]) -> Option<String> {
    let [base, head] = names.map(|name| name.unwrap_or("embedded"));
    match digests {
        [Some(base_digest), Some(head_digest)] if base_digest == head_digest => None,
        [Some(base_digest), Some(head_digest)] if base == head => {
            Some(format!("{kind} {base} with the digest {base_digest:.8} against {head_digest:.8}"))
        }
        _ if base == head => None,
        _ => Some(format!("{kind} {base} against {head}")),
    }
}

/// All figures of `results`, by case in the order of its settings. Metrics that no row has are omitted, but no case is.
fn figures(results: &ResultFile) -> Vec<RunFigure<TaskMethod>> {
    let mut figures = Vec::new();
    for task in &results.config.tasks {
        for method in &results.config.methods {
            let is_of_case = |row: &&Row| (row.task, row.method) == (*task, *method) && row.ablated().is_none();
            let rows: Vec<&Row> = results.rows.iter().filter(is_of_case).collect();
            let case = TaskMethod { task: *task, method: *method };
            figures.extend(Metric::ALL.into_iter().filter_map(|metric| figure(case, metric, &rows)));
        }
    }
    figures
}

/// A case that always failed has a figure for its time, so that comparisons see that it is missing.
fn figure(case: TaskMethod, metric: Metric, rows: &[&Row]) -> Option<RunFigure<TaskMethod>> {
    let ok: Vec<&&Row> = rows.iter().filter(|row| row.status == Status::Ok).collect();
    let mut digests: Vec<String> = if metric == Metric::ResultDigest {
        ok.iter().filter_map(|row| row.feature_digest()).map(str::to_owned).collect()
    } else {
        Vec::new()
    };
    digests.sort();
    digests.dedup();
    let values: Vec<f64> = ok.iter().filter_map(|row| value(row, metric)).collect();
    let is_measured = !(values.is_empty() && digests.is_empty());
    (is_measured || metric == Metric::Wall).then(|| RunFigure {
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
        Metric::PeakAnonymous => row.metrics.peak_anonymous_mb.flatten(),
        Metric::PeakHeap => row.cpu_peak_heap_mb,
        Metric::GpuUsed => row.gpu_peak_alloc_mb,
        Metric::GpuReserved => row.gpu_peak_reserved_mb,
        Metric::Instructions => row.metrics.unknown.get("instructions").and_then(Value::as_f64),
        Metric::Auroc => row.metric_value,
        Metric::ResultDigest => None,
    }
    .filter(|value| value.is_finite())
}

/// The settings that define the work, by name: two runs have the same work if these are equal. A new setting belongs to them
/// unless it is listed in [`NOT_WORK`], so that different work is never mistaken for the same.
fn work_settings(results: &ResultFile) -> Vec<(String, String)> {
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
