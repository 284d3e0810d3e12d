//! The result file: the settings of a run, its environment, every observation, and their summary.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::atomic_file::write_whole;
use crate::case::{Method, RunConfig, Task};
use crate::error::{Error, Result};
use crate::measure::machine_record::MachineRecord;
use crate::own_output::{OutputFormat, check_own_output};

pub mod ablation;
pub mod adaptive;
pub mod choice;
pub mod identity;
pub mod interval;
pub mod named;
pub mod row;
pub mod summary;
#[cfg(test)]
mod tests;

use adaptive::RunEnd;
use identity::RunIdentity;
pub use named::NamedResults;
pub use row::{Row, Status};
use summary::TaskSummary;

/// Name and version of the schema; the version changes when a key changes its meaning.
pub const SCHEMA: &str = "actbench/1";

/// A result file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ResultFile {
    /// [`SCHEMA`].
    pub schema: String,
    /// The settings of the run.
    pub config: RunConfig,
    /// The machine and the build.
    pub environment: MachineRecord,
    /// Every measured observation, in the order of the run.
    pub rows: Vec<Row>,
    /// The summary of each task.
    pub summary: Map<String, Value>,
    /// Why the run ended; none while it lasts and after an interruption.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<RunEnd>,
    /// Digests of the data and the model; none in files that are older than this field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<RunIdentity>,
    /// What the run said of its data and model, such as the number of rows whose turns were joined.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub input_warnings: Vec<String>,
}

impl ResultFile {
    /// A file without observations.
    pub fn new(config: RunConfig, environment: MachineRecord) -> Self {
        ResultFile {
            schema: SCHEMA.to_owned(),
            config,
            identity: None,
            input_warnings: Vec::new(),
            environment,
            rows: Vec::new(),
            summary: Map::new(),
            end: None,
        }
    }

    /// Adds an observation and updates the summary.
    pub fn push(&mut self, row: Row) {
        self.rows.push(row);
        self.summary = self
            .config
            .tasks
            .iter()
            .filter_map(|task| Some((task.to_string(), serde_json::to_value(TaskSummary::of(*task, &self.rows)).ok()?)))
            .collect();
    }

    /// The same results with the name `lazy-disk` for cases that ran as `lazy` with the disk cache (`--lazy-cache-disk`), as
    /// tables and reports show them. The file keeps the names that were asked for.
    #[must_use]
    pub fn with_shown_methods(&self) -> Self {
        let mut shown = self.clone();
        let config = &self.config;
        let name = |method: &mut Method| {
            if config.caches_on_disk(*method) {
                *method = Method::LazyDisk;
            }
        };
        shown.config.methods.iter_mut().for_each(name);
        shown.rows.iter_mut().for_each(|row| name(&mut row.method));
        shown.config.lazy_cache_disk = false;
        shown
    }

    /// The summary of `task`.
    pub fn task_summary(&self, task: Task) -> TaskSummary {
        TaskSummary::of(task, &self.rows)
    }

    /// Writes the file atomically.
    ///
    /// # Errors
    /// The directory is not writable.
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut text = serde_json::to_vec_pretty(self)
            .map_err(|error| Error::internal(format!("the results cannot be written as JSON: {error}")))?;
        text.push(b'\n');
        write_whole(path, &text)
    }
}

/// Checks that a result file can be written to `path`, before hours are spent on measurements.
///
/// # Errors
/// The path is a directory, its directory does not exist or is not writable, or it is a file of other content.
pub fn check_output(path: &Path) -> Result<()> {
    check_own_output(path, "--output", &OutputFormat::RESULTS)
}
