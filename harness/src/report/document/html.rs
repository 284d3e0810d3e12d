//! The report as one HTML page that needs nothing but itself.

use serde::Serialize;

use super::Document;
use super::render::render;
use crate::error::Result;
use crate::report::chart::Chart;

const TEMPLATE: &str = include_str!("templates/report.html");
const STYLE: &str = include_str!("templates/report.css");
const SCRIPT: &str = include_str!("templates/report.js");

/// What the template sees.
#[derive(Serialize)]
struct Page<'a> {
    document: &'a Document,
    charts: &'a [Chart],
    style: &'static str,
    script: &'static str,
}

/// `report.html`: the sections of the Markdown, tables that sort, charts in the page.
///
/// # Errors
/// None that a caller could cause: the template is built in.
pub fn html(document: &Document, charts: &[Chart]) -> Result<String> {
    render("report.html", TEMPLATE, Page { document, charts, style: STYLE, script: SCRIPT })
}
