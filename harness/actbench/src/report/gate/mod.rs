//! A gate's report in the forms that others read: pure functions of the report, one form a file.
//!
//! Every form tells the same verdicts. What was not measured is named in each of them, or the form says that it cannot.

mod annotations;
mod bencher;
mod benchmark_action;
mod junit;
mod markdown;
mod table;
mod words;

#[cfg(test)]
pub(crate) mod tests;

use std::fmt;

use clap::ValueEnum;

pub use self::annotations::annotations;
pub use self::bencher::bencher;
pub use self::benchmark_action::benchmark_action;
pub use self::junit::junit;
pub use self::markdown::markdown;
pub use self::table::render;
pub use self::words::{figures, headline, resolution};
use crate::error::{Error, Result};
use crate::gate::GateReport;

/// A form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// The whole report, for programs
    Json,
    /// Tables for a pull request or a job's summary
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

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.to_possible_value().map(|value| value.get_name().to_owned());
        f.pad(&name.unwrap_or_default())
    }
}

/// `report` in a form.
///
/// # Errors
/// None that a caller could cause: what is in a report can be written in each form.
pub fn export(form: Form, report: &GateReport) -> Result<String> {
    match form {
        Form::Json => pretty(report),
        Form::Markdown => Ok(markdown(report)),
        Form::Github => Ok(annotations(report)),
        Form::Junit => junit(report),
        Form::Bencher => pretty(&bencher(report)),
        Form::BenchmarkAction => pretty(&benchmark_action(report)),
    }
}

fn pretty(value: &impl serde::Serialize) -> Result<String> {
    let text =
        serde_json::to_string_pretty(value).map_err(|error| Error::usage(format!("the report as JSON: {error}")))?;
    Ok(text + "\n")
}
