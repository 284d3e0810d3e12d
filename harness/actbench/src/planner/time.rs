//! Predicted seconds of a case: operations and bytes, each divided by its calibrated rate on this machine.

use super::calibration::Calibration;
use super::job::Job;
use super::probe_work::probe_work;
use crate::case::{Method, Task};
use crate::workload::layers_of;
use crate::workload::score::{matrix_bytes, parallel_layers};
use actbench_activations::plan::PlanCost;

/// Predicted times of a case, in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CaseTime {
    /// Reading or generating the weights, which a run does not measure.
    pub load: f64,
    /// Feature extraction.
    pub extract: f64,
    /// Training and scoring the probes.
    pub train_eval: f64,
}

/// Predicts the times of one case from the count of its batches.
pub fn of_case(job: &Job, task: Task, method: Method, count: &PlanCost, calibration: &Calibration) -> CaseTime {
    let layers = layers_of(&job.config, task).len() as f64;
    let vector = (job.model.hidden_size * job.config.dtype.size()) as f64;
    let (samples, longest) = (job.samples(), job.longest());
    let (_, pooled_tokens) = job.tokens();
    let all_samples = (samples[0] + samples[1]) as f64;
    let rate = if method == Method::Eager { calibration.eager_flops } else { calibration.lazy_flops };
    let mut extract = count.flops as f64 / rate;
    if (method, task) == (Method::Eager, Task::Sweep) {
        let positions: u64 = samples.iter().zip(longest).map(|(samples, longest)| samples * longest).sum();
        extract += positions as f64 * layers * vector / calibration.full_bytes;
        extract += pooled_tokens as f64 * layers * vector / calibration.pool_bytes;
    }
    if job.config.caches_on_disk(method) {
        extract += all_samples * layers * vector / calibration.disk_bytes + calibration.file_s;
    }
    let cs = match task {
        Task::Train => 1,
        Task::Sweep => job.config.sweep_cs.len(),
    };
    let layer = matrix_bytes(all_samples as usize, job.model.hidden_size);
    let at_a_time = parallel_layers(job.config.n_threads(), layer) as f64;
    let probe = probe_work(all_samples, job.model.hidden_size as f64, cs) / calibration.probe_work;
    let embedding = (job.model.vocab_size * job.model.hidden_size * 2) as f64;
    let embedding_blocks = if job.synthetic_weights { embedding / calibration.block_bytes } else { 0.0 };
    CaseTime {
        load: calibration.start_s + (count.blocks as f64 + embedding_blocks) * calibration.block_s,
        extract,
        train_eval: probe * (layers / at_a_time.min(layers)).ceil(),
    }
}
