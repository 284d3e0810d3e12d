//! Markdown for a pull request's comment or a job's summary: the verdict first, every figure below it.

use std::fmt::Write;

use super::table::chance;
use super::words::{ends, headline, reason, resolution};
use crate::gate::design::Mode;
use crate::gate::report::Identity;
use crate::gate::{GateReport, Verdict};
use crate::report::compare::shown_as;
use crate::report::document::{Table, number_cell, text_cell, whole_cell};
use crate::report::history::{markdown_table, named};

/// The report.
pub fn markdown(report: &GateReport) -> String {
    let mut text = format!("## actbench gate: {}\n\n", escaped(&headline(report)));
    let _ = writeln!(text, "Base {}, head {}.\n", program(&report.base), program(&report.head));
    let told: Vec<_> = report.cases.iter().filter_map(|case| Some((case, reason(case)?))).collect();
    for (case, reason) in &told {
        let _ = writeln!(text, "- **{}** {}: {}", escaped(&case.name), case.verdict, escaped(reason));
    }
    if !told.is_empty() {
        text.push('\n');
    }
    let better = report.cases.iter().filter(|case| case.verdict == Verdict::Improved).count();
    let _ = writeln!(
        text,
        "<details><summary>All figures{}</summary>\n",
        match better {
            0 => String::new(),
            n => format!(", {n} better"),
        }
    );
    text.push_str(&markdown_table(&table(report)));
    let _ = writeln!(
        text,
        "\nRatios are head / base: above 1 means that head takes more. {}\n\n</details>\n",
        design(report)
    );
    let _ = writeln!(text, "{}", escaped(&resolution(report)));
    for warning in &report.warnings {
        let _ = writeln!(text, "\n> {}", escaped(warning));
    }
    text
}

fn program(program: &Identity) -> String {
    let name = program.revision.as_ref().map_or_else(
        || format!("build `{}`", program.build),
        |revision| format!("`{}`", revision.chars().take(12).collect::<String>()),
    );
    match &program.description {
        Some(description) => format!("{} ({})", escaped(&name), escaped(description)),
        None => escaped(&name),
    }
}

fn table(report: &GateReport) -> Table {
    let heads = ["case", "metric", "#base", "#head", "#head / base", "#p", "#pairs", "verdict", "note"];
    let mut table = Table::new("", &heads);
    for case in &report.cases {
        if case.metrics.is_empty() {
            let dash = || text_cell("-");
            let note = text_cell(case.reason.as_deref().unwrap_or("nothing was measured"));
            let pairs = whole_cell(case.pairs);
            table.push(vec![
                text_cell(&case.name),
                dash(),
                dash(),
                dash(),
                dash(),
                dash(),
                pairs,
                text_cell(case.verdict),
                note,
            ]);
        }
        for metric in &case.metrics {
            let show = shown_as(metric.metric);
            let ratio = metric.estimate.map(|estimate| format!("{estimate:.3}{}", ends(metric)));
            table.push(vec![
                text_cell(&case.name),
                text_cell(named(metric.metric)),
                number_cell(metric.base_median, show),
                number_cell(metric.head_median, show),
                text_cell(ratio.as_deref().unwrap_or("-")),
                number_cell(metric.p, |p| p.map_or_else(|| "-".to_owned(), chance)),
                whole_cell(metric.n_pairs),
                text_cell(metric.verdict),
                text_cell(metric.note.as_deref().unwrap_or("-")),
            ]);
        }
    }
    table
}

fn design(report: &GateReport) -> String {
    let design = &report.design;
    let how = match design.mode {
        Mode::Looks => "judged at looks that share the level between them",
        Mode::ScreenConfirm => "screened, and what was flagged confirmed by fresh pairs with Holm's correction",
    };
    format!(
        "Up to {:.1}% is no regression, {:.0}% must not pass; pairs in random order, {how}; seed {}.",
        100.0 * design.delta,
        100.0 * design.effect,
        design.seed
    )
}

/// Text from a suite or a program must not become markup.
fn escaped(text: &str) -> String {
    text.replace('<', "&lt;").replace(['\n', '\r'], " ")
}
