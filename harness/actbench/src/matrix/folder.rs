//! The folder of a matrix: what it is to do, and the result file of each cell that is done.
//!
//! ```text
//! matrix.toml      the file it was made from
//! matrix.json      its cells as command lines, and the shard
//! cells/NAME.json  the result file of a cell that is done, in the schema of `actbench run`
//! ```
//!
//! A cell that runs has another name, and takes its own only when it is done: what a kill leaves is never taken for whole.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::file::{CellFlags, Matrix};
use super::order::Shard;
use crate::error::{Error, Result};
use crate::results::{ResultFile, write_whole};

/// The schema of `matrix.json`.
pub const SCHEMA: &str = "actbench-matrix/1";

const MANIFEST: &str = "matrix.json";
const SOURCE: &str = "matrix.toml";
const CELLS: &str = "cells";
const LOCK: &str = ".lock";
/// What a file is called, after its cell's name, while the cell runs.
const RUNNING: &str = "json.running";

/// What a folder is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`SCHEMA`].
    pub schema: String,
    /// Seed of the order.
    pub seed: u64,
    /// `I/N`.
    pub shard: String,
    /// All cells of the matrix, in the order of the file, those of other shards too.
    pub cells: Vec<CellFlags>,
}

impl Manifest {
    /// Of a shard of a matrix.
    pub fn new(matrix: &Matrix, shard: Shard) -> Self {
        let cells = matrix.cells.clone();
        Manifest { schema: SCHEMA.to_owned(), seed: matrix.seed, shard: shard.to_string(), cells }
    }

    /// Reads that of the folder `path`.
    ///
    /// # Errors
    /// There is none, or it is broken.
    pub fn read(path: &Path) -> Result<Self> {
        let file = path.join(MANIFEST);
        if !file.exists() {
            return Err(Error::file(path, format!("has no {MANIFEST}; name a folder that `actbench matrix` wrote to")));
        }
        let text = fs::read(&file).map_err(Error::io("read", &file))?;
        let manifest: Manifest = serde_json::from_slice(&text)
            .map_err(|error| Error::file(&file, format!("is no whole manifest: {error}; begin in a new folder")))?;
        match manifest.schema == SCHEMA {
            true => Ok(manifest),
            false => Err(Error::file(&file, format!("has the schema '{}', not {SCHEMA}", manifest.schema))),
        }
    }

    /// The first thing in which two manifests of one matrix differ, in words; the shard apart.
    pub fn difference(&self, other: &Manifest) -> Option<String> {
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

/// A folder that this process alone writes to.
#[derive(Debug)]
pub struct MatrixFolder {
    path: PathBuf,
    /// Held until the folder is let go; the system lets go of it however the process ends.
    _lock: File,
}

impl MatrixFolder {
    /// Makes the folder, or with `resume` goes on with the one that is there.
    ///
    /// # Errors
    /// A folder that holds something else or another matrix, or that another process works in.
    pub fn open(path: &Path, manifest: &Manifest, source: &str, resume: bool) -> Result<Self> {
        check(path, manifest, resume)?;
        let cells = path.join(CELLS);
        fs::create_dir_all(&cells).map_err(Error::io("create", &cells))?;
        let file = path.join(LOCK);
        let lock = File::create(&file).map_err(Error::io("create", &file))?;
        if lock.try_lock().is_err() {
            return Err(Error::file(path, "another process works in it; wait for its end, or name another folder"));
        }
        let folder = MatrixFolder { path: path.to_path_buf(), _lock: lock };
        folder.clean()?;
        let text = serde_json::to_string_pretty(manifest).map_err(|error| Error::usage(error.to_string()))? + "\n";
        write_whole(&path.join(SOURCE), source.as_bytes())?;
        // Last: a folder that has it has everything before it.
        write_whole(&path.join(MANIFEST), text.as_bytes())?;
        Ok(folder)
    }

    /// Removes what a killed process left half-done.
    fn clean(&self) -> Result<()> {
        let cells = self.path.join(CELLS);
        for folder in [&self.path, &cells] {
            for entry in fs::read_dir(folder).map_err(Error::io("read", folder))? {
                let path = entry.map_err(Error::io("read", folder))?.path();
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

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The result file of a cell that is done.
    pub fn done(&self, cell: &CellFlags) -> PathBuf {
        done(&self.path, cell)
    }

    /// Where the runner writes while the cell runs.
    pub fn running(&self, cell: &CellFlags) -> PathBuf {
        self.path.join(CELLS).join(format!("{}.{RUNNING}", cell.name))
    }

    /// Whether a cell is done.
    pub fn is_done(&self, cell: &CellFlags) -> bool {
        self.done(cell).exists()
    }

    /// Keeps the results of a cell.
    ///
    /// # Errors
    /// The folder cannot be written to.
    pub fn finish(&self, cell: &CellFlags, results: &ResultFile) -> Result<()> {
        results.write(&self.done(cell))?;
        self.discard(cell);
        Ok(())
    }

    /// Removes what an unfinished cell wrote.
    pub fn discard(&self, cell: &CellFlags) {
        // One that cannot be removed is removed, or told of, when the matrix is gone on with.
        let _ = fs::remove_file(self.running(cell));
    }
}

impl Drop for MatrixFolder {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.path.join(LOCK));
    }
}

/// The result file of a cell in the folder `path`.
pub fn done(path: &Path, cell: &CellFlags) -> PathBuf {
    path.join(CELLS).join(format!("{}.json", cell.name))
}

/// Whether `path` may be used for `manifest`.
fn check(path: &Path, manifest: &Manifest, resume: bool) -> Result<()> {
    if path.join(MANIFEST).exists() {
        if !resume {
            return Err(Error::file(
                path,
                "holds a matrix already; add --resume to go on with it, or name another folder",
            ));
        }
        let there = Manifest::read(path)?;
        let difference = there.difference(manifest).or_else(|| {
            (there.shard != manifest.shard).then(|| format!("shard {} and {}", there.shard, manifest.shard))
        });
        return match difference {
            Some(difference) => Err(Error::file(
                path,
                format!("was begun with another matrix: {difference}; name another folder for this one"),
            )),
            None => Ok(()),
        };
    }
    let holds_files = fs::read_dir(path).is_ok_and(|mut entries| {
        // What a process left that was killed before it wrote the manifest.
        entries.any(|entry| entry.is_ok_and(|entry| ![CELLS, SOURCE, LOCK].iter().any(|own| entry.file_name() == *own)))
    });
    match (path.is_file(), holds_files) {
        (true, _) => Err(Error::file(path, "is a file; --out names a folder")),
        (_, true) => Err(Error::file(path, "holds other files; name a folder that is empty or not there (--out)")),
        _ => Ok(()),
    }
}
