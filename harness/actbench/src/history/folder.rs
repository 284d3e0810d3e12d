//! A folder with one result file a run: only ever added to, so that it can be committed or kept on a branch of its own.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::measure::fingerprint::Fingerprint;
use crate::results::{ResultFile, SCHEMA};

/// The most runs of one commit at one time; far more than anybody has.
const MOST_OF_ONE_NAME: usize = 1000;

/// A run of a history.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The file's name in the folder.
    pub name: String,
    /// What it holds.
    pub results: ResultFile,
}

impl Entry {
    /// The commit in short, or when it ran where there is none.
    pub fn label(&self) -> String {
        let environment = &self.results.environment;
        match &environment.commit {
            Some(commit) => {
                let dirty = if environment.dirty == Some(true) { "+" } else { "" };
                format!("{}{dirty}", commit.chars().take(7).collect::<String>())
            }
            None => environment.date.chars().take(10).collect(),
        }
    }
}

/// What became of a file that was to be added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Added {
    /// It has this name now.
    As(PathBuf),
    /// The folder has it already, under this name.
    Already(PathBuf),
}

/// The runs in `folder`, by date, then by name.
///
/// # Errors
/// The folder or a file in it cannot be read, or a `.json` file in it is no result file.
pub fn read(folder: &Path) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for path in json_files(folder)? {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let text = fs::read(&path).map_err(Error::io("read", &path))?;
        entries.push(Entry { name, results: parse(&path, &text)? });
    }
    entries.sort_by(|a, b| (&a.results.environment.date, &a.name).cmp(&(&b.results.environment.date, &b.name)));
    Ok(entries)
}

/// A result file's text.
///
/// # Errors
/// It is none; the message names `path`.
pub fn parse(path: &Path, text: &[u8]) -> Result<ResultFile> {
    let advice = "; name a file that `actbench run --output` wrote";
    let results: ResultFile = serde_json::from_slice(text)
        .map_err(|error| Error::file(path, format!("is no result file: {error}{advice}")))?;
    match results.schema == SCHEMA {
        true => Ok(results),
        false => Err(Error::file(path, format!("has the schema '{}' and not {SCHEMA}{advice}", results.schema))),
    }
}

/// Copies the result file `path` into `folder`, which is made if it is not there. Files in it are never changed.
///
/// # Errors
/// The file is no result file or has no observation, or the folder cannot be written to.
pub fn add(folder: &Path, path: &Path) -> Result<Added> {
    let text = fs::read(path).map_err(Error::io("read", path))?;
    let results = parse(path, &text)?;
    if results.rows.is_empty() {
        return Err(Error::file(path, "holds no observation; run it again and add that"));
    }
    fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
    let stem = stem(&results);
    let mut file =
        tempfile::Builder::new().prefix(".actbench-").tempfile_in(folder).map_err(Error::io("write", folder))?;
    file.write_all(&text).and_then(|()| file.as_file().sync_all()).map_err(Error::io("write", folder))?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let readable = std::fs::Permissions::from_mode(0o644);
        file.as_file().set_permissions(readable).map_err(Error::io("write", folder))?;
    }
    for number in 1..MOST_OF_ONE_NAME {
        let suffix = if number == 1 { String::new() } else { format!("-{number}") };
        let target = folder.join(format!("{stem}{suffix}.json"));
        // Asked of the file system in one step, so that two programs that add at once do not overwrite each other.
        match file.persist_noclobber(&target) {
            Ok(_) => {
                let opened = fs::File::open(folder).and_then(|folder| folder.sync_all());
                opened.map_err(Error::io("write", folder))?;
                return Ok(Added::As(target));
            }
            Err(error) if error.error.kind() == std::io::ErrorKind::AlreadyExists => {
                if fs::read(&target).map_err(Error::io("read", &target))? == text {
                    return Ok(Added::Already(target));
                }
                file = error.file;
            }
            Err(error) => return Err(Error::io("write", &target)(error.error)),
        }
    }
    Err(Error::file(folder, format!("holds {MOST_OF_ONE_NAME} runs named {stem}; begin another folder")))
}

/// Date, commit and machine: sorted by name, runs are sorted by date.
fn stem(results: &ResultFile) -> String {
    let environment = &results.environment;
    // What an edited file holds must not lead out of the folder.
    let plain =
        |text: &str, most: usize| -> String { text.chars().filter(|c| c.is_ascii_alphanumeric()).take(most).collect() };
    let dirty = if environment.dirty == Some(true) { "-changed" } else { "" };
    let commit = environment.commit.as_deref().map_or_else(|| "nocommit".to_owned(), |commit| plain(commit, 12));
    let machine = Fingerprint::of(environment).machine;
    format!("{}-{commit}{dirty}-{}", plain(&environment.date, 16), plain(&machine, 8))
}

/// The `.json` files in `folder`, by name; a history has no folders below.
fn json_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(Error::io("read", folder))? {
        let path = entry.map_err(Error::io("read", folder))?.path();
        if path.is_file() && path.extension().is_some_and(|extension| extension == "json") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
