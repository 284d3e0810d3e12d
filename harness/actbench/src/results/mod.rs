//! The result file: the settings of a run, its environment, every observation, and their summary.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::case::{RunConfig, Task};
use crate::error::{Error, Result, from_pairgate};
use crate::measure::environment::Environment;

pub mod ablation;
pub mod adaptive;
pub mod interval;
pub mod row;
pub mod summary;
#[cfg(test)]
mod tests;

use adaptive::RunEnd;
pub use row::{Row, Status};
use summary::TaskSummary;

/// Name and version of the schema; the version changes when a key changes its meaning.
pub const SCHEMA: &str = "actbench/1";

/// Prefix of the temporary file that probes whether a directory is writable.
const TEMPORARY_PREFIX: &str = ".actbench-results-";

/// A result file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ResultFile {
    /// [`SCHEMA`].
    pub schema: String,
    /// The settings of the run.
    pub config: RunConfig,
    /// The machine and the build.
    pub environment: Environment,
    /// Every measured observation, in the order of the run.
    pub rows: Vec<Row>,
    /// The summary of each task.
    pub summary: Map<String, Value>,
    /// Why the run ended; none while it lasts and after an interruption.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<RunEnd>,
}

impl ResultFile {
    /// A file without observations.
    pub fn new(config: RunConfig, environment: Environment) -> Self {
        ResultFile { schema: SCHEMA.to_owned(), config, environment, rows: Vec::new(), summary: Map::new(), end: None }
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

/// Writes a file atomically: under a temporary name in its directory, then fsync, then rename.
///
/// # Errors
/// The directory is not writable; the old file is then unchanged.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    pairgate::atomic_file::write_atomically(path, bytes).map_err(from_pairgate)
}

/// Checks that a result file can be written to `path`, before hours are spent on measurements.
///
/// # Errors
/// The path is a directory, or its directory does not exist or is not writable.
pub fn check_output(path: &Path) -> Result<()> {
    check_writable(path, "--output", "the result file")
}

/// Checks that the file `description`, which `flag` names, can be written to `path`.
///
/// # Errors
/// As [`check_output`].
pub fn check_writable(path: &Path, flag: &str, description: &str) -> Result<()> {
    if path.is_dir() {
        return Err(Error::file(path, format!("is a directory; {flag} needs a file name for {description}")));
    }
    let directory = directory_of(path);
    match tempfile::Builder::new().prefix(TEMPORARY_PREFIX).tempfile_in(directory) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(Error::file(
            path,
            format!(
                "cannot be written ({flag}): the directory {} does not exist; create it or use another path",
                directory.display()
            ),
        )),
        // The full text names the temporary file, which the user does not know; the kind is enough.
        Err(error) => Err(Error::file(path, format!("cannot be written ({flag}): {}; use another path", error.kind()))),
    }
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => directory,
        _ => Path::new("."),
    }
}
