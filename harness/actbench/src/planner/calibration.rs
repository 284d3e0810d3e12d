//! The rates and sizes of this machine that predictions are based on, measured in a few seconds or taken from results.

use serde::{Deserialize, Serialize};

use super::job::Job;
use super::probe_work::probe_work;
use crate::case::{Method, Task};
use crate::error::{Error, Result};
use crate::results::{NamedResults, Row, Status};
use crate::workload::score::{matrix_bytes, parallel_layers};
use pairgate::stats::summary::median;

/// Rates per second and sizes in bytes, for one model, data type and number of threads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Resident bytes of a process that runs no model.
    pub base_rss: u64,
    /// Heap bytes of such a process.
    pub base_heap: u64,
    /// Bytes per element of packed weights.
    pub weight_element: u64,
    /// Floating-point operations per second with packed batches.
    pub lazy_flops: f64,
    /// The same with padded batches of which all tokens are returned.
    pub eager_flops: f64,
    /// Bytes per second written to untouched memory.
    pub full_bytes: f64,
    /// Bytes per second that pooling on the host reads.
    pub pool_bytes: f64,
    /// Bytes per second written to a cache file, including its checksum.
    pub disk_bytes: f64,
    /// Fixed seconds per cache file.
    pub file_s: f64,
    /// Units of [`probe_work`] per second.
    pub probe_work: f64,
    /// Seconds from the start of a process until it loads weights.
    pub start_s: f64,
    /// Seconds of loading one block.
    pub block_s: f64,
    /// Bytes of the weights of one block in bf16.
    pub block_bytes: f64,
}

impl Calibration {
    /// Replaces rates by those of the results in `files` for the job's model and data type.
    ///
    /// # Errors
    /// No file has results for that model and data type, or no case of them succeeded.
    pub fn with_results(self, job: &Job, files: &[NamedResults]) -> Result<Self> {
        let named = |name: &Option<String>| name.clone().unwrap_or_else(|| "embedded".to_owned());
        let (model, dtype) = (named(&job.config.model), job.config.dtype);
        let matching = files.iter().filter(|file| {
            let config = &file.results.config;
            named(&config.model) == model && config.dtype == dtype
        });
        let ok = |row: &&Row| row.status == Status::Ok && row.ablated().is_none();
        let rows: Vec<(&Row, usize)> = matching
            .flat_map(|file| {
                let cs = file.results.config.sweep_cs.len();
                file.results.rows.iter().filter(ok).map(move |row| (row, cs))
            })
            .collect();
        let rate = |wanted: &dyn Fn(&Row) -> bool| {
            let rates = rows.iter().filter(|(row, _)| wanted(row)).filter_map(|(row, _)| flops_rate(row));
            median(&rates.collect::<Vec<f64>>()).ok()
        };
        let lazy = rate(&|row| row.method == Method::Lazy);
        // Eager times of the sweep include writing the full tensors, so they yield no rate of the model alone.
        let eager = rate(&|row| row.method == Method::Eager && row.task == Task::Train);
        let probe: Vec<f64> = rows.iter().filter_map(|(row, cs)| probe_rate(row, *cs, job)).collect();
        if lazy.is_none() && eager.is_none() {
            return Err(Error::usage(format!(
                "--calibrate: no case of the model {model} in {dtype} succeeded in these results; name other results, or omit \
                 the flag to measure this machine"
            )));
        }
        Ok(Calibration {
            // If one method has no results, its measured rate is scaled like that of the other.
            lazy_flops: lazy.or_else(|| Some(self.lazy_flops * eager? / self.eager_flops)).unwrap_or(self.lazy_flops),
            eager_flops: eager.or_else(|| Some(self.eager_flops * lazy? / self.lazy_flops)).unwrap_or(self.eager_flops),
            probe_work: median(&probe).unwrap_or(self.probe_work),
            ..self
        })
    }
}

fn flops_rate(row: &Row) -> Option<f64> {
    let flops = row.metrics.flops? as f64;
    row.extract_s.filter(|seconds| *seconds > 0.0).map(|seconds| flops / seconds)
}

/// Layers that train in parallel are counted as if they were sequential: the rate is that of all threads of the run.
fn probe_rate(row: &Row, cs: usize, job: &Job) -> Option<f64> {
    let samples = row.metrics.n_train? as f64 + row.metrics.n_test? as f64;
    let layers = match row.task {
        // A single layer trains so fast that its time is mostly that of starting threads.
        Task::Train => return None,
        Task::Sweep => row.metrics.n_layers? as f64,
    };
    let hidden = job.model.hidden_size;
    let parallel = parallel_layers(job.config.n_threads(), matrix_bytes(samples as usize, hidden)) as f64;
    let rounds = (layers / parallel.min(layers)).ceil();
    let work = probe_work(samples, hidden as f64, cs) * rounds;
    row.train_eval_s.filter(|seconds| *seconds > 0.0).map(|seconds| work / seconds)
}
