//! Folders of one matrix joined to one: shards that ran apart, on one machine or several.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::file::{CellFlags, Matrix};
use super::folder::{Manifest, MatrixFolder, done};
use super::order::Shard;
use crate::error::{Error, Result};
use crate::results::{ResultFile, SCHEMA, write_whole};

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merged {
    /// Cells that are in the new folder.
    pub cells: usize,
    /// Names of those that no folder has.
    pub missing: Vec<String>,
    /// In what the machines or builds differ, where that was allowed.
    pub mixed: Vec<String>,
}

/// Joins `folders` in the new folder `out`, which `actbench matrix --resume` can go on with.
///
/// # Errors
/// Folders of different matrices, a cell measured twice, results of different machines or builds unless `allow_mixed`,
/// or a folder that cannot be read or written.
pub fn merge(folders: &[PathBuf], out: &Path, allow_mixed: bool) -> Result<Merged> {
    let [first, others @ ..] = folders else { return Err(Error::usage("name the folders to join")) };
    let manifest = Manifest::read(first)?;
    for other in others {
        if let Some(difference) = manifest.difference(&Manifest::read(other)?) {
            let what = format!("is of another matrix than {}: {difference}", first.display());
            return Err(Error::file(other, what));
        }
    }
    let mut found: BTreeMap<&str, (PathBuf, Vec<u8>)> = BTreeMap::new();
    let mut kept: Option<(PathBuf, ResultFile)> = None;
    let mut mixed = Vec::new();
    for (folder, cell) in folders.iter().flat_map(|folder| manifest.cells.iter().map(move |cell| (folder, cell))) {
        let Some((path, bytes, results)) = read(folder, cell)? else { continue };
        if let Some((earlier, same)) = found.get(cell.name.as_str()) {
            if *same == bytes {
                continue;
            }
            let what = format!("the same cell was measured in {}; take one of the two folders away", earlier.display());
            return Err(Error::file(&path, what));
        }
        match &kept {
            None => kept = Some((path.clone(), results)),
            Some((of, reference)) => {
                let differences = reference.environment.differences(&results.environment);
                if let (Some(difference), false) = (differences.first(), allow_mixed) {
                    return Err(Error::file(
                        &path,
                        format!(
                            "was measured elsewhere than {}: {difference}; times of two machines or builds do not \
                             compare, so join them with --allow-mixed only to look at each",
                            of.display()
                        ),
                    ));
                }
                mixed.extend(differences);
            }
        }
        found.insert(&cell.name, (path, bytes));
    }
    let matrix = Matrix { seed: manifest.seed, cells: manifest.cells.clone() };
    let source = first.join("matrix.toml");
    let source = fs::read_to_string(&source).map_err(Error::io("read", &source))?;
    let folder = MatrixFolder::open(out, &Manifest::new(&matrix, Shard::WHOLE), &source, false)?;
    for cell in &manifest.cells {
        if let Some((_, bytes)) = found.get(cell.name.as_str()) {
            write_whole(&folder.done(cell), bytes)?;
        }
    }
    mixed.sort();
    mixed.dedup();
    let missing = manifest.cells.iter().filter(|cell| !found.contains_key(cell.name.as_str()));
    Ok(Merged { cells: found.len(), missing: missing.map(|cell| cell.name.clone()).collect(), mixed })
}

/// The result file of `cell` in `folder`, if it is there.
fn read(folder: &Path, cell: &CellFlags) -> Result<Option<(PathBuf, Vec<u8>, ResultFile)>> {
    let path = done(folder, cell);
    if !path.exists() {
        return Ok(None);
    }
    let bytes = fs::read(&path).map_err(Error::io("read", &path))?;
    let results: ResultFile = serde_json::from_slice(&bytes).map_err(|error| {
        Error::file(&path, format!("is no whole result file: {error}; remove it and run the cell again"))
    })?;
    match results.schema == SCHEMA {
        true => Ok(Some((path, bytes, results))),
        false => Err(Error::file(&path, format!("has the schema '{}', not {SCHEMA}", results.schema))),
    }
}
