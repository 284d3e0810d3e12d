//! Probes over features: one a layer and a C, and what they come to.

use super::features::{LayerFeatures, to_matrix};
use super::prepare::Prepared;
use crate::acts::{Progress, ProgressSink};
use crate::error::{Error, Result};
use crate::probe::SplitFeatures;

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

/// Trains and scores a probe for each layer and each of `cs`.
///
/// # Errors
/// Features that are not finite, or a side with one class.
pub fn score(
    layers: &[LayerFeatures],
    prepared: &Prepared,
    cs: &[f64],
    max_iterations: usize,
    progress: &ProgressSink,
) -> Result<Scores> {
    let total = (layers.len() * cs.len()) as u64;
    let mut trials: Vec<Trial> = Vec::new();
    for features in layers {
        let (train, test) = (to_matrix(&features.train()?)?, to_matrix(&features.test()?)?);
        let (train_labels, test_labels) = (&prepared.train.labels[..], &prepared.test.labels[..]);
        let split = SplitFeatures::standardised(train.view(), train_labels, test.view(), test_labels)?;
        // The probes are trained on the standardised features alone.
        drop((train, test));
        for &c in cs {
            trials.push(Trial { layer: features.layer, c, auroc: split.score(c, max_iterations)?.auroc });
            progress(Progress { done: trials.len() as u64, total, unit: "probes" });
        }
    }
    let best = trials.iter().copied().reduce(|best, trial| if trial.auroc > best.auroc { trial } else { best });
    let best = best.ok_or_else(|| Error::usage("there is no layer or no C to train a probe for"))?;
    let mean = trials.iter().map(|trial| trial.auroc).sum::<f64>() / trials.len() as f64;
    Ok(Scores { trials, mean, best })
}
