//! A report on any number of result files: built once, rendered as Markdown, as one HTML page and as CSV.
//!
//! [`Document`] contains every section as tables and sentences; the templates only lay them out. So no figure is computed
//! twice, and every format has all of them. Charts are drawn from the same cells.

mod crossing;
mod csv;
mod failures;
mod html;
mod markdown;
mod observations;
mod origin;
mod render;
mod summary;
mod tables;

#[cfg(test)]
mod tests;

use serde::Serialize;

pub use self::crossing::{crossover_table, evidence_table, recommendation_table, recommendation_text, text_table};
pub use self::csv::{rows_csv, summary_csv};
pub use self::failures::failures_table;
pub use self::html::html;
pub use self::markdown::markdown;
pub use self::observations::WorkloadPart;
pub use self::origin::{CommandPart, EnvironmentPart};
pub use self::tables::{
    Table, TableCell, figure as figure_cell, number as number_cell, ratio_cell, text as text_cell, whole as whole_cell,
};
use crate::crossover::cells_of;
use crate::crossover::recommend::{SizeBounds, recommendations};
use crate::results::NamedResults;

/// The content of a report, in its order.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Document {
    /// One sentence per workload and lazy mode: the number of runs and their outcome.
    pub conclusions: Vec<String>,
    /// Each machine and build once, with its runs.
    pub environments: Vec<EnvironmentPart>,
    /// The command line of each run.
    pub commands: Vec<CommandPart>,
    /// The result files.
    pub files: Table,
    /// One line per run, task and lazy mode.
    pub summary: Table,
    /// The observations of each workload.
    pub workloads: Vec<WorkloadPart>,
    /// The failures and their reasons.
    pub failures: Table,
    /// The sizes from which lazy is better.
    pub crossover: Table,
    /// The recommended mode, by device and size.
    pub recommendation: Table,
    /// The rows on which the recommendation rests.
    pub evidence: Table,
    /// The files next to the report.
    pub attachments: Vec<Attachment>,
}

/// A file that belongs to the report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Attachment {
    /// Its path from the report's directory, or as the user gave it.
    pub path: String,
    /// Its description; templates read it under the name `what`.
    pub what: String,
}

impl Attachment {
    /// `path` with its description.
    pub fn new(path: impl Into<String>, what: impl Into<String>) -> Self {
        Attachment { path: path.into(), what: what.into() }
    }
}

impl Document {
    /// The report on `files`; `bounds` separate small, medium and large runs.
    pub fn new(files: &[NamedResults], bounds: SizeBounds, attachments: Vec<Attachment>) -> Self {
        let cells = cells_of(files);
        let found = recommendations(&cells, bounds);
        Document {
            conclusions: summary::conclusions(&cells),
            environments: origin::environments(files),
            commands: origin::commands(files),
            files: origin::result_files(files),
            summary: summary::table(&cells),
            workloads: observations::workloads(files, &cells),
            failures: failures_table(files),
            crossover: crossover_table(&cells),
            recommendation: recommendation_table(&found, bounds),
            evidence: evidence_table(&found),
            attachments,
        }
    }
}
