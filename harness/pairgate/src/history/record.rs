//! A run as histories and comparisons see it: names, figures and facts, handed over by the caller.

use std::fmt::Display;

use serde::Serialize;

use crate::metric::Metric;
use crate::stats::summary::median;

/// The caller's name of a case: ordered as reports show it.
pub trait CaseName: Clone + Ord + Display + Serialize {}

impl<C: Clone + Ord + Display + Serialize> CaseName for C {}

/// Digests of the facts that runs share if their figures are one series.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct SeriesKey {
    /// Digest of the settings that define the work.
    pub work: String,
    /// Digest of the machine's facts.
    pub machine: String,
    /// Digest of the build's settings.
    pub build: String,
}

/// A run.
#[derive(Clone, Debug, PartialEq)]
pub struct RunRecord<C> {
    /// The name of its file.
    pub name: String,
    /// A short label: the commit, or the date.
    pub label: String,
    /// When it began, RFC 3339 in UTC.
    pub date: String,
    /// Digests of the facts that comparable runs share.
    pub key: SeriesKey,
    /// The facts themselves.
    pub facts: RunFacts,
    /// Its figures, by case and metric. A case whose runs all failed has a figure without values.
    pub figures: Vec<RunFigure<C>>,
}

/// Facts by name, in the order in which they are shown: runs that differ in one are not comparable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunFacts {
    /// The settings that define the work.
    pub work: Vec<(String, String)>,
    /// How the result is computed from the data, such as solver and seed.
    pub probe: Vec<(String, String)>,
    /// Digest of the data; empty if it was not recorded.
    pub data: Vec<(String, String)>,
    /// Digest of the model; empty if it was not recorded.
    pub weights: Vec<(String, String)>,
    /// The machine.
    pub machine: Vec<(String, String)>,
    /// The build of the measured program.
    pub build: Vec<(String, String)>,
}

/// A metric of a case, measured several times.
#[derive(Clone, Debug, PartialEq)]
pub struct RunFigure<C> {
    /// The case.
    pub case: C,
    /// The metric.
    pub metric: Metric,
    /// An observation for each repetition that succeeded.
    pub values: Vec<f64>,
    /// The distinct digests, of a metric that is a digest.
    pub digests: Vec<String>,
    /// Repetitions that failed.
    pub failed: usize,
}

impl<C> RunFigure<C> {
    /// The median of the observations.
    pub fn median(&self) -> Option<f64> {
        median(&self.values).ok()
    }
}
