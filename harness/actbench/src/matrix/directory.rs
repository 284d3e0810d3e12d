//! The directory of a matrix: its manifest, and the result file of each finished cell.
//!
//! ```text
//! matrix.toml      the source file
//! matrix.json      the cells as command lines, and the shard
//! cells/NAME.json  the result file of a finished cell, in the schema of `actbench run`
//! ```
//!
//! While a cell runs, its file has another name, and is renamed when the cell has finished: a file that a killed process left
//! is never taken for complete.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::file::{CellFlags, RunMatrix};
use crate::atomic_file::write_whole;
use crate::error::{Error, Result, from_pairgate};
use crate::results::ResultFile;
use crate::shard::Shard;
use pairgate::lock::OutputLock;

/// The schema of `matrix.json`.
pub const SCHEMA: &str = "actbench-matrix/1";

const MANIFEST: &str = "matrix.json";
const SOURCE: &str = "matrix.toml";
const CELLS: &str = "cells";
const LOCK: &str = ".lock";
/// Extension of the result file of a running cell.
const RUNNING: &str = "json.running";

/// The matrix and shard that a directory belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MatrixManifest {
    /// [`SCHEMA`].
    pub schema: String,
    /// Seed of the order of cells.
    pub seed: u64,
    /// `I/N`.
    pub shard: String,
    /// All cells of the matrix, including those of other shards, in the order of the file.
    pub cells: Vec<CellFlags>,
}

impl MatrixManifest {
    /// The manifest of a shard of a matrix.
    pub fn new(matrix: &RunMatrix, shard: Shard) -> Self {
        let cells = matrix.cells.clone();
        MatrixManifest { schema: SCHEMA.to_owned(), seed: matrix.seed, shard: shard.to_string(), cells }
    }

    /// Reads the manifest of the directory `path`.
    ///
    /// # Errors
    /// There is no manifest, or it is invalid.
    pub fn read(path: &Path) -> Result<Self> {
        let file = path.join(MANIFEST);
        if !file.exists() {
            return Err(Error::file(path, format!("has no {MANIFEST}; name a directory written by `actbench matrix`")));
        }
        let text = fs::read(&file).map_err(Error::io("read", &file))?;
        let manifest: MatrixManifest = serde_json::from_slice(&text).map_err(|error| {
            Error::file(&file, format!("is truncated or not a manifest: {error}; use a new directory"))
        })?;
        if manifest.schema != SCHEMA {
            return Err(Error::file(&file, format!("has the schema '{}', not {SCHEMA}", manifest.schema)));
        }
        Ok(manifest)
    }

    /// The first difference between two manifests, as text; shards are not compared.
    pub fn difference(&self, other: &MatrixManifest) -> Option<String> {
        if self.seed != other.seed {
            return Some(format!("seed {} and {}", self.seed, other.seed));
        }
        let pairs = self.cells.iter().zip(&other.cells);
        if let Some((mine, theirs)) = pairs.into_iter().find(|(mine, theirs)| mine != theirs) {
            return Some(format!("cell {} ({}) and {} ({})", mine.name, mine.text(), theirs.name, theirs.text()));
        }
        let (mine, theirs) = (self.cells.len(), other.cells.len());
        (mine != theirs).then(|| format!("{mine} cells and {theirs}"))
    }
}

/// A matrix directory, locked for this process.
#[derive(Debug)]
pub struct MatrixDirectory {
    path: PathBuf,
    /// The lock, held until the value is dropped; the system also releases it when the process is killed.
    _lock: OutputLock,
}

impl MatrixDirectory {
    /// Creates the directory, or opens an existing one if `resume` is set.
    ///
    /// # Errors
    /// A directory with other files or another matrix, or one that another process has locked.
    pub fn open(path: &Path, manifest: &MatrixManifest, source: &str, resume: bool) -> Result<Self> {
        check(path, manifest, resume)?;
        let cells = path.join(CELLS);
        fs::create_dir_all(&cells).map_err(Error::io("create", &cells))?;
        let lock = OutputLock::acquire(&path.join(LOCK)).map_err(from_pairgate)?.ok_or_else(|| {
            Error::file(path, "is locked by another process; wait until it has finished, or name another directory")
        })?;
        let directory = MatrixDirectory { path: path.to_path_buf(), _lock: lock };
        directory.remove_unfinished()?;
        let text = serde_json::to_string_pretty(manifest).map_err(|error| Error::file(path, error.to_string()))? + "\n";
        write_whole(&path.join(SOURCE), source.as_bytes())?;
        // The manifest is written last: if it exists, everything before it does.
        write_whole(&path.join(MANIFEST), text.as_bytes())?;
        Ok(directory)
    }

