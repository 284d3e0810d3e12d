//! The short case of `actbench selftest`: the task train by lazy, with injected work or memory in head.

use std::path::PathBuf;
use std::time::Duration;

use super::runs::{ActbenchExecutable, ActbenchRuns};
use super::suite::{Suite, SuiteCase};
use crate::case::{Method, Task};
use pairgate::selftest::live::{HeadLoad, Testbed};
use pairgate::source::Source;
use pairgate::{Metric, Result};

/// The case's name.
const CASE: &str = "train-lazy";

/// Metrics that every run of the case must have.
const METRICS: [Metric; 6] =
    [Metric::Wall, Metric::Cpu, Metric::PeakRss, Metric::PeakHeap, Metric::Auroc, Metric::ResultDigest];

/// Runs the case with one executable on both sides.
pub struct InjectionTestbed {
    /// The executable.
    pub executable: PathBuf,
    /// Flags of `actbench run` for the case.
    pub arguments: Vec<String>,
    /// The longest that a run may take.
    pub timeout: Option<Duration>,
}

impl Testbed for InjectionTestbed {
    fn source(&self, load: HeadLoad) -> Result<Box<dyn Source>> {
        let case =
            SuiteCase { name: CASE.to_owned(), task: Task::Train, method: Method::Lazy, args: self.arguments.clone() };
        let side = |arguments: Vec<String>| ActbenchExecutable { path: self.executable.clone(), arguments };
        let suite = Suite { args: Vec::new(), cases: vec![case] };
        let head = side(injection_arguments(load));
        Ok(Box::new(ActbenchRuns::new(suite, side(Vec::new()), head, METRICS.to_vec(), self.timeout)?))
    }
}

/// The hidden flags of `actbench run` that add work or memory.
fn injection_arguments(load: HeadLoad) -> Vec<String> {
    match load {
        HeadLoad::Unchanged => Vec::new(),
        HeadLoad::WorkUnits(units) => vec!["--inject-work".to_owned(), units.to_string()],
        HeadLoad::MemoryBytes(bytes) => vec!["--inject-memory".to_owned(), bytes.to_string()],
    }
}
