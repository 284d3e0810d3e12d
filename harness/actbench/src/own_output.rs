//! Output files that may be replaced: those that the same command wrote before. A file of other content is never overwritten.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::Path;

use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Value;

use crate::atomic_file::check_writable;
use crate::error::{Error, Result};

/// The entry `format` in the metadata of a file of `actbench features`.
pub const FEATURES_FORMAT: &str = "actbench.features";

/// Bytes of a text in which its signs are.
const TEXT_HEAD: u64 = 4096;
/// The longest header that safetensors allows.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// A kind of output file, and how a file of that kind is recognized.
#[derive(Clone, Copy, Debug)]
pub struct OutputFormat {
    /// For errors: "a result file".
    description: &'static str,
    signs: Signs,
}

/// The signs of an own file.
#[derive(Clone, Copy, Debug)]
enum Signs {
    /// A JSON object whose `schema` begins with one of these.
    Schema(&'static [&'static str]),
    /// A JSON object with these keys.
    Keys(&'static [&'static str]),
    /// A safetensors file with the metadata of features.
    Features,
    /// A text that begins with the first, and has the second in its first bytes.
    Text(&'static str, &'static str),
}

impl OutputFormat {
    /// The result file of `run`.
    pub const RESULTS: Self = Self::new("a result file", Signs::Schema(&["actbench/"]));
    /// The report of `gate`.
    pub const GATE: Self = Self::new("a report of a gate", Signs::Schema(&["actbench-gate/"]));
    /// The pairs of `gate`, next to its report.
    pub const GATE_JOURNAL: Self =
        Self::new("a journal of a gate", Signs::Text("{\"schema\":\"actbench-gate-journal/", ""));
    /// The report of `selftest`.
    pub const SELFTEST: Self =
        Self::new("a report of a self-test", Signs::Schema(&["actbench-selftest/", "actbench-replay/"]));
    /// The results of `check`.
    pub const CHECK: Self = Self::new("the results of a check", Signs::Keys(&["device", "passed", "findings"]));
    /// The trace of `profile`.
    pub const TRACE: Self = Self::new("a trace", Signs::Keys(&["traceEvents"]));
    /// The file of `features`.
    pub const FEATURES: Self = Self::new("a features file", Signs::Features);
    /// `REPORT.md` of `report`.
    pub const REPORT_MARKDOWN: Self = Self::new("a report", Signs::Text("# Lazy versus eager activations", ""));
    /// The page of `report`.
    pub const REPORT_HTML: Self =
        Self::new("a report", Signs::Text("<!doctype html>", "<title>Lazy versus eager activations</title>"));
    /// The observations of `report`.
    pub const OBSERVATIONS: Self = Self::new("a table of a report", Signs::Text("run,date,", ""));
    /// The summary of `report`.
    pub const SUMMARY: Self = Self::new("a table of a report", Signs::Text("run,task,", ""));
    /// The crossover sizes of `report`.
    pub const CROSSOVER: Self = Self::new("a table of a report", Signs::Text("task,model,", ""));
    /// A chart of `report` or `history plot`.
    pub const CHART: Self = Self::new("a chart", Signs::Text("<svg xmlns=", "role=\"img\" aria-label="));
    /// The page of `history plot`.
    pub const HISTORY: Self = Self::new("a page of a history", Signs::Text("# Figures over commits", ""));
    /// An export of a gate as Markdown.
    pub const EXPORT_MARKDOWN: Self = Self::new("an export of a gate", Signs::Text("## actbench gate", ""));
    /// An export as annotations.
    pub const EXPORT_ANNOTATIONS: Self = Self::new("an export of a gate", Signs::Text("::", ""));
    /// An export as JUnit XML.
    pub const EXPORT_JUNIT: Self =
        Self::new("an export of a gate", Signs::Text("<?xml", "<testsuites name=\"actbench"));
    /// An export for Bencher.
    pub const EXPORT_BENCHER: Self = Self::new("an export of a gate", Signs::Text("{", "\"value\":"));
    /// An export for github-action-benchmark.
    pub const EXPORT_ACTION: Self = Self::new("an export of a gate", Signs::Text("[", "\"extra\":"));

