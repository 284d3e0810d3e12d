//! A history: a directory with one result file a run.

use std::fs;
use std::path::Path;

use super::figures::{TaskMethod, begun, label, run_record};
use crate::error::{Error, Result, from_pairgate};
use crate::measure::fingerprint::Fingerprint;
use crate::results::{ResultFile, SCHEMA};
use pairgate::history::directory::{AddedFile, add_file, json_files, name_order};
use pairgate::history::{FigureSeries, RunRecord, all_series};

/// Letters and digits of a date in milliseconds: `20240501T030000123Z`.
const DATE_LENGTH: usize = 19;

/// A run of a history.
#[derive(Clone, Debug, PartialEq)]
pub struct HistoryEntry {
    /// The file's name in the directory.
    pub name: String,
    /// Its contents.
    pub results: ResultFile,
}

impl HistoryEntry {
    /// A short label: the commit, or the date.
    pub fn label(&self) -> String {
        label(&self.results)
    }
}

/// The runs in `directory`, by the time when they began, then as they were added.
///
/// # Errors
/// The directory or a file in it cannot be read, or a `.json` file in it is not a result file.
pub fn read(directory: &Path) -> Result<Vec<HistoryEntry>> {
    let mut entries = Vec::new();
    for path in json_files(directory).map_err(from_pairgate)? {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let text = fs::read(&path).map_err(Error::io("read", &path))?;
        entries.push(HistoryEntry { name, results: parse(&path, &text)? });
    }
    entries.sort_by(|a, b| (begun(&a.results), name_order(&a.name)).cmp(&(begun(&b.results), name_order(&b.name))));
    Ok(entries)
}

/// Parses the text of a result file.
///
/// # Errors
/// It is not a result file; the message names `path`.
pub fn parse(path: &Path, text: &[u8]) -> Result<ResultFile> {
    let advice = "; name a file that `actbench run --output` wrote";
    let results: ResultFile = serde_json::from_slice(text)
        .map_err(|error| Error::file(path, format!("is not a result file: {error}{advice}")))?;
    if results.schema != SCHEMA {
        return Err(Error::file(path, format!("has the schema '{}' and not {SCHEMA}{advice}", results.schema)));
    }
    Ok(results)
}

/// Copies the result file `path` into `directory`, which is created if it does not exist.
///
/// # Errors
/// The file is not a result file or has no observation, or the directory cannot be written to.
pub fn add(directory: &Path, path: &Path) -> Result<AddedFile> {
    let text = fs::read(path).map_err(Error::io("read", path))?;
    let results = parse(path, &text)?;
    if results.rows.is_empty() {
        return Err(Error::file(path, "has no observation; repeat the run and add its result file"));
    }
    add_file(directory, &stem(&results), &text).map_err(from_pairgate)
}

/// The runs as pairgate sees them.
pub fn run_records(entries: &[HistoryEntry]) -> Vec<RunRecord<TaskMethod>> {
    entries.iter().map(|entry| run_record(&entry.name, &entry.results)).collect()
}

/// The series of the runs, with their change points.
///
/// # Errors
/// A figure that is not finite.
pub fn series(entries: &[HistoryEntry]) -> Result<Vec<FigureSeries<TaskMethod>>> {
    all_series(&run_records(entries)).map_err(from_pairgate)
}

/// The name of a run's file: date, commit and machine, so that runs sorted by name are sorted by date.
fn stem(results: &ResultFile) -> String {
    let environment = &results.environment;
    // Only letters and digits: a name from an edited file must not lead out of the directory.
    let alphanumeric = |text: &str, max_length: usize| -> String {
        text.chars().filter(char::is_ascii_alphanumeric).take(max_length).collect()
    };
    let dirty = if environment.dirty == Some(true) { "-changed" } else { "" };
    let commit = environment.commit.as_deref().map_or_else(|| "nocommit".to_owned(), |commit| alphanumeric(commit, 12));
    let machine = Fingerprint::of(environment).machine;
    format!("{}-{commit}{dirty}-{}", alphanumeric(&environment.date, DATE_LENGTH), alphanumeric(&machine, 8))
}
