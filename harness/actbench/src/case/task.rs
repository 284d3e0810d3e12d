//! The benchmarked tasks.

use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// A benchmarked task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// One layer, one probe.
    Train,
    /// Many layers, a probe for each layer and each C.
    Sweep,
}

impl Task {
    /// The name of the task's metric in result files.
    pub fn metric_name(self) -> &'static str {
        match self {
            Task::Train => "auroc",
            Task::Sweep => "mean_auroc",
        }
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Task::Train => "train",
            Task::Sweep => "sweep",
        })
    }
}