    const fn new(description: &'static str, signs: Signs) -> Self {
        OutputFormat { description, signs }
    }
}

/// Checks that `path`, which `flag` names, can be written, and that no file of other content would be replaced: before hours are
/// spent on its content. An empty file may be replaced, and devices and pipes are written into.
///
/// # Errors
/// As of [`check_writable`], or an existing file of another format.
pub fn check_own_output(path: &Path, flag: &str, format: &OutputFormat) -> Result<()> {
    check_writable(path, flag, format.description)?;
    check_replaceable(path, flag, format)
}

/// The second part of [`check_own_output`], for a file in a directory that `flag` names.
///
/// # Errors
/// An existing file of another format, or one that cannot be read.
pub fn check_replaceable(path: &Path, flag: &str, format: &OutputFormat) -> Result<()> {
    // A file that cannot be found is new, or its name is refused when it is written.
    let Ok(metadata) = fs::metadata(path) else { return Ok(()) };
    if !metadata.is_file() || metadata.len() == 0 {
        return Ok(());
    }
    let recognized =
        File::open(path).and_then(|file| recognizes(format.signs, file)).map_err(Error::io("read", path))?;
    if recognized {
        return Ok(());
    }
    Err(Error::file(
        path,
        format!(
            "exists and is not {} of actbench, so it is not replaced ({flag}); use another path, or remove the file first",
            format.description
        ),
    ))
}

fn recognizes(signs: Signs, file: File) -> io::Result<bool> {
    match signs {
        Signs::Schema(prefixes) => {
            let head: Option<SchemaOnly> = json(file)?;
            let schema = head.and_then(|head| Some(head.schema?.as_str()?.to_owned())).unwrap_or_default();
            Ok(prefixes.iter().any(|prefix| schema.starts_with(prefix)))
        }
        Signs::Keys(keys) => {
            let object: Option<BTreeMap<String, IgnoredAny>> = json(file)?;
            Ok(object.is_some_and(|object| keys.iter().all(|key| object.contains_key(*key))))
        }
        Signs::Features => has_features_metadata(file),
        Signs::Text(start, part) => {
            let mut head = Vec::new();
            file.take(TEXT_HEAD).read_to_end(&mut head)?;
            let head = String::from_utf8_lossy(&head);
            // An export of nothing has no sign, and nothing to lose.
            let is_empty = matches!(head.trim(), "" | "{}" | "[]");
            Ok(is_empty || head.trim_start().starts_with(start) && head.contains(part))
        }
    }
}

/// The one key that is read of a file with a schema.
#[derive(Deserialize)]
struct SchemaOnly {
    schema: Option<Value>,
}

/// The JSON document `file`; none if it is another one.
fn json<T: DeserializeOwned>(file: File) -> io::Result<Option<T>> {
    match serde_json::from_reader(BufReader::new(file)) {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_io() => Err(error.into()),
        Err(_) => Ok(None),
    }
}

/// Files older than the entry `format` are known by the other entries.
fn has_features_metadata(mut file: File) -> io::Result<bool> {
    #[derive(Deserialize)]
    struct Header {
        #[serde(rename = "__metadata__")]
        metadata: Option<BTreeMap<String, String>>,
    }
    let mut length = [0; 8];
    match file.read_exact(&mut length) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
        read => read?,
    }
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER_BYTES {
        return Ok(false);
    }
    let mut header = Vec::new();
    file.take(length).read_to_end(&mut header)?;
    let header: Option<Header> = serde_json::from_slice(&header).ok();
    let metadata = header.and_then(|header| header.metadata).unwrap_or_default();
    let is_old = || ["model", "pool", "dtype", "extract_s"].iter().all(|key| metadata.contains_key(*key));
    Ok(metadata.get("format").map_or_else(is_old, |format| format == FEATURES_FORMAT))
}

#[cfg(test)]
mod tests;
