//! Markdown for a comment on a pull request or a job summary: the verdict first, then all numbers.

use std::fmt::Write;

use super::format::{markdown_table, metric_format, metric_with_unit, p_value};
use super::phrases::{case_reason, headline, interval_ends, resolution_sentence, same_program};
use crate::design::GateMode;
use crate::report::{CaseReport, GateReport, MetricReport, ProgramIdentity, Verdict};

/// The report as Markdown.
pub fn markdown(report: &GateReport, gate_name: &str) -> String {
    let mut text = format!("## {gate_name}: {}\n\n", escaped(&headline(report)));
    let _ = writeln!(text, "Base {}, head {}.\n", program(&report.base), program(&report.head));
    if let Some(sentence) = same_program(report) {
        let _ = writeln!(text, "{sentence}\n");
    }
    let reasons: Vec<_> = report.cases.iter().filter_map(|case| Some((case, case_reason(case)?))).collect();
    for (case, reason) in &reasons {
        let _ = writeln!(text, "- **{}** {}: {}", escaped(&case.name), case.verdict, escaped(reason));
    }
    if !reasons.is_empty() {
        text.push('\n');
    }
    let improved = report.cases.iter().filter(|case| case.verdict == Verdict::Improved).count();
    let _ = writeln!(
        text,
        "<details><summary>All metrics{}</summary>\n",
        if improved == 0 { String::new() } else { format!(", {improved} improved") }
    );
    text.push_str(&table(report));
    let _ = writeln!(
        text,
        "\nRatios are head / base: above 1 means that head takes more. {}\n\n</details>\n",
        design(report)
    );
    let _ = writeln!(text, "{}", escaped(&resolution_sentence(report)));
    for warning in &report.warnings {
        let _ = writeln!(text, "\n> {}", escaped(warning));
    }
    text
}

fn program(program: &ProgramIdentity) -> String {
    let name = program.revision.as_ref().map_or_else(
        || format!("build `{}`", program.build),
        |revision| format!("`{}`", revision.chars().take(12).collect::<String>()),
    );
    match &program.description {
        Some(description) => format!("{} ({})", escaped(&name), escaped(description)),
        None => escaped(&name),
    }
}

fn table(report: &GateReport) -> String {
    let columns = ["case", "metric", "base", "head", "head / base", "p", "pairs", "verdict", "note"];
    let is_numeric = [false, false, true, true, true, true, true, false, false];
    let mut rows: Vec<[String; 9]> = Vec::new();
    for case in &report.cases {
        if case.metrics.is_empty() {
            let missing = || "-".to_owned();
            let reason = case.reason.clone().unwrap_or_else(|| "nothing was measured".to_owned());
            let name = case.name.clone();
            let (pairs, verdict) = (case.pairs.to_string(), case.verdict.to_string());
            rows.push([name, missing(), missing(), missing(), missing(), missing(), pairs, verdict, reason]);
        }
        rows.extend(case.metrics.iter().map(|metric| metric_row(case, metric)));
    }
    let rows: Vec<Vec<&str>> = rows.iter().map(|row| row.iter().map(String::as_str).collect()).collect();
    markdown_table(&columns, &is_numeric, &rows)
}

fn metric_row(case: &CaseReport, metric: &MetricReport) -> [String; 9] {
    let show = metric_format(metric.metric);
    let missing = || "-".to_owned();
    [
        case.name.clone(),
        metric_with_unit(metric.metric),
        show(metric.base_median),
        show(metric.head_median),
        metric.estimate.map_or_else(missing, |estimate| format!("{estimate:.3}{}", interval_ends(metric))),
        metric.p.map_or_else(missing, p_value),
        metric.n_pairs.to_string(),
        metric.verdict.to_string(),
        metric.note.clone().unwrap_or_else(missing),
    ]
}

fn design(report: &GateReport) -> String {
    let design = &report.design;
    let mode = match design.mode {
        GateMode::Looks => "judged at several looks with a corrected level",
        GateMode::ScreenConfirm => "screened, flagged cases confirmed by fresh pairs with Holm's correction",
    };
    format!(
        "A slowdown of up to {:.1}% is not a regression, {:.0}% must not pass; pairs in random order, {mode}; seed {}.",
        100.0 * design.delta,
        100.0 * design.effect,
        design.seed
    )
}

/// Escapes text from a suite or a program, so that it cannot become markup.
fn escaped(text: &str) -> String {
    text.replace('<', "&lt;").replace(['\n', '\r'], " ")
}
