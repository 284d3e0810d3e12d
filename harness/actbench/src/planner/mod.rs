//! What a run will take, told before it runs: memory, disk, operations and time by method, from the model's configuration
//! and the lengths of the data alone.
//!
//! [`job`] is what is to be run; its batches are counted, not run. [`memory`] and [`time`] turn counts into bytes and seconds,
//! the latter by the [`calibration`] of this machine. [`choice`] says which methods fit and which to take.

use serde::Serialize;

use crate::case::{Method, Task};
use crate::error::Result;

pub mod calibrate;
pub mod calibration;
pub mod choice;
pub mod job;
pub mod memory;
#[cfg(test)]
mod tests;
pub mod time;

use calibration::Calibration;
use job::Job;

/// What one case is predicted to take. Memory is in bytes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Prediction {
    /// What is done.
    pub task: Task,
    /// How.
    pub method: Method,
    /// Largest resident size.
    pub rss_bytes: u64,
    /// Largest size of the heap.
    pub heap_bytes: u64,
    /// Memory of a GPU that would run it: weights, a batch and what is handed out. No GPU was ever measured.
    pub gpu_bytes: u64,
    /// Cache files.
    pub disk_bytes: u64,
    /// Floating-point operations of the model.
    pub flops: u64,
    /// Rows that go through the model.
    pub rows: u64,
    /// Seconds of reading or making the weights, before what is measured.
    pub load_s: f64,
    /// Seconds until the features are there.
    pub extract_s: f64,
    /// Seconds of training and scoring.
    pub train_eval_s: f64,
    /// Seconds of everything after loading.
    pub elapsed_s: f64,
}

/// The cases of `job`, task by task and method by method.
///
/// # Errors
/// Tokens that the model cannot be run on.
pub fn predict(job: &Job, calibration: &Calibration) -> Result<Vec<Prediction>> {
    job.cases()
        .map(|(task, method)| {
            let count = job.count(task, method)?;
            let memory = memory::of_case(job, task, method, &count, calibration);
            let time = time::of_case(job, task, method, &count, calibration);
            Ok(Prediction {
                task,
                method,
                rss_bytes: memory.rss,
                heap_bytes: memory.heap,
                gpu_bytes: memory.gpu,
                disk_bytes: memory.disk,
                flops: count.flops,
                rows: count.rows,
                load_s: time.load,
                extract_s: time.extract,
                train_eval_s: time.train_eval,
                elapsed_s: time.extract + time.train_eval,
            })
        })
        .collect()
}
