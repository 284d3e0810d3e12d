//! One observation: one run of one case, with its measurements or the reason of its failure.

use std::fmt;

use pairgate::metric::PROCESS_SECONDS;
use serde::{Deserialize, Serialize};

use crate::case::{CaseMetrics, Method, Task};

/// How a case ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It completed.
    Ok,
    /// It ran out of memory, or was predicted to.
    Oom,
    /// It exceeded the time limit.
    Timeout,
    /// A signal terminated it.
    Killed,
    /// It failed in another way.
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

/// One observation: one run of one case. Memory is in MiB; the names are those of the result file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The task.
    pub task: Task,
    /// The extraction method.
    pub method: Method,
    /// The block it belongs to, from 0 on.
    pub repetition: Option<usize>,
    /// How the case ended.
    pub status: Status,
    /// Why the case failed.
    pub reason: Option<String>,
    /// Seconds of everything after loading.
    pub elapsed_s: Option<f64>,
    /// Seconds of feature extraction.
    pub extract_s: Option<f64>,
    /// Seconds of training and scoring.
    pub train_eval_s: Option<f64>,
    /// Peak resident memory, as the kernel counts it.
    pub cpu_peak_rss_mb: Option<f64>,
    /// Peak heap memory, as the allocator counts it, and eager's full tensors, which are mapped.
    pub cpu_peak_heap_mb: Option<f64>,
    /// Peak of the memory in use in the GPUs' pools.
    pub gpu_peak_alloc_mb: Option<f64>,
    /// Peak of the memory that the GPUs' pools had reserved.
    pub gpu_peak_reserved_mb: Option<f64>,
    /// `auroc` or `mean_auroc`.
    pub metric_name: String,
    /// The value of that metric.
    pub metric_value: Option<f64>,
    /// All other metrics.
    #[serde(rename = "extra")]
    pub metrics: CaseMetrics,
}

impl Row {
    /// The rule that the case disabled to measure its effect, or `all`; none for the full plan and for eager.
    pub fn ablated(&self) -> Option<&str> {
        self.metrics.ablated.as_deref()
    }

    /// [`Row::elapsed_s`], if it is a time that a process can take: a file that another program wrote can have any number.
    pub fn time_s(&self) -> Option<f64> {
        self.elapsed_s.filter(|seconds| PROCESS_SECONDS.contains(seconds))
    }

    /// The digest of the features its probes were trained on.
    pub fn feature_digest(&self) -> Option<&str> {
        self.metrics.feature_digest.as_deref()
    }
}
