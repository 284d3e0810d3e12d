//! Merges the directories of one matrix: shards that ran separately, on one machine or several.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::directory::{MatrixDirectory, MatrixManifest, result_path};
use super::file::{CellFlags, RunMatrix};
use crate::atomic_file::write_whole;
use crate::error::{Error, Result};
use crate::results::{ResultFile, SCHEMA};
use crate::shard::Shard;

/// The outcome of a merge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MergeSummary {
    /// Number of cells in the merged directory.
    pub cells: usize,
    /// Names of the cells that no directory has.
    pub missing: Vec<String>,
    /// Differences between the machines or builds, if mixing was allowed.
    pub mixed: Vec<String>,
}

/// Merges `directories` into the new directory `out`, which `actbench matrix --resume` can complete.
///
/// # Errors
/// Directories of different matrices, a cell that was measured twice, results of different machines or builds unless
/// `allow_mixed`, or a directory that cannot be read or written.
pub fn merge(directories: &[PathBuf], out: &Path, allow_mixed: bool) -> Result<MergeSummary> {
    let [first, others @ ..] = directories else { return Err(Error::usage("name the directories to merge")) };
    let manifest = MatrixManifest::read(first)?;
    for other in others {
        if let Some(difference) = manifest.difference(&MatrixManifest::read(other)?) {
            let what = format!("belongs to a different matrix than {}: {difference}", first.display());
            return Err(Error::file(other, what));
        }
    }
    let mut found: BTreeMap<&str, (PathBuf, Vec<u8>)> = BTreeMap::new();
    let mut kept: Option<(PathBuf, ResultFile)> = None;
    let mut mixed = Vec::new();
    let cells = |directory| manifest.cells.iter().map(move |cell| (directory, cell));
    for (directory, cell) in directories.iter().flat_map(cells) {
        let Some((path, bytes, results)) = read(directory, cell)? else { continue };
        if let Some((earlier, same)) = found.get(cell.name.as_str()) {
            if *same == bytes {
                continue;
            }
            let what =
                format!("the same cell was also measured in {}; omit one of the two directories", earlier.display());
            return Err(Error::file(&path, what));
        }
        match &kept {
            None => kept = Some((path.clone(), results)),
            Some((reference_path, reference)) => {
                let differences = reference.environment.differences(&results.environment);
                if let (Some(difference), false) = (differences.first(), allow_mixed) {
                    return Err(Error::file(
                        &path,
                        format!(
                            "was measured on another machine or build than {}: {difference}; such times are not comparable; \
                             pass --allow-mixed to merge them nevertheless",
                            reference_path.display()
                        ),
                    ));
                }
                mixed.extend(differences);
            }
        }
        found.insert(&cell.name, (path, bytes));
    }
    let matrix = RunMatrix { seed: manifest.seed, cells: manifest.cells.clone() };
    let source = first.join("matrix.toml");
    let source = fs::read_to_string(&source).map_err(Error::io("read", &source))?;
    let merged = MatrixDirectory::open(out, &MatrixManifest::new(&matrix, Shard::WHOLE), &source, false)?;
    for cell in &manifest.cells {
        if let Some((_, bytes)) = found.get(cell.name.as_str()) {
            write_whole(&merged.result_path(cell), bytes)?;
        }
    }
    mixed.sort();
    mixed.dedup();
    let missing = manifest.cells.iter().filter(|cell| !found.contains_key(cell.name.as_str()));
    Ok(MergeSummary { cells: found.len(), missing: missing.map(|cell| cell.name.clone()).collect(), mixed })
}

/// The result file of `cell` in `directory`, if it exists.
fn read(directory: &Path, cell: &CellFlags) -> Result<Option<(PathBuf, Vec<u8>, ResultFile)>> {
    let path = result_path(directory, cell);
    if !path.exists() {
        return Ok(None);
    }
    let bytes = fs::read(&path).map_err(Error::io("read", &path))?;
    let results: ResultFile = serde_json::from_slice(&bytes).map_err(|error| {
        Error::file(&path, format!("is truncated or not a result file: {error}; remove it and rerun the cell"))
    })?;
    if results.schema != SCHEMA {
        return Err(Error::file(&path, format!("has the schema '{}', not {SCHEMA}", results.schema)));
    }
    Ok(Some((path, bytes, results)))
}
