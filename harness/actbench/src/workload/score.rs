//! Probes over features: one a layer and a C, and what they come to.

use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;

use super::features::{LayerFeatures, bf16_matrix, to_matrix};
use super::prepare::Prepared;
use crate::error::{Error, Result};
use actbench_activations::plan::{Progress, ProgressSink};
use actbench_activations::probe::{Solver, SplitFeatures};

/// One probe's score.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trial {
    /// The layer its features are of.
    pub layer: usize,
    /// The inverse strength of its penalty.
    pub c: f64,
    /// Area under the ROC curve on the test side.
    pub auroc: f64,
}

/// The scores of all probes.
#[derive(Clone, Debug, PartialEq)]
pub struct Scores {
    /// Layer by layer, C by C.
    pub trials: Vec<Trial>,
    /// The mean AUROC over the trials.
    pub mean: f64,
    /// The trial with the highest AUROC; the first of equals.
    pub best: Trial,
}

impl Scores {
    /// The AUROCs of `n_cs` probes a layer: one list a layer, in the order of the values of C.
    pub fn by_layer(&self, n_cs: usize) -> Vec<Vec<f64>> {
        self.trials.chunks(n_cs.max(1)).map(|of_layer| of_layer.iter().map(|trial| trial.auroc).collect()).collect()
    }
}

/// How probes are trained.
#[derive(Clone, Copy)]
pub struct Training<'a> {
    /// The inverse strengths of the penalty, a probe each.
    pub cs: &'a [f64],
    /// Iterations of one probe, at most.
    pub max_iterations: usize,
    /// What trains them.
    pub solver: &'a dyn Solver,
    /// Layers that are worked on at a time; no score depends on it.
    pub threads: usize,
}

/// Bytes of the matrices of several layers that are worked on at a time; a single layer may take more.
const SIDE_BY_SIDE_BYTES: u64 = 64 << 20;

/// Bytes of one layer's matrices: features as stored and in `f32`, standardized in `f32`, what of them the solver copies in
/// `f64`, and its square matrix and factor in `f64`, of the smaller dimension.
pub fn matrix_bytes(n_samples: usize, hidden_size: usize) -> u64 {
    let (samples, features) = (n_samples as u64, hidden_size as u64);
    let square = samples.min(features).saturating_pow(2).saturating_mul(2 * 8);
    samples.saturating_mul(features).saturating_mul(4 + 4 + 8).saturating_add(square)
}

/// Layers of `layer_bytes` each that `threads` threads work on at a time: with many samples few, so that probes need no
/// more memory than extraction did.
pub fn side_by_side(threads: usize, layer_bytes: u64) -> usize {
    let fitting = usize::try_from(SIDE_BY_SIDE_BYTES / layer_bytes.max(1)).unwrap_or(usize::MAX);
    threads.min(fitting).max(1)
}

/// Trains and scores a probe for each layer and each C, layers side by side.
///
/// # Errors
/// Features that are not finite, or a side with one class; of several, the one of the first layer. Threads that cannot
/// be started.
pub fn score(
    layers: &[LayerFeatures],
    prepared: &Prepared,
    training: Training<'_>,
    progress: &ProgressSink,
) -> Result<Scores> {
    let total = (layers.len() * training.cs.len()) as u64;
    let (train_labels, test_labels) = (&prepared.train.labels[..], &prepared.test.labels[..]);
    // Told under the lock, so that the counts come in order.
    let done = Mutex::new(0);
    let of_layer = |features: &LayerFeatures| -> Result<Vec<Trial>> {
        let (train, test) = (features.train()?, features.test()?);
        let split = match (bf16_matrix(&train)?, bf16_matrix(&test)?) {
            (Some(train), Some(test)) => SplitFeatures::standardized(train, train_labels, test, test_labels)?,
            _ => {
                let (train, test) = (to_matrix(&train)?, to_matrix(&test)?);
                SplitFeatures::standardized(train.view(), train_labels, test.view(), test_labels)?
            }
        };
        // The probes are trained on the standardized features alone.
        drop((train, test));
        let outcomes = split.score_path(training.solver, training.cs, training.max_iterations)?;
        let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
        *done += outcomes.len() as u64;
        progress(Progress { done: *done, total, unit: "probes" });
        let trial = |(&c, auroc): (&f64, f64)| Trial { layer: features.layer, c, auroc };
        Ok(training.cs.iter().zip(outcomes.into_iter().map(|outcome| outcome.auroc)).map(trial).collect())
    };
    let n_samples = train_labels.len() + test_labels.len();
    let layer_bytes = layers.iter().map(|features| matrix_bytes(n_samples, features.hidden_size())).max().unwrap_or(0);
    // A pool of its own: its threads are the case's, not all of the machine's.
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(side_by_side(training.threads, layer_bytes).min(layers.len()).max(1))
        .build()
        .map_err(|error| Error::Numeric(format!("starting threads for the probes failed: {error}; lower --threads")))?;
    let by_layer: Vec<Result<Vec<Trial>>> = pool.install(|| layers.par_iter().with_max_len(1).map(of_layer).collect());
    let trials = by_layer.into_iter().collect::<Result<Vec<_>>>()?.concat();
    let best = trials.iter().copied().reduce(|best, trial| if trial.auroc > best.auroc { trial } else { best });
    let best = best.ok_or_else(|| Error::usage("there is no layer or no C to train a probe for"))?;
    let mean = trials.iter().map(|trial| trial.auroc).sum::<f64>() / trials.len() as f64;
    Ok(Scores { trials, mean, best })
}
