//! What a gate came to, as a table for people.

use std::fmt::Write;

use comfy_table::{CellAlignment, ContentArrangement, Table};

use crate::gate::report::Identity;
use crate::gate::{CaseReport, GateReport, Metric, MetricReport, Outcome, Rule, Verdict};
use crate::report::format::fine_seconds;
use crate::report::table_style::table_style;

const HEADER: [&str; 8] = ["case", "metric", "base", "head", "head / base", "pairs", "p", "verdict"];

/// The whole text: what was compared, a line a case and metric, what is worth a sentence, and the outcome.
pub fn render(report: &GateReport) -> String {
    let mut text = format!("base {}\nhead {}\n\n", identity(&report.base), identity(&report.head));
    let mut table = Table::new();
    table.load_style(table_style()).set_content_arrangement(ContentArrangement::Disabled).set_header(HEADER);
    for case in &report.cases {
        for (index, metric) in case.metrics.iter().enumerate() {
            let name = if index == 0 { case.name.clone() } else { String::new() };
            table.add_row([vec![name], line(metric)].concat());
        }
    }
    for column in table.column_iter_mut().skip(2).take(5) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let _ = writeln!(text, "{}\n", table.trim_fmt());
    for note in report.cases.iter().flat_map(notes) {
        let _ = writeln!(text, "{note}");
    }
    let _ = writeln!(text, "{}", footing(report));
    let _ = writeln!(text, "{}", outcome(report));
    text
}

fn identity(identity: &Identity) -> String {
    let revision = identity.revision.as_ref().map_or_else(String::new, |revision| format!("{revision}, "));
    format!("{} ({revision}build {})", identity.path.display(), identity.build)
}

fn line(metric: &MetricReport) -> Vec<String> {
    let dash = || "-".to_owned();
    vec![
        metric.metric.to_string(),
        metric.base_median.map_or_else(dash, |value| figure(metric.metric, value)),
        metric.head_median.map_or_else(dash, |value| figure(metric.metric, value)),
        ratio(metric).unwrap_or_else(dash),
        metric.n_pairs.to_string(),
        metric.p.map_or_else(dash, chance),
        metric.verdict.to_string(),
    ]
}

/// `1.0513 (1.0421 to 1.0604)`; none where a ratio says nothing.
pub fn ratio(metric: &MetricReport) -> Option<String> {
    if matches!(metric.metric.rule(), Rule::Quality | Rule::Identity) {
        return None;
    }
    let estimate = metric.estimate?;
    Some(match metric.low.zip(metric.high) {
        Some((low, high)) => format!("{estimate:.4} ({low:.4} to {high:.4})"),
        None => format!("{estimate:.4}"),
    })
}

/// A median with its unit.
pub fn figure(metric: Metric, value: f64) -> String {
    match metric.rule() {
        Rule::Time => format!("{} {}", fine_seconds(Some(value)), metric.unit()),
        Rule::Memory => format!("{value:.2} {}", metric.unit()),
        Rule::Count => format!("{value:.0}"),
        Rule::Quality | Rule::Identity => format!("{value:.6}"),
    }
}

/// A chance, as small as is worth telling.
pub fn chance(p: f64) -> String {
    if p < 0.0001 { "< 0.0001".to_owned() } else { format!("{p:.4}") }
}

/// What a line of the table has no room for.
fn notes(case: &CaseReport) -> Vec<String> {
    let broken = case.reason.iter().map(|reason| format!("{}: broken: {reason}", case.name));
    let of_metrics = case.metrics.iter().filter_map(|metric| {
        let note = metric.note.as_ref().filter(|_| case.reason.is_none())?;
        Some(format!("{}, {}: {note}", case.name, metric.metric))
    });
    broken.chain(of_metrics).collect()
}

fn footing(report: &GateReport) -> String {
    let design = &report.design;
    let confidence = report.cases.iter().flat_map(|case| &case.metrics).find_map(|metric| metric.confidence);
    let intervals = confidence.map_or_else(String::new, |share| format!("{:.0} % intervals; ", 100.0 * share));
    let seen = report.resolution.as_ref().map_or_else(
        || "what this machine resolves is not known: run actbench selftest".to_owned(),
        |resolution| resolution.sentence(),
    );
    format!(
        "{intervals}up to {:.1} % slower is no regression, {:.0} % slower must not pass, false alarms at most {:.0} %; seed {}\n{seen}",
        100.0 * design.delta,
        100.0 * design.effect,
        100.0 * design.alpha,
        design.seed
    )
}

/// `regressed: train-lazy (wall, cpu)`.
fn outcome(report: &GateReport) -> String {
    let verdict = match report.outcome {
        Outcome::Pass => return format!("pass: {} cases, none shown to be worse", report.cases.len()),
        Outcome::Broken if report.cases.is_empty() => return "broken: nothing was measured".to_owned(),
        Outcome::Broken => Verdict::Broken,
        Outcome::Regressed => Verdict::Regressed,
        Outcome::Inconclusive => Verdict::Inconclusive,
    };
    let cases = report.cases.iter().filter(|case| case.verdict == verdict).map(|case| {
        let metrics = case.metrics.iter().filter(|metric| metric.verdict == verdict).map(|metric| metric.metric.name());
        format!("{} ({})", case.name, metrics.collect::<Vec<_>>().join(", "))
    });
    format!("{}: {}", report.outcome, cases.collect::<Vec<_>>().join("; "))
}
