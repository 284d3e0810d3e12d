//! The result file: what was run, where, every observation, and what they come to.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use crate::atomic_file::{check_writable, write_whole};
use crate::error::{Error, Result};
use crate::measure::machine_record::MachineRecord;
use crate::workload::case::{RunConfig, Task};

pub mod ablation;
pub mod adaptive;
pub mod named;
pub mod row;
pub mod summary;
#[cfg(test)]
pub(crate) mod tests;

use adaptive::RunEnd;
pub use named::NamedResults;
pub use row::{Row, Status};
use summary::TaskSummary;

/// The schema's name and version; raised when a name changes its meaning.
pub const SCHEMA: &str = "actbench/1";

/// The whole file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ResultFile {
    /// [`SCHEMA`].
    pub schema: String,
    /// What was run.
    pub config: RunConfig,
    /// Where.
    pub environment: MachineRecord,
    /// Every counted observation, in the order in which they were made.
    pub rows: Vec<Row>,
    /// What they come to, by task.
    pub summary: Map<String, Value>,
    /// Why the run took as many blocks as it did; none while it lasts, and where it was stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<RunEnd>,
}

impl ResultFile {
    /// No observations yet.
    pub fn new(config: RunConfig, environment: MachineRecord) -> Self {
        ResultFile { schema: SCHEMA.to_owned(), config, environment, rows: Vec::new(), summary: Map::new(), end: None }
    }

    /// Adds an observation and sums up anew.
    pub fn push(&mut self, row: Row) {
        self.rows.push(row);
        self.summary = self
            .config
            .tasks
            .iter()
            .filter_map(|task| Some((task.to_string(), serde_json::to_value(TaskSummary::of(*task, &self.rows)).ok()?)))
            .collect();
    }

    /// What the observations of `task` come to.
    pub fn task_summary(&self, task: Task) -> TaskSummary {
        TaskSummary::of(task, &self.rows)
    }

    /// Writes the file whole or not at all.
    ///
    /// # Errors
    /// The folder cannot be written to.
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut text = serde_json::to_vec_pretty(self).map_err(|error| Error::file(path, error.to_string()))?;
        text.push(b'\n');
        write_whole(path, &text)
    }
}

/// Whether a result file can be written to `path`, asked before hours are spent on what goes into it.
///
/// # Errors
/// The path is a folder, or its folder is not there or cannot be written to.
pub fn check_output(path: &Path) -> Result<()> {
    check_writable(path, "--output", "the result file")
}
