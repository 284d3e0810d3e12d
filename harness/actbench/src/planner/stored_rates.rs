//! Rates that result files have for a job. They replace measurements of this machine.

use super::job::Job;
use super::probe_work::probe_work;
use crate::case::{Method, RunConfig, Task};
use crate::error::{Error, Result};
use crate::results::{NamedResults, Row, Status};
use crate::workload::score::{matrix_bytes, parallel_layers};
use pairgate::stats::summary::median;

/// The rates of a [`Calibration`](super::calibration::Calibration) that result files have; the others are measured.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StoredRates {
    /// Floating-point operations per second with packed batches.
    pub lazy_flops: Option<f64>,
    /// The same with padded batches of which all tokens are returned.
    pub eager_flops: Option<f64>,
    /// Units of [`probe_work`] per second.
    pub probe_work: Option<f64>,
}

impl StoredRates {
    /// The rates of the results in `files` for the job's model and data type.
    ///
    /// # Errors
    /// As [`check`].
    pub fn of_results(job: &Job, files: &[NamedResults]) -> Result<Self> {
        check(&job.config, files)?;
        let rows = rows(&job.config, files);
        let probe: Vec<f64> = rows.iter().filter_map(|(row, cs)| probe_rate(row, *cs, job)).collect();
        Ok(StoredRates {
            lazy_flops: median_rate(&rows, is_lazy),
            eager_flops: median_rate(&rows, is_eager),
            probe_work: median(&probe).ok(),
        })
    }

    /// The stored rates of lazy and eager, if no batch has to be measured.
    pub fn of_both_methods(&self) -> Option<(f64, f64)> {
        self.lazy_flops.zip(self.eager_flops)
    }

    /// The rates of lazy and eager: stored ones, and for a method without one its measured rate scaled like that of the other.
    pub fn complete(&self, measured_lazy: f64, measured_eager: f64) -> (f64, f64) {
        let scale = match (self.lazy_flops, self.eager_flops) {
            (Some(lazy), None) => lazy / measured_lazy,
            (None, Some(eager)) => eager / measured_eager,
            _ => 1.0,
        };
        (self.lazy_flops.unwrap_or(scale * measured_lazy), self.eager_flops.unwrap_or(scale * measured_eager))
    }
}

/// Checks that `files` have a rate for the model and the data type of `config`. Needs no data and no model, so that a wrong file
/// is reported before anything else is read or measured.
///
/// # Errors
/// No file has results for that model and data type, or no case of them succeeded.
pub fn check(config: &RunConfig, files: &[NamedResults]) -> Result<()> {
    let rows = rows(config, files);
    if median_rate(&rows, is_lazy).or_else(|| median_rate(&rows, is_eager)).is_some() {
        return Ok(());
    }
    let (model, dtype) = (model_name(config), config.dtype);
    let mut found: Vec<String> = Vec::new();
    for file in files {
        let name = format!("{} in {}", model_name(&file.results.config), file.results.config.dtype);
        if !found.contains(&name) {
            found.push(name);
        }
    }
    Err(Error::usage(format!(
        "--calibrate: no case of the model {model} in {dtype} succeeded in these results, which are of {}; name other results, or \
         omit the flag to measure this machine",
        found.join(", ")
    )))
}

fn model_name(config: &RunConfig) -> &str {
    config.model.as_deref().unwrap_or("embedded")
}

/// The successful cases of the model and data type of `config`, each with the number of regularization strengths of its sweep.
fn rows<'a>(config: &RunConfig, files: &'a [NamedResults]) -> Vec<(&'a Row, usize)> {
    let matching = files
        .iter()
        .map(|file| &file.results)
        .filter(|results| model_name(&results.config) == model_name(config) && results.config.dtype == config.dtype);
    let ok = |row: &&Row| row.status == Status::Ok && row.ablated().is_none();
    matching
        .flat_map(|results| results.rows.iter().filter(ok).map(|row| (row, results.config.sweep_cs.len())))
        .collect()
}

fn is_lazy(row: &Row) -> bool {
    row.method == Method::Lazy
}

/// Eager times of the sweep include writing the full tensors, so they yield no rate of the model alone.
fn is_eager(row: &Row) -> bool {
    row.method == Method::Eager && row.task == Task::Train
}

fn median_rate(rows: &[(&Row, usize)], wanted: fn(&Row) -> bool) -> Option<f64> {
    let rates = rows.iter().filter(|(row, _)| wanted(row)).filter_map(|(row, _)| flops_rate(row));
    median(&rates.collect::<Vec<f64>>()).ok()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_rate_is_scaled_like_the_other() {
        let stored = |lazy_flops, eager_flops| StoredRates { lazy_flops, eager_flops, probe_work: None };
        assert_eq!(stored(Some(8.0), Some(6.0)).of_both_methods(), Some((8.0, 6.0)));
        assert_eq!(stored(Some(8.0), Some(6.0)).complete(1.0, 1.0), (8.0, 6.0));
        assert_eq!(stored(Some(8.0), None).of_both_methods(), None);
        assert_eq!(stored(Some(8.0), None).complete(2.0, 1.0), (8.0, 4.0));
        assert_eq!(stored(None, Some(6.0)).complete(2.0, 1.0), (12.0, 6.0));
        assert_eq!(stored(None, None).complete(2.0, 1.0), (2.0, 1.0));
    }
}
