//! The report of a gate as a table for terminals.

use std::fmt::Write;

use comfy_table::{CellAlignment, ContentArrangement, ContentLineStyle, LineStyle, Table, TableStyle};

use super::format::{counted, fine_seconds, p_value};
use super::phrases::same_program;
use crate::metric::{Metric, MetricRule};
use crate::report::{CaseReport, GateReport, MetricReport, ProgramIdentity, Verdict};

const HEADER: [&str; 8] = ["case", "metric", "base", "head", "head / base", "pairs", "p", "verdict"];

/// The whole text: both programs, a line for each case and metric, the notes, the design, and the outcome. It has no colors
/// and no line breaks that depend on the terminal.
pub fn render(report: &GateReport) -> String {
    render_with(report, |table| format!("{}\n", table.trim_fmt()))
}

/// [`render`] with the table as `table_text` prints it: in lines that end in a newline.
pub fn render_with(report: &GateReport, table_text: impl FnOnce(Table) -> String) -> String {
    let mut text = format!("base {}\nhead {}\n", identity(&report.base), identity(&report.head));
    if let Some(sentence) = same_program(report) {
        let _ = writeln!(text, "{sentence}");
    }
    text.push('\n');
    let mut table = Table::new();
    table.load_style(table_style()).set_content_arrangement(ContentArrangement::Disabled).set_header(HEADER);
    for case in &report.cases {
        for (index, metric) in case.metrics.iter().enumerate() {
            let name = if index == 0 { case.name.clone() } else { String::new() };
            table.add_row([vec![name], metric_cells(metric)].concat());
        }
    }
    for column in table.column_iter_mut().skip(2).take(5) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let _ = writeln!(text, "{}", table_text(table));
    for note in report.cases.iter().flat_map(notes) {
        let _ = writeln!(text, "{note}");
    }
    let _ = writeln!(text, "{}", design_lines(report));
    let _ = writeln!(text, "{}", outcome_line(report));
    text
}

/// A line under the header and no other.
pub fn table_style() -> TableStyle {
    TableStyle::new()
        .header_lines(ContentLineStyle::none().junction(' '))
        .header_separator(LineStyle::none().fill('─').junction('─'))
        .content_lines(ContentLineStyle::none().junction(' '))
}

fn identity(identity: &ProgramIdentity) -> String {
    let revision = identity.revision.as_ref().map_or_else(String::new, |revision| format!("{revision}, "));
    format!("{} ({revision}build {})", identity.path.display(), identity.build)
}

fn metric_cells(metric: &MetricReport) -> Vec<String> {
    let dash = || "-".to_owned();
    vec![
        metric.metric.to_string(),
        metric.base_median.map_or_else(dash, |value| value_with_unit(metric.metric, value)),
        metric.head_median.map_or_else(dash, |value| value_with_unit(metric.metric, value)),
        ratio(metric).unwrap_or_else(dash),
        metric.n_pairs.to_string(),
        metric.p.map_or_else(dash, p_value),
        metric.verdict.to_string(),
    ]
}

/// `1.0513 (1.0421 to 1.0604)`; none for results, whose ratio means nothing.
fn ratio(metric: &MetricReport) -> Option<String> {
    if matches!(metric.metric.rule(), MetricRule::Quality | MetricRule::Identity) {
        return None;
    }
    let estimate = metric.estimate?;
    Some(match metric.low.zip(metric.high) {
        Some((low, high)) => format!("{estimate:.4} ({low:.4} to {high:.4})"),
        None => format!("{estimate:.4}"),
    })
}

/// A median with its unit.
fn value_with_unit(metric: Metric, value: f64) -> String {
    match metric.rule() {
        MetricRule::Time => format!("{} {}", fine_seconds(Some(value)), metric.unit()),
        MetricRule::Memory => format!("{value:.2} {}", metric.unit()),
        MetricRule::Count => format!("{value:.0}"),
        MetricRule::Quality | MetricRule::Identity => format!("{value:.6}"),
    }
}

/// The reasons and remarks, a line each.
fn notes(case: &CaseReport) -> Vec<String> {
    let broken = case.reason.iter().map(|reason| format!("{}: broken: {reason}", case.name));
    let metric_notes = case.metrics.iter().filter_map(|metric| {
        let note = metric.note.as_ref().filter(|_| case.reason.is_none())?;
        Some(format!("{}, {}: {note}", case.name, metric.metric))
    });
    broken.chain(metric_notes).collect()
}

fn design_lines(report: &GateReport) -> String {
    let design = &report.design;
    let confidence = report.cases.iter().flat_map(|case| &case.metrics).find_map(|metric| metric.confidence);
    let intervals =
        confidence.map_or_else(String::new, |confidence| format!("{:.0} % intervals; ", 100.0 * confidence));
    let resolution = report.resolution.as_ref().map_or_else(
        || "no self-test has run on this machine, so which slowdowns it resolves is not known".to_owned(),
        |resolution| resolution.sentence(),
    );
    format!(
        "{intervals}up to {:.1} % slower is not a regression, {:.0} % slower must not pass, false alarms at most {:.0} %; seed {}\n{resolution}",
        100.0 * design.delta,
        100.0 * design.effect,
        100.0 * design.alpha,
        design.seed
    )
}

/// `regressed: train-lazy (wall, cpu)`.
fn outcome_line(report: &GateReport) -> String {
    let verdict = match report.outcome {
        Verdict::Pass | Verdict::Improved => {
            return format!("pass: {}, none shown to be worse", counted(report.cases.len(), "case"));
        }
        Verdict::Broken if report.cases.is_empty() => return "broken: nothing was measured".to_owned(),
        verdict => verdict,
    };
    let cases = report.cases.iter().filter(|case| case.verdict == verdict).map(|case| {
        let metrics = case.metrics.iter().filter(|metric| metric.verdict == verdict).map(|metric| metric.metric.name());
        let metrics = metrics.collect::<Vec<_>>().join(", ");
        // A case without metrics has a reason instead.
        let why = if metrics.is_empty() { case.reason.as_deref().unwrap_or("nothing was measured") } else { &metrics };
        format!("{} ({why})", case.name)
    });
    format!("{}: {}", report.outcome, cases.collect::<Vec<_>>().join("; "))
}
