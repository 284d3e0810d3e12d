//! One observation: one case, once, with what it measured or why it failed.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::measure::memory::Peaks;
use crate::runner::ending::{Ended, Ending};
use crate::runner::schedule::Slot;
use crate::workload::case::{CaseOutcome, Method, Task};

/// How a case ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It came through.
    Ok,
    /// It wanted more memory than there is.
    Oom,
    /// It took longer than it may.
    Timeout,
    /// A signal ended it.
    Killed,
    /// Anything else.
    Error,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Status::Ok => "ok",
            Status::Oom => "oom",
            Status::Timeout => "timeout",
            Status::Killed => "killed",
            Status::Error => "error",
        })
    }
}

/// One observation: one case, once. Memory is in MB of 2^20 bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// What was done.
    pub task: Task,
    /// How.
    pub method: Method,
    /// The block it belongs to, from 0 on.
    pub repetition: Option<usize>,
    /// How it ended.
    pub status: Status,
    /// Why it did not come through.
    pub reason: Option<String>,
    /// Seconds of everything after loading.
    pub elapsed_s: Option<f64>,
    /// Seconds until the features were there.
    pub extract_s: Option<f64>,
    /// Seconds of training and scoring.
    pub train_eval_s: Option<f64>,
    /// The kernel's high-water mark of the resident size.
    pub cpu_peak_rss_mb: Option<f64>,
    /// The allocator's high-water mark.
    pub cpu_peak_heap_mb: Option<f64>,
    /// The GPU memory pool's high-water mark of memory used.
    pub gpu_peak_alloc_mb: Option<f64>,
    /// The GPU memory pool's high-water mark of memory reserved.
    pub gpu_peak_reserved_mb: Option<f64>,
    /// `auroc` or `mean_auroc`.
    pub metric_name: String,
    /// Its value.
    pub metric_value: Option<f64>,
    /// Everything else.
    pub extra: Map<String, Value>,
}

impl Row {
    /// The row of a case that ended as `ended`.
    pub fn new(slot: Slot, ended: Ended) -> Self {
        let metric_name = match slot.task {
            Task::Train => "auroc",
            Task::Sweep => "mean_auroc",
        };
        let mut row = Row {
            task: slot.task,
            method: slot.method,
            repetition: slot.block,
            status: Status::Error,
            reason: None,
            elapsed_s: None,
            extract_s: None,
            train_eval_s: None,
            cpu_peak_rss_mb: None,
            cpu_peak_heap_mb: None,
            gpu_peak_alloc_mb: None,
            gpu_peak_reserved_mb: None,
            metric_name: metric_name.to_owned(),
            metric_value: None,
            extra: Map::new(),
        };
        if let Ending::Done(outcome, peaks) = &ended.ending {
            row.add_outcome(outcome);
            row.add_peaks(*peaks);
        }
        if let Some(ablation) = slot.ablation {
            row.extra.insert("ablated".to_owned(), json!(ablation.name()));
        }
        match &ended.ending {
            Ending::Done(..) => return row,
            Ending::Failed(failure) if failure.out_of_memory_bytes.is_some() => {
                row.status = Status::Oom;
                row.extra.insert("oom_bytes".to_owned(), json!(failure.out_of_memory_bytes));
            }
            Ending::TimedOut(_) => row.status = Status::Timeout,
            Ending::Killed(_) => row.status = Status::Killed,
            Ending::Failed(_) | Ending::Silent(_) | Ending::Garbled(_) | Ending::Lingered(_) => {}
        }
        row.reason = Some(ended.reason());
        if !ended.stderr.is_empty() {
            row.extra.insert("stderr".to_owned(), json!(ended.stderr));
        }
        row
    }

    fn add_outcome(&mut self, outcome: &CaseOutcome) {
        self.elapsed_s = finite(outcome.elapsed_s);
        self.extract_s = finite(outcome.extract_s);
        self.train_eval_s = finite(outcome.train_eval_s);
        self.metric_name = outcome.metric_name.clone();
        self.metric_value = finite(outcome.metric_value);
        self.gpu_peak_alloc_mb = outcome.gpu.and_then(|gpu| finite(gpu.alloc_mb));
        self.gpu_peak_reserved_mb = outcome.gpu.and_then(|gpu| finite(gpu.reserved_mb));
        self.extra = outcome.extra.clone();
        match (self.elapsed_s, self.metric_value) {
            (Some(_), Some(_)) => self.status = Status::Ok,
            _ => self.reason = Some("its time or its metric is not a finite number".to_owned()),
        }
    }

    fn add_peaks(&mut self, peaks: Peaks) {
        self.cpu_peak_rss_mb = peaks.rss_mb.and_then(finite);
        self.cpu_peak_heap_mb = finite(peaks.heap_mb);
        for (name, value) in [
            ("rss_anonymous_mb", json!(peaks.rss_anonymous_mb)),
            ("rss_file_mb", json!(peaks.rss_file_mb)),
            ("load_peak_rss_mb", json!(peaks.load_rss_mb)),
            ("peak_includes_loading", json!(peaks.includes_loading)),
        ] {
            self.extra.insert(name.to_owned(), value);
        }
    }

    /// The rule that the case went without to show its worth, or `all`; none for the full plan and for eager.
    pub fn ablated(&self) -> Option<&str> {
        self.extra.get("ablated").and_then(Value::as_str)
    }

    /// The digest of the features its probes were trained on.
    pub fn feature_digest(&self) -> Option<&str> {
        self.extra.get("feature_digest").and_then(Value::as_str)
    }
}

/// JSON has no NaN; what is not finite is null in the file.
fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}
