//! Result files as arguments: files, and folders of them as `actbench matrix` writes.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::results::NamedResults;
use crate::error::{Error, Result};
use crate::results::{ResultFile, SCHEMA};

/// Reads the result files `paths`; of a folder, every `.json` file in it and below that is a result file, by name.
///
/// # Errors
/// A file that cannot be read or is no result file, or a folder without any.
pub fn read(paths: &[PathBuf]) -> Result<Vec<NamedResults>> {
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            let before = files.len();
            for path in json_files(path)? {
                let value = parse(&path)?;
                // A folder may hold other JSON, such as the state of a matrix.
                if value.get("schema").and_then(Value::as_str) == Some(SCHEMA) {
                    files.push(result_file(&path, value)?);
                }
            }
            if files.len() == before {
                return Err(Error::file(path, "holds no result file; name the folder that `actbench matrix` wrote to"));
            }
        } else {
            files.push(result_file(path, parse(path)?)?);
        }
    }
    shorten(&mut files);
    Ok(files)
}

/// Leaves out the folders that the names of all files begin with: they tell nothing apart, and make tables wide.
fn shorten(files: &mut [NamedResults]) {
    let folders = |name: &str| Path::new(name).parent().map(|folder| folder.components().count()).unwrap_or(0);
    let shared = |one: &str, other: &str| {
        let pairs = Path::new(one).components().zip(Path::new(other).components());
        pairs.take_while(|(one, other)| one == other).count()
    };
    let (Some(first), true) = (files.first().map(|file| file.name.clone()), files.len() > 1) else { return };
    let common = files.iter().map(|file| shared(&first, &file.name).min(folders(&file.name))).min().unwrap_or(0);
    for file in files {
        file.name = Path::new(&file.name).components().skip(common).collect::<PathBuf>().display().to_string();
    }
}

/// The `.json` files below `folder`, by path.
fn json_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).map_err(Error::io("read", &folder))? {
            let path = entry.map_err(Error::io("read", &folder))?.path();
            // A link to a folder above would never end.
            if path.is_dir() && !path.is_symlink() {
                folders.push(path);
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
        let found = schema.map_or_else(|| "names no schema".to_owned(), |schema| format!("has the schema '{schema}'"));
        return Err(Error::file(path, format!("{found}; name a file that `actbench run --output` wrote ({SCHEMA})")));
    }
    let results: ResultFile = serde_json::from_value(value)
        .map_err(|error| Error::file(path, format!("is no whole result file: {error}; run it again")))?;
    let path = path.display().to_string();
    Ok(NamedResults { name: path.clone(), path, results })
}
