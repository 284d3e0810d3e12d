//! The report as Markdown.

use serde::Serialize;

use super::Document;
use super::render::render;
use crate::error::Result;
use crate::report::chart::Chart;

const TEMPLATE: &str = include_str!("templates/report.md");

/// The values of the template.
#[derive(Serialize)]
struct MarkdownPage<'a> {
    document: &'a Document,
    charts: &'a [Chart],
}

/// `REPORT.md`: every section, with the charts as files in `charts/`.
///
/// # Errors
/// A fault of actbench: the template is built in.
pub fn markdown(document: &Document, charts: &[Chart]) -> Result<String> {
    render("report.md", TEMPLATE, MarkdownPage { document, charts })
}
