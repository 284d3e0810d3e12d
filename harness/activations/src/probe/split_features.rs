//! The standardized features of one layer, on both sides of the split, and the scores of probes on them.

use ndarray::{Array2, ArrayView2};

use super::auroc::{auroc, count_classes};
use super::fit::{Probe, fit_path, fit_with};
use super::newton::NewtonSolver;
use super::problem::Problem;
use super::solver::Solver;
use super::standardize::{FeatureElement, Standardizer};
use crate::error::{Error, Result};

/// The features of one layer on both splits, standardized with the statistics of the training split, with their labels.
#[derive(Clone, Debug)]
pub struct SplitFeatures<'a> {
    train: Array2<f32>,
    train_labels: &'a [u8],
    test: Array2<f32>,
    test_labels: &'a [u8],
}

impl<'a> SplitFeatures<'a> {
    /// Standardizes `train` `[n_train, h]` and `test` `[n_test, h]`, which have one label, 0 or 1, per row.
    ///
    /// # Errors
    ///
    /// Errors of [`Standardizer::fit`] and [`Standardizer::apply`], and different numbers of labels and samples.
    pub fn standardized<E: FeatureElement>(
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
            // Before the fit: a split without one of the classes must not cost training time.
            count_classes(&format!("{name} labels"), labels)?;
        }
        let standardizer = Standardizer::fit(train.reborrow())?;
        Ok(Self {
            train: standardizer.apply("training features", train)?,
            train_labels,
            test: standardizer.apply("test features", test)?,
            test_labels,
        })
    }

    /// Trains one probe at `c` with [`NewtonSolver`] and scores it. See [`SplitFeatures::score_path`].
    ///
    /// # Errors
    ///
    /// `c` or `max_iterations` out of range, or an error of the solver.
    pub fn score(&self, c: f64, max_iterations: usize) -> Result<ProbeOutcome> {
        let problem = Problem::new(self.train.view(), self.train_labels, c)?;
        self.outcome(fit_with(&NewtonSolver, &problem, None, max_iterations)?)
    }

    /// Trains one probe per `C` on the training split, each in at most `max_iterations` iterations of `solver`, and
    /// scores it by the AUROC on the test split. The outcomes are in the order of `cs`.
    ///
    /// # Errors
    ///
    /// A `C` or `max_iterations` out of range, or an error of the solver.
    pub fn score_path(&self, solver: &dyn Solver, cs: &[f64], max_iterations: usize) -> Result<Vec<ProbeOutcome>> {
        let Some(&first) = cs.first() else { return Ok(Vec::new()) };
        let problem = Problem::new(self.train.view(), self.train_labels, first)?;
        fit_path(solver, &problem, cs, max_iterations)?.into_iter().map(|probe| self.outcome(probe)).collect()
    }

    fn outcome(&self, probe: Probe) -> Result<ProbeOutcome> {
        let scores = probe.decision_function(self.test.view())?;
        let auroc = auroc(&scores.to_vec(), self.test_labels)?;
        Ok(ProbeOutcome { auroc, n_train: self.train_labels.len(), n_test: self.test_labels.len(), probe })
    }
}

/// A trained probe with its score on the test split.
#[derive(Clone, Debug)]
pub struct ProbeOutcome {
    /// Area under the ROC curve on the test split, `0..=1`.
    pub auroc: f64,
    /// Training samples.
    pub n_train: usize,
    /// Test samples.
    pub n_test: usize,
    /// The probe; its weights apply to standardized features.
    pub probe: Probe,
}
