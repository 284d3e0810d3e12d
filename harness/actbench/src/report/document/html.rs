//! The report as one self-contained HTML page.

use serde::Serialize;

use super::Document;
use super::render::render;
use crate::error::Result;
use crate::report::chart::{Chart, THEME};

const TEMPLATE: &str = include_str!("templates/report.html");
const STYLE: &str = include_str!("templates/report.css");
const SCRIPT: &str = include_str!("templates/report.js");

/// The values of the template.
#[derive(Serialize)]
struct HtmlPage<'a> {
    document: &'a Document,
    charts: Vec<PageChart<'a>>,
    style: &'static str,
    theme: &'static str,
    script: &'static str,
}

/// A chart of the page.
#[derive(Serialize)]
struct PageChart<'a> {
    #[serde(flatten)]
    chart: &'a Chart,
    /// Its SVG without a style sheet: the page has one for all charts.
    drawing: String,
}

/// `report.html`: the sections of the Markdown, with sortable tables and embedded charts.
///
/// # Errors
/// A fault of actbench: the template is built in.
pub fn html(document: &Document, charts: &[Chart]) -> Result<String> {
    let style_of_file = format!("<style>{THEME}</style>");
    let charts = charts.iter().map(|chart| PageChart { chart, drawing: chart.svg.replace(&style_of_file, "") });
    let page = HtmlPage { document, charts: charts.collect(), style: STYLE, theme: THEME, script: SCRIPT };
    render("report.html", TEMPLATE, page)
}
