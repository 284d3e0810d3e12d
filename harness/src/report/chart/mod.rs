//! Charts of a report: SVG made with `plotters`, each with the table of what it shows.

use serde::Serialize;

use super::document::Table;

/// A chart.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Chart {
    /// Its file's name without the ending; also its place in the page.
    pub name: String,
    /// Its heading.
    pub title: String,
    /// What it shows, in a sentence; also what is read out in its place.
    pub description: String,
    /// The whole SVG file.
    pub svg: String,
    /// The same figures as a table.
    pub table: Table,
}
