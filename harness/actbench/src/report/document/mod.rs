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

use self::crossing::{concise_crossover, concise_evidence, not_measured};
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

/// What the two modes are, for readers who know neither.
const TERMS: &str = "Eager runs padded batches, copies the full activations of every requested layer to host memory, and pools \
                     them there. Lazy runs an optimized plan that computes and keeps only what the pooled features need; \
                     lazy-disk keeps the features in a file instead of in memory.";

/// The content of a report, in its order.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Document {
    /// What disturbed the measurements.
    pub warnings: Vec<String>,
    /// One sentence per workload and lazy mode: the number of runs and their outcome.
    pub conclusions: Vec<String>,
    /// What eager and lazy are.
    pub terms: &'static str,
    /// The settings that all runs share; none if there are none.
    pub shared: Option<String>,
    /// Each machine and build once, with its runs.
    pub environments: Vec<EnvironmentPart>,
    /// The command line of each run.
    pub commands: Vec<CommandPart>,
    /// The result files.
    pub files: Table,
    /// One line per run, task and lazy mode, with every column.
    pub summary: Table,
    /// The same without empty columns, without settings that all runs share, and without the blocks, which stand next to the
    /// confidence.
    pub shown_summary: Table,
    /// The observations of each workload.
    pub workloads: Vec<WorkloadPart>,
    /// The failures and their reasons.
    pub failures: Table,
    /// The sizes from which lazy is better, with every setting.
    pub crossover: Table,
    /// The same without the settings that all runs share.
    pub shown_crossover: Table,
    /// The recommended mode, by device and size.
    pub recommendation: Table,
    /// The sizes for which nothing can be recommended.
    pub not_measured: Option<String>,
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
        let shown_methods =
            |file: &NamedResults| NamedResults { results: file.results.with_shown_methods(), ..file.clone() };
        let files: &[NamedResults] = &files.iter().map(shown_methods).collect::<Vec<_>>();
        let cells = cells_of(files);
        let found = recommendations(&cells, bounds);
        let summary = summary::table(&cells);
        Document {
            warnings: origin::warnings_of(files),
            terms: TERMS,
            shared: cells.first().and_then(|cell| cell.setting.shared_label()),
            not_measured: not_measured(&found, bounds),
            shown_summary: summary.concise(&["pool", "dtype", "device"]).without_column("blocks"),
            conclusions: summary::conclusions(&cells),
            environments: origin::environments(files),
            commands: origin::commands(files),
            files: origin::result_files(files),
            summary,
            workloads: observations::workloads(files, &cells),
            failures: failures_table(files).concise(&[]),
            crossover: crossover_table(&cells),
            shown_crossover: concise_crossover(&cells),
            recommendation: recommendation_table(&found, bounds),
            evidence: concise_evidence(&found),
            attachments,
        }
    }
}