    /// Removes unfinished files of a killed process.
    fn remove_unfinished(&self) -> Result<()> {
        let cells = self.path.join(CELLS);
        for directory in [&self.path, &cells] {
            for entry in fs::read_dir(directory).map_err(Error::io("read", directory))? {
                let path = entry.map_err(Error::io("read", directory))?.path();
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                if name.ends_with(RUNNING)
                    || name.starts_with(".actbench-")
                    || name.starts_with(pairgate::atomic_file::TEMPORARY_PREFIX)
                {
                    fs::remove_file(&path).map_err(Error::io("remove", &path))?;
                } else if name.starts_with("actbench-run-") {
                    fs::remove_dir_all(&path).map_err(Error::io("remove", &path))?;
                }
            }
        }
        Ok(())
    }

    /// The path of the directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of the result file of a finished cell.
    pub fn result_path(&self, cell: &CellFlags) -> PathBuf {
        result_path(&self.path, cell)
    }

    /// The path of the result file while the cell runs.
    pub fn running_path(&self, cell: &CellFlags) -> PathBuf {
        self.path.join(CELLS).join(format!("{}.{RUNNING}", cell.name))
    }

    /// Whether a cell has finished.
    pub fn is_finished(&self, cell: &CellFlags) -> bool {
        self.result_path(cell).exists()
    }

    /// Stores the results of a finished cell.
    ///
    /// # Errors
    /// The directory cannot be written to.
    pub fn finish(&self, cell: &CellFlags, results: &ResultFile) -> Result<()> {
        results.write(&self.result_path(cell))?;
        self.discard(cell);
        Ok(())
    }

    /// Removes the file of an unfinished cell.
    pub fn discard(&self, cell: &CellFlags) {
        // A failure is ignored: resuming the matrix removes the file, or reports why it cannot.
        let _ = fs::remove_file(self.running_path(cell));
    }
}

/// The path of the result file of a finished cell in the directory `path`.
pub fn result_path(path: &Path, cell: &CellFlags) -> PathBuf {
    path.join(CELLS).join(format!("{}.json", cell.name))
}

/// Checks that `path` can be used for `manifest`.
fn check(path: &Path, manifest: &MatrixManifest, resume: bool) -> Result<()> {
    if path.join(MANIFEST).exists() {
        if !resume {
            return Err(Error::file(
                path,
                "has a matrix already; pass --resume to continue it, or name another directory",
            ));
        }
        let existing = MatrixManifest::read(path)?;
        let difference = existing.difference(manifest).or_else(|| {
            (existing.shard != manifest.shard).then(|| format!("shard {} and {}", existing.shard, manifest.shard))
        });
        return match difference {
            Some(difference) => Err(Error::file(
                path,
                format!("belongs to a different matrix: {difference}; name another directory for this one"),
            )),
            None => Ok(()),
        };
    }
    let has_files = fs::read_dir(path).is_ok_and(|entries| {
        // A process that was killed before it wrote the manifest may have left these.
        entries.flatten().any(|entry| {
            let name = entry.file_name();
            let is_temporary = name.to_string_lossy().starts_with(pairgate::atomic_file::TEMPORARY_PREFIX);
            !is_temporary && ![CELLS, SOURCE, LOCK].iter().any(|own| name == *own)
        })
    });
    match (path.is_file(), has_files) {
        (true, _) => Err(Error::file(path, "is a file; --out names a directory")),
        (_, true) => Err(Error::file(path, "has other files; name an empty or new directory (--out)")),
        _ => Ok(()),
    }
}
