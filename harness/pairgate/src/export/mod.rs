//! The report of a gate as text, and in the formats of other programs: pure functions of the report, one format a file.
//!
//! Every format has the same verdicts. A case that was not measured is named in every format that has a place for it.
//! `gate_name` is the caller's name of its gate, as titles show it: `actbench gate`.

mod annotations;
mod bencher;
mod benchmark_action;
mod junit;
mod markdown;
mod phrases;
mod table;

pub mod format;

#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;

pub use self::annotations::annotations;
pub use self::bencher::bencher;
pub use self::benchmark_action::benchmark_action;
pub use self::junit::junit;
pub use self::markdown::markdown;
pub use self::phrases::{headline, metric_sentence, resolution_sentence};
pub use self::table::{render, render_with, table_style};
use crate::error::{Error, Result};
use crate::report::GateReport;

/// A format of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum ExportFormat {
    /// The whole report as JSON
    Json,
    /// Tables for a pull request or a job summary
    Markdown,
    /// Annotations of GitHub Actions, a line each
    Github,
    /// JUnit XML, a test a metric
    Junit,
    /// Bencher Metric Format
    Bencher,
    /// github-action-benchmark, customSmallerIsBetter
    BenchmarkAction,
}

impl ExportFormat {
    /// All formats.
    pub const ALL: [ExportFormat; 6] = [
        ExportFormat::Json,
        ExportFormat::Markdown,
        ExportFormat::Github,
        ExportFormat::Junit,
        ExportFormat::Bencher,
        ExportFormat::BenchmarkAction,
    ];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            ExportFormat::Json => "json",
            ExportFormat::Markdown => "markdown",
            ExportFormat::Github => "github",
            ExportFormat::Junit => "junit",
            ExportFormat::Bencher => "bencher",
            ExportFormat::BenchmarkAction => "benchmark-action",
        }
    }
}

impl fmt::Display for ExportFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for ExportFormat {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        ExportFormat::ALL.into_iter().find(|format| format.name() == name).ok_or_else(|| {
            let names = ExportFormat::ALL.map(ExportFormat::name).join(", ");
            Error::usage(format!("no format '{name}'; the formats are {names}"))
        })
    }
}

/// `report` in a format.
///
/// # Errors
/// None that a caller could cause: every report can be written in every format.
pub fn export(format: ExportFormat, report: &GateReport, gate_name: &str) -> Result<String> {
    match format {
        ExportFormat::Json => pretty_json(report),
        ExportFormat::Markdown => Ok(markdown(report, gate_name)),
        ExportFormat::Github => Ok(annotations(report, gate_name)),
        ExportFormat::Junit => junit(report, gate_name),
        ExportFormat::Bencher => pretty_json(&bencher(report)),
        ExportFormat::BenchmarkAction => pretty_json(&benchmark_action(report)),
    }
}

fn pretty_json(value: &impl serde::Serialize) -> Result<String> {
    let text =
        serde_json::to_string_pretty(value).map_err(|error| Error::internal(format!("the report as JSON: {error}")))?;
    Ok(text + "\n")
}
