//! Trains and scores a probe for each layer and each C.

use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;

use super::features::{LayerFeatures, bf16_matrix, to_matrix};
use super::prepare::Prepared;
use crate::error::{Error, Result};
use actbench_activations::plan::{Progress, ProgressSink};
use actbench_activations::probe::{Solver, SplitFeatures};

/// The score of one probe.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ProbeScore {
    /// The layer of its features.
    pub layer: usize,
    /// The inverse regularization strength.
    pub c: f64,
    /// Area under the ROC curve on the test side.
    pub auroc: f64,
}

/// The scores of all probes.
#[derive(Clone, Debug, PartialEq)]
pub struct ProbeScores {
    /// One score per layer and C, layers first.
    pub probes: Vec<ProbeScore>,
    /// The mean AUROC of all probes.
    pub mean: f64,
    /// The probe with the highest AUROC; the first one in a tie.
    pub best: ProbeScore,
}

impl ProbeScores {
    /// The AUROCs, `[layers, n_cs]`; none is a value that is not finite.
    pub fn by_layer(&self, n_cs: usize) -> Vec<Vec<Option<f64>>> {
        self.probes.chunks(n_cs.max(1)).map(|layer| layer.iter().map(|probe| finite(probe.auroc)).collect()).collect()
    }
}

/// Options of the training of probes.
#[derive(Clone, Copy)]
pub struct Training<'a> {
    /// The inverse regularization strengths, one probe for each.
    pub cs: &'a [f64],
    /// Maximum solver iterations per probe.
    pub max_iterations: usize,
    /// The solver.
    pub solver: &'a dyn Solver,
    /// Maximum number of layers trained in parallel; scores do not depend on it.
    pub threads: usize,
}

/// Maximum bytes of the matrices of layers that are trained in parallel; a single layer may exceed it.
const PARALLEL_LAYERS_BYTES: u64 = 64 << 20;

/// Bytes of the matrices of one layer: the features as stored and in `f32`, standardized in `f32`, the solver's copy in
/// `f64`, and its square matrix and factor in `f64`, of the smaller dimension.
pub fn matrix_bytes(n_samples: usize, hidden_size: usize) -> u64 {
    let (samples, features) = (n_samples as u64, hidden_size as u64);
    let square = samples.min(features).saturating_pow(2).saturating_mul(2 * 8);
    samples.saturating_mul(features).saturating_mul(4 + 4 + 8).saturating_add(square)
}

/// Number of layers of `layer_bytes` each that `threads` threads train in parallel. Many samples reduce the number, so that
/// probes do not need more memory than the extraction.
pub fn parallel_layers(threads: usize, layer_bytes: u64) -> usize {
    let fitting = usize::try_from(PARALLEL_LAYERS_BYTES / layer_bytes.max(1)).unwrap_or(usize::MAX);
    threads.min(fitting).max(1)
}

/// Trains and scores a probe for each layer and each C, several layers in parallel.
///
/// # Errors
/// Features that are not finite, or a side with a single class; the error of the first layer is returned. Threads cannot
/// be started.
pub fn score(
    layers: &[LayerFeatures],
    prepared: &Prepared,
    training: Training<'_>,
    progress: &ProgressSink,
) -> Result<ProbeScores> {
    let total = (layers.len() * training.cs.len()) as u64;
    let (train_labels, test_labels) = (&prepared.train.labels[..], &prepared.test.labels[..]);
    // Reported under the lock, so that the counts increase.
    let done = Mutex::new(0);
    let score_layer = |features: &LayerFeatures| -> Result<Vec<ProbeScore>> {
        let (train, test) = (features.train()?, features.test()?);
        let split = match (bf16_matrix(&train)?, bf16_matrix(&test)?) {
            (Some(train), Some(test)) => SplitFeatures::standardised(train, train_labels, test, test_labels)?,
            _ => {
                let (train, test) = (to_matrix(&train)?, to_matrix(&test)?);
                SplitFeatures::standardised(train.view(), train_labels, test.view(), test_labels)?
            }
        };
        // Only the standardized features are needed from here on.
        drop((train, test));
        let outcomes = split.score_path(training.solver, training.cs, training.max_iterations)?;
        let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
        *done += outcomes.len() as u64;
        progress(Progress { done: *done, total, unit: "probes" });
        let probe = |(&c, auroc): (&f64, f64)| ProbeScore { layer: features.layer, c, auroc };
        Ok(training.cs.iter().zip(outcomes.into_iter().map(|outcome| outcome.auroc)).map(probe).collect())
    };
    let n_samples = train_labels.len() + test_labels.len();
    let layer_bytes = layers.iter().map(|features| matrix_bytes(n_samples, features.hidden_size())).max().unwrap_or(0);
    // A separate pool: the global one has as many threads as the machine.
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(parallel_layers(training.threads, layer_bytes).min(layers.len()).max(1))
        .build()
        .map_err(|error| {
            Error::Numeric(format!("the threads for the probes cannot be started: {error}; lower --threads"))
        })?;
    let by_layer: Vec<Result<Vec<ProbeScore>>> =
        pool.install(|| layers.par_iter().with_max_len(1).map(score_layer).collect());
    let probes = by_layer.into_iter().collect::<Result<Vec<_>>>()?.concat();
    let best = probes.iter().copied().reduce(|best, probe| if probe.auroc > best.auroc { probe } else { best });
    let best = best.ok_or_else(|| Error::internal("no layer or no C to train a probe for"))?;
    let mean = probes.iter().map(|probe| probe.auroc).sum::<f64>() / probes.len() as f64;
    Ok(ProbeScores { probes, mean, best })
}

/// JSON has no NaN: a value that is not finite is null in the file.
pub(super) fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}
