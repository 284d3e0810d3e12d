//! The report as Markdown.

use serde::Serialize;

use super::Document;
use super::render::render;
use crate::error::Result;
use crate::report::chart::Chart;

const TEMPLATE: &str = include_str!("templates/report.md");

/// What the template sees.
#[derive(Serialize)]
struct Page<'a> {
    document: &'a Document,
    charts: &'a [Chart],
}

/// `REPORT.md`: every section, with the charts as files in `charts/`.
///
/// # Errors
/// None that a caller could cause: the template is built in.
pub fn markdown(document: &Document, charts: &[Chart]) -> Result<String> {
    render("report.md", TEMPLATE, Page { document, charts })
}
