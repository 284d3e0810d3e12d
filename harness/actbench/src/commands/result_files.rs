//! Result files as arguments: files, and directories of them such as those of `actbench matrix`.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::{Error, Result};
use crate::results::NamedResults;
use crate::results::{ResultFile, SCHEMA};
use pairgate::stderr_line;

/// Reads the result files `paths`; of a directory, all result files in it and below, by name. A run that several of them contain
/// counts once, with a warning.
///
/// # Errors
/// A file that cannot be read or is not a result file, or a directory without result files.
pub fn read(paths: &[PathBuf]) -> Result<Vec<NamedResults>> {
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            let before = files.len();
            for path in json_files(path)? {
                let value = parse(&path)?;
                // A directory may have other JSON files, such as the state of a matrix.
                if value.get("schema").and_then(Value::as_str) == Some(SCHEMA) {
                    files.push(result_file(&path, value)?);
                }
            }
            if files.len() == before {
                return Err(Error::file(
                    path,
                    "contains no result files; name an output directory of `actbench matrix`",
                ));
            }
        } else {
            files.push(result_file(path, parse(path)?)?);
        }
    }
    let mut files = without_repeated(files);
    shorten(&mut files);
    Ok(files)
}

/// `files` without those that repeat the content of an earlier one, such as a copy: the same observations add no evidence.
fn without_repeated(files: Vec<NamedResults>) -> Vec<NamedResults> {
    let mut kept: Vec<NamedResults> = Vec::new();
    for file in files {
        match kept.iter().find(|earlier| earlier.results == file.results) {
            Some(earlier) if earlier.path == file.path => {
                stderr_line!("warning: {} is given twice; it counts once", file.path);
            }
            Some(earlier) => {
                stderr_line!("warning: {} is the same run as {}; it counts once", file.path, earlier.path);
            }
            None => kept.push(file),
        }
    }
    kept
}

/// Removes the directories with which all names begin: they distinguish nothing and make tables wide.
fn shorten(files: &mut [NamedResults]) {
    let n_directories = |name: &str| Path::new(name).parent().map(|parent| parent.components().count()).unwrap_or(0);
    let shared = |one: &str, other: &str| {
        let pairs = Path::new(one).components().zip(Path::new(other).components());
        pairs.take_while(|(one, other)| one == other).count()
    };
    let (Some(first), true) = (files.first().map(|file| file.name.clone()), files.len() > 1) else { return };
    let common = files.iter().map(|file| shared(&first, &file.name).min(n_directories(&file.name))).min().unwrap_or(0);
    for file in files {
        file.name = Path::new(&file.name).components().skip(common).collect::<PathBuf>().display().to_string();
    }
}

/// The `.json` files below `directory`, by path.
fn json_files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut directories = vec![directory.to_path_buf()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).map_err(Error::io("read", &directory))? {
            let path = entry.map_err(Error::io("read", &directory))?.path();
            // A link to a parent directory would loop forever.
            if path.is_dir() && !path.is_symlink() {
                directories.push(path);
            } else if path.is_file() && path.extension().is_some_and(|extension| extension == "json") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

fn parse(path: &Path) -> Result<Value> {
    let text = std::fs::read(path).map_err(Error::io("read", path))?;
    serde_json::from_slice(&text).map_err(|error| Error::file(path, format!("is not JSON: {error}")))
}

fn result_file(path: &Path, value: Value) -> Result<NamedResults> {
    let schema = value.get("schema").and_then(Value::as_str);
    if schema != Some(SCHEMA) {
        let found = schema.map_or_else(|| "has no schema".to_owned(), |schema| format!("has the schema '{schema}'"));
        return Err(Error::file(path, format!("{found}; name a result file of `actbench run --output` ({SCHEMA})")));
    }
    let results: ResultFile = serde_json::from_value(value)
        .map_err(|error| Error::file(path, format!("is truncated or not a result file: {error}; repeat the run")))?;
    let path = path.display().to_string();
    Ok(NamedResults { name: path.clone(), path, results })
}
