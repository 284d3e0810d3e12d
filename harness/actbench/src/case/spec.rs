//! One case, as the parent sends it to a worker: as JSON.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Fault, Injection, Method, RunConfig, Task};

/// One case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CaseSpec {
    /// The task to run.
    pub task: Task,
    /// The extraction method.
    pub method: Method,
    /// The settings of the run.
    pub config: RunConfig,
    /// A directory for cache files that no other case uses.
    #[serde(rename = "cache_folder")]
    pub cache_directory: PathBuf,
    /// A failure to inject, for the tests of the runner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
    /// Injected work and memory, for trials of the regression gate.
    #[serde(default)]
    pub injection: Injection,
}
