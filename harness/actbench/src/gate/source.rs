//! Where the gate's observations come from.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::metric::Metric;
use crate::error::Result;

/// One of the two programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// What there was before.
    Base,
    /// What is to be judged.
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

/// What one process measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Observation {
    /// Numbers, in the units of [`Metric::unit`].
    pub values: BTreeMap<Metric, f64>,
    /// The digest of the features, where there are any ([`Metric::FeatureDigest`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

impl Observation {
    /// Whether it holds `metric`, as a finite number or a digest.
    pub fn has(&self, metric: Metric) -> bool {
        match metric {
            Metric::FeatureDigest => self.digest.is_some(),
            _ => self.values.get(&metric).is_some_and(|value| value.is_finite()),
        }
    }
}

/// What came of one process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Observed {
    /// It came through.
    Measured(Observation),
    /// It did not, and why: killed, timed out, no result. The case is then broken, never passed.
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
    /// What ends the whole gate: the user interrupts, the program cannot be started at all. A run that fails is
    /// [`Observed::Failed`].
    fn observe(&mut self, case: &str, side: Side) -> Result<Observed>;
}
