//! A report on any number of result files: built once, shown as Markdown, as one HTML page and as CSV.
//!
//! [`Document`] holds every section as tables and sentences; the templates beside this file only lay them out, so that no
//! figure is computed twice and none appears in one form alone. Charts are made from the same cells.

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
pub use self::observations::Workload;
pub use self::origin::{CommandPart, EnvironmentPart};
pub use self::tables::{
    Table, TableCell, figure as figure_cell, number as number_cell, ratio_cell, text as text_cell, whole as whole_cell,
};
use crate::crossover::recommend::{SizeBounds, recommendations};
use crate::crossover::{NamedResults, cells_of};

/// Everything that a report says, in the order in which it says it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Document {
    /// One sentence a workload and lazy mode: over how many runs, and what came out.
    pub conclusions: Vec<String>,
    /// Each machine and build once, with the runs made there.
    pub environments: Vec<EnvironmentPart>,
    /// The command line of each run.
    pub commands: Vec<CommandPart>,
    /// The result files.
    pub files: Table,
    /// A line a run, task and lazy mode.
    pub summary: Table,
    /// What was seen, by workload.
    pub workloads: Vec<Workload>,
    /// Every way in which a case failed.
    pub failures: Table,
    /// Where lazy begins to win.
    pub crossover: Table,
    /// The mode to take, by device and size.
    pub recommendation: Table,
    /// The rows behind it.
    pub evidence: Table,
    /// What lies beside the report.
    pub attachments: Vec<Attachment>,
}

/// A file that belongs to the report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Attachment {
    /// Its path from the report's folder, or as the user gave it.
    pub path: String,
    /// What it is.
    pub what: String,
}

impl Attachment {
    /// `path` with what it is.
    pub fn new(path: impl Into<String>, what: impl Into<String>) -> Self {
        Attachment { path: path.into(), what: what.into() }
    }
}

impl Document {
    /// The report on `files`, with `bounds` between small, medium and large runs.
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
