//! The output files of actbench's commands, each of which replaces only files that the same command wrote before. The rule is
//! that of [`pairgate::own_output`].

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use pairgate::own_output::{self, Signs};
use serde::Deserialize;

use crate::error::{Result, from_pairgate};

/// The entry `format` in the metadata of a file of `actbench features`.
pub const FEATURES_FORMAT: &str = "actbench.features";

/// The longest header that safetensors allows.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// A kind of output file of actbench, and how a file of that kind is recognized.
#[derive(Clone, Copy, Debug)]
pub struct OutputFormat(own_output::OutputFormat);

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
    pub const FEATURES: Self = Self::new("a features file", Signs::File(has_features_metadata));
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
        OutputFormat(own_output::OutputFormat::new("actbench", description, signs))
    }
}

/// [`pairgate::own_output::check_own_output`] with the errors of the benchmark.
///
/// # Errors
/// A path that cannot be written, or an existing file of another format.
pub fn check_own_output(path: &Path, flag: &str, format: &OutputFormat) -> Result<()> {
    own_output::check_own_output(path, flag, &format.0).map_err(from_pairgate)
}

/// [`pairgate::own_output::refuse_dash`] with the errors of the benchmark, for outputs that are not checked otherwise.
///
/// # Errors
/// The path is `-`.
pub fn refuse_dash(path: &Path, flag: &str) -> Result<()> {
    own_output::refuse_dash(path, flag).map_err(from_pairgate)
}

/// [`pairgate::own_output::check_replaceable`] with the errors of the benchmark.
///
/// # Errors
/// An existing file of another format, or one that cannot be read.
pub fn check_replaceable(path: &Path, flag: &str, format: &OutputFormat) -> Result<()> {
    own_output::check_replaceable(path, flag, &format.0).map_err(from_pairgate)
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
