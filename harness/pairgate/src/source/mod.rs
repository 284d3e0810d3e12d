//! Where the observations of a gate come from: the trait [`Source`], and sources that run processes.
//!
//! [`commands`] measures any two commands, [`criterion`] criterion benchmarks with [`instructions`] as a cross-check;
//! [`revisions`] builds the executables of two commits.

pub mod commands;
pub mod criterion;
pub mod instructions;
pub mod revisions;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::metric::Metric;

pub use commands::{CommandCase, CommandOptions, CommandSource};

/// One of the two programs that are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The program before the change.
    Base,
    /// The program to judge.
    Head,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Side::Base => "base",
            Side::Head => "head",
        })
    }
}

/// The measurements of one process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Observation {
    /// Numbers, in the units of [`Metric::unit`].
    pub values: BTreeMap<Metric, f64>,
    /// The digest of the result, where there is one ([`Metric::ResultDigest`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The change of [`Metric::Auroc`] by one swapped pair: one in so many pairs of a positive and a negative test row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auroc_step: Option<f64>,
}

impl Observation {
    /// Whether `metric` was measured, as a finite number or a digest.
    pub fn has(&self, metric: Metric) -> bool {
        match metric {
            Metric::ResultDigest => self.digest.is_some(),
            _ => self.values.get(&metric).is_some_and(|value| value.is_finite()),
        }
    }
}

/// The result of one process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ObservationResult {
    /// It succeeded.
    Measured(Observation),
    /// It failed, and why: killed, timed out, no result. The case is then broken, never passed.
    Failed(String),
}

/// Where observations come from: one process, one observation.
pub trait Source {
    /// The cases, by names that are unique, in the order in which they are shown.
    fn cases(&self) -> Vec<String>;

    /// The metrics that every observation of `case` must have; one that is missing breaks the case.
    fn metrics(&self, case: &str) -> Vec<Metric>;

    /// Runs `case` once on `side`.
    ///
    /// # Errors
    /// An error that ends the whole gate: the user interrupts, or the program cannot be started at all. A run that fails is
    /// [`ObservationResult::Failed`].
    fn observe(&mut self, case: &str, side: Side) -> Result<ObservationResult>;
}
