//! The outcome of a completed case, as a worker reports it.

use serde::{Deserialize, Serialize};

use super::metrics::CaseMetrics;

/// The outcome of a completed case.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CaseOutcome {
    /// Seconds of everything after loading.
    pub elapsed_s: f64,
    /// Seconds of feature extraction.
    pub extract_s: f64,
    /// Seconds of training and scoring.
    pub train_eval_s: f64,
    /// `auroc` or `mean_auroc`.
    pub metric_name: String,
    /// The value of that metric.
    pub metric_value: f64,
    /// Peak memory of the GPUs; none for a case on the CPU.
    #[serde(default)]
    pub gpu: Option<GpuPeaks>,
    /// All other metrics.
    #[serde(rename = "extra")]
    pub metrics: CaseMetrics,
}

/// Peak GPU memory in the measured part of a case, summed over its GPUs, in MiB (the names are those of the result file).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct GpuPeaks {
    /// Memory in use.
    pub alloc_mb: f64,
    /// Memory that the pools had reserved from the devices.
    pub reserved_mb: f64,
}
