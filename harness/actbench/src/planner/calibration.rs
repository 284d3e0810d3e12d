//! What this machine does: rates and sizes that predictions rest on, measured in a few seconds or taken from results.

use serde::{Deserialize, Serialize};

use super::job::Job;
use super::time::probe_work;
use crate::case::{Method, Task};
use crate::crossover::NamedResults;
use crate::error::{Error, Result};
use crate::results::{Row, Status};
use pairgate::stats::summary::median;

/// Rates a second and sizes in bytes, for one model, type and number of threads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Resident bytes of a process that runs no model.
    pub base_rss: u64,
    /// The same on the heap.
    pub base_heap: u64,
    /// Bytes of an element of packed weights.
    pub weight_element: u64,
    /// Floating-point operations a second of packed batches.
    pub lazy_flops: f64,
    /// The same of padded batches whose rows all come to the host.
    pub eager_flops: f64,
    /// Bytes a second that are written into memory not yet touched.
    pub full_bytes: f64,
    /// Bytes a second that pooling reads on the host.
    pub pool_bytes: f64,
    /// Bytes a second that are written to a cache file, checksum and all.
    pub disk_bytes: f64,
    /// Seconds that a cache file takes however small it is.
    pub file_s: f64,
    /// Units of [`probe_work`] a second.
    pub probe_work: f64,
    /// Seconds until a process has read its data and is about to load weights.
    pub start_s: f64,
    /// Seconds of loading a block.
    pub block_s: f64,
    /// Bytes of its weights in bf16.
    pub block_bytes: f64,
}

impl Calibration {
    /// The same with the rates that `files` show for the job's model and type.
    ///
    /// # Errors
    /// No file is of that model and type, or none has a case that came through.
    pub fn with_results(self, job: &Job, files: &[NamedResults]) -> Result<Self> {
        let named = |name: &Option<String>| name.clone().unwrap_or_else(|| "embedded".to_owned());
        let (model, dtype) = (named(&job.config.model), job.config.dtype);
        let alike = files.iter().filter(|file| {
            let config = &file.results.config;
            named(&config.model) == model && config.dtype == dtype
        });
        let ok = |row: &&Row| row.status == Status::Ok && row.ablated().is_none();
        let rows: Vec<(&Row, usize)> = alike
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
        // Of the sweep the eager time is also that of the full tensors.
        let eager = rate(&|row| row.method == Method::Eager && row.task == Task::Train);
        let probe: Vec<f64> = rows.iter().filter_map(|(row, cs)| probe_rate(row, *cs, job)).collect();
        if lazy.is_none() && eager.is_none() {
            return Err(Error::usage(format!(
                "--calibrate: no case of the model {model} in {dtype} came through in these results; name others, or leave \
                 the flag out to measure this machine"
            )));
        }
        Ok(Calibration {
            // Where one of the two was not run, it is as much faster or slower than measured as the other.
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

/// Layers that train side by side are counted as if they took turns: the rate is of the run's threads together.
fn probe_rate(row: &Row, cs: usize, job: &Job) -> Option<f64> {
    let samples = row.metrics.n_train? as f64 + row.metrics.n_test? as f64;
    let layers = match row.task {
        // One layer is over so soon that its time is that of threads being started.
        Task::Train => return None,
        Task::Sweep => row.metrics.n_layers? as f64,
    };
    let hidden = job.model.hidden_size;
    let layer = crate::workload::score::matrix_bytes(samples as usize, hidden);
    let turns =
        (layers / (crate::workload::score::parallel_layers(job.config.n_threads(), layer) as f64).min(layers)).ceil();
    let work = probe_work(samples, hidden as f64, cs) * turns;
    row.train_eval_s.filter(|seconds| *seconds > 0.0).map(|seconds| work / seconds)
}
