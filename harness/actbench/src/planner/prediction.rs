//! The predictions of a job's cases.

use serde::Serialize;

use super::calibration::Calibration;
use super::job::Job;
use super::{memory, time};
use crate::case::{Method, Task};
use crate::error::Result;

/// What one case is predicted to need. Memory is in bytes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CasePrediction {
    /// The task.
    pub task: Task,
    /// The extraction method.
    pub method: Method,
    /// Peak resident size.
    pub rss_bytes: u64,
    /// Peak heap size.
    pub heap_bytes: u64,
    /// Memory of a GPU that would run the case: weights, a batch and its outputs.
    pub gpu_bytes: u64,
    /// Size of the cache files.
    pub disk_bytes: u64,
    /// Floating-point operations of the model.
    pub flops: u64,
    /// Tokens that the model computes.
    pub rows: u64,
    /// Seconds of reading or generating the weights, before the measured part.
    pub load_s: f64,
    /// Seconds of feature extraction.
    pub extract_s: f64,
    /// Seconds of training and scoring the probes.
    pub train_eval_s: f64,
    /// Seconds from the end of loading to the end of the case.
    pub elapsed_s: f64,
}

/// Predicts the cases of `job`, ordered by task and then by method.
///
/// # Errors
/// Tokens that the model cannot run.
pub fn predict(job: &Job, calibration: &Calibration) -> Result<Vec<CasePrediction>> {
    let job = &job.clone().on_gpu(calibration.gpu.is_some());
    job.cases()
        .map(|(task, method)| {
            let count = job.count(task, method)?;
            let memory = memory::of_case(job, task, method, &count, calibration);
            let time = time::of_case(job, task, method, &count, calibration);
            Ok(CasePrediction {
                task,
                method,
                rss_bytes: memory.rss,
                heap_bytes: memory.heap,
                gpu_bytes: memory.gpu,
                disk_bytes: memory.disk,
                flops: count.flops,
                rows: count.tokens_computed,
                load_s: time.load,
                extract_s: time.extract,
                train_eval_s: time.train_eval,
                elapsed_s: time.extract + time.train_eval,
            })
        })
        .collect()
}
