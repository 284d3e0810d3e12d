//! The result file: what was run, where, every observation, and what they come to.

use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::measure::environment::Environment;
use crate::workload::case::{RunConfig, Task};

pub mod ablation;
pub mod adaptive;
pub mod row;
pub mod summary;
#[cfg(test)]
pub(crate) mod tests;

use adaptive::RunEnd;
pub use row::{Row, Status};
use summary::TaskSummary;

/// The schema's name and version; raised when a name changes its meaning.
pub const SCHEMA: &str = "actbench/1";

/// How the name of a result file begins while it is being written.
const TEMPORARY_PREFIX: &str = ".actbench-results-";

/// The whole file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ResultFile {
    /// [`SCHEMA`].
    pub schema: String,
    /// What was run.
    pub config: RunConfig,
    /// Where.
    pub environment: Environment,
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
    pub fn new(config: RunConfig, environment: Environment) -> Self {
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

/// Writes a file under a temporary name in its folder, and gives it its name once it is on the disk.
///
/// # Errors
/// The folder cannot be written to; the file is then as it was.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let write = || -> std::io::Result<()> {
        let mut file = tempfile::Builder::new().prefix(".actbench-").tempfile_in(folder)?;
        file.write_all(bytes)?;
        // Readable by all, as other results are; temporary files are made for their owner alone.
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644))?;
        }
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        std::fs::File::open(folder)?.sync_all()
    };
    write().map_err(Error::io("write", path))
}

/// Whether a result file can be written to `path`, asked before hours are spent on what goes into it.
///
/// # Errors
/// The path is a folder, or its folder is not there or cannot be written to.
pub fn check_output(path: &Path) -> Result<()> {
    check_writable(path, "--output", "the result file")
}

/// The same of any file, `what`, that `flag` names.
///
/// # Errors
/// As [`check_output`].
pub fn check_writable(path: &Path, flag: &str, what: &str) -> Result<()> {
    if path.is_dir() {
        return Err(Error::file(path, format!("is a folder; {flag} names {what}")));
    }
    let folder = folder_of(path);
    match tempfile::Builder::new().prefix(TEMPORARY_PREFIX).tempfile_in(folder) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(Error::file(
            path,
            format!("cannot be written ({flag}): there is no folder {}; make it, or name another", folder.display()),
        )),
        // The text names the temporary file, which says nothing to anyone; the kind alone is what went wrong.
        Err(error) => {
            Err(Error::file(path, format!("cannot be written ({flag}): {}; name another place", error.kind())))
        }
    }
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}
