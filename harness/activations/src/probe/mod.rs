//! The probe of both workloads: pooled activations are standardised, a logistic regression is trained on them, and
//! the AUROC on the test split is the metric.
//!
//! [`SplitFeatures`] holds one layer's standardised features and is scored at one `C` or at several; it is the same
//! code for lazy and for eager features, so equal feature bits give equal probes. [`logistic::Solver`] is the place
//! for ways to minimise the same objective: [`NewtonSolver`] is this program's own and the default, [`LinfaSolver`] an
//! independent one to check it by.

pub mod auroc;
mod dense;
pub mod linfa_solver;
pub mod logistic;
mod losses;
pub mod newton;
mod products;
pub mod standardise;

#[cfg(test)]
mod tests;

use ndarray::{Array2, ArrayView2};

pub use auroc::auroc;
pub use linfa_solver::LinfaSolver;
pub use logistic::{Parameters, Probe, Problem, Solution, Solver, fit, fit_path, fit_with};
pub use newton::NewtonSolver;
pub use standardise::{Standardiser, Stored};

use crate::error::{Error, Result};

/// One layer's features of both splits, standardised by the training split, with their labels.
#[derive(Clone, Debug)]
pub struct SplitFeatures<'a> {
    train: Array2<f32>,
    train_labels: &'a [u8],
    test: Array2<f32>,
    test_labels: &'a [u8],
}

impl<'a> SplitFeatures<'a> {
    /// Standardises `train` `[n_train, h]` and `test` `[n_test, h]`; a label is 0 or 1 for each row.
    ///
    /// # Errors
    ///
    /// What [`Standardiser::fit`] and [`Standardiser::apply`] refuse, and numbers of labels and samples that differ.
    pub fn standardised<E: Stored>(
        train: ArrayView2<'_, E>,
        train_labels: &'a [u8],
        test: ArrayView2<'_, E>,
        test_labels: &'a [u8],
    ) -> Result<Self> {
        for (name, rows, labels) in [("training", train.nrows(), train_labels), ("test", test.nrows(), test_labels)] {
            if rows != labels.len() {
                return Err(Error::input(
                    format!("{name} features"),
                    format!("{rows} samples, but {} labels", labels.len()),
                ));
            }
            // Before the fit, so that a split without one class costs no training time.
            auroc::count_classes(&format!("{name} labels"), labels)?;
        }
        let standardiser = Standardiser::fit(train.reborrow())?;
        Ok(Self {
            train: standardiser.apply("training features", train)?,
            train_labels,
            test: standardiser.apply("test features", test)?,
            test_labels,
        })
    }

    /// Trains at `c` with the default solver, and scores: see [`SplitFeatures::score_path`].
    ///
    /// # Errors
    ///
    /// `c` or `max_iterations` out of range, or a solver that found nothing usable.
    pub fn score(&self, c: f64, max_iterations: usize) -> Result<ProbeOutcome> {
        let problem = Problem::new(self.train.view(), self.train_labels, c)?;
        self.outcome(fit_with(&NewtonSolver, &problem, None, max_iterations)?)
    }

    /// Trains at each of `cs` on the training split in at most `max_iterations` iterations of `solver` a probe, and
    /// gives the AUROC on the test split, in the order of `cs`.
    ///
    /// # Errors
    ///
    /// A `C` or `max_iterations` out of range, or a solver that found nothing usable.
    pub fn score_path(&self, solver: &dyn Solver, cs: &[f64], max_iterations: usize) -> Result<Vec<ProbeOutcome>> {
        let Some(&first) = cs.first() else { return Ok(Vec::new()) };
        let problem = Problem::new(self.train.view(), self.train_labels, first)?;
        fit_path(solver, &problem, cs, max_iterations)?.into_iter().map(|probe| self.outcome(probe)).collect()
    }

    /// Scores a probe on the test split.
    fn outcome(&self, probe: Probe) -> Result<ProbeOutcome> {
        let scores = probe.decision_function(self.test.view())?;
        let auroc = auroc(&scores.to_vec(), self.test_labels)?;
        Ok(ProbeOutcome { auroc, n_train: self.train_labels.len(), n_test: self.test_labels.len(), probe })
    }
}

/// A trained probe and how well it tells the test samples apart.
#[derive(Clone, Debug)]
pub struct ProbeOutcome {
    /// Area under the ROC curve on the test split, `0..=1`.
    pub auroc: f64,
    /// Training samples.
    pub n_train: usize,
    /// Test samples.
    pub n_test: usize,
    /// The probe; its weights belong to standardised features.
    pub probe: Probe,
}

/// The whole of one trial: standardises, trains at `c` in at most `max_iterations`, and scores on the test split.
///
/// `train` is `[n_train, h]`, `test` `[n_test, h]`, a label is 0 or 1 for each row.
///
/// # Errors
///
/// One training sample only, features that are not finite, lengths or columns that do not match, a split with one
/// class only, `c` or `max_iterations` out of range, or a solver that found nothing usable.
pub fn train_and_score(
    train: ArrayView2<'_, f32>,
    train_labels: &[u8],
    test: ArrayView2<'_, f32>,
    test_labels: &[u8],
    c: f64,
    max_iterations: usize,
) -> Result<ProbeOutcome> {
    SplitFeatures::standardised(train, train_labels, test, test_labels)?.score(c, max_iterations)
}
