//! A comparison of two stored results, as text for the terminal.

use std::fmt::Write;

use super::document::{Table, number_cell, text_cell, text_table};
use super::format::{fine_seconds, mebibytes, metric};
use crate::compare::{Comparison, FigureComparison};
use crate::gate::{Metric, Outcome, Rule};

/// The table, what it comes to, and why no more is said.
pub fn render(comparison: &Comparison) -> String {
    let mut text = text_table(&table(comparison));
    let said = match comparison.outcome {
        Outcome::Pass => "pass: no figure is worse than past runs let expect",
        Outcome::Regressed => "regressed: see the verdicts above",
        Outcome::Broken => "broken: a figure is missing or a repetition failed, see above",
        Outcome::Inconclusive => "inconclusive: advisory only, nothing is concluded from these ratios",
    };
    let _ = writeln!(text, "\n{said}");
    for reason in &comparison.not_judged {
        let _ = writeln!(text, "not judged: {reason}");
    }
    let judged = comparison.figures.iter().filter(|figure| has_bound(figure)).count();
    if judged > 0 {
        let _ = writeln!(
            text,
            "judged: {judged} figures against {} past runs, each with a chance of a false alarm of 1 in 100",
            comparison.n_history
        );
    }
    let _ = writeln!(text, "intervals: from the scatter within the two runs; other runs differ by more");
    text
}

fn has_bound(figure: &FigureComparison) -> bool {
    figure.history.as_ref().is_some_and(|history| history.bound.is_some())
}

/// A line a figure.
fn table(comparison: &Comparison) -> Table {
    let heads = ["case", "metric", "#base", "#head", "#head / base", "#history", "#alarm above", "verdict", "note"];
    let mut table = Table::new("", &heads);
    for figure in &comparison.figures {
        let show = shown_as(figure.metric);
        let ratio = match (figure.ratio, figure.interval) {
            (Some(ratio), Some(ends)) => format!("{ratio:.3} ({:.3} to {:.3})", ends.low, ends.high),
            (Some(ratio), None) => format!("{ratio:.3}"),
            (None, _) => "-".to_owned(),
        };
        let history = figure.history.as_ref();
        let mean = history.map(|history| format!("{} of {}", show(Some(history.mean)), history.n));
        table.push(vec![
            text_cell(figure.case),
            text_cell(match figure.unit {
                "" => figure.metric.to_string(),
                unit => format!("{}, {unit}", figure.metric),
            }),
            number_cell(figure.base, show),
            number_cell(figure.head, show),
            text_cell(ratio),
            text_cell(mean.as_deref().unwrap_or("-")),
            number_cell(history.and_then(|history| history.bound), show),
            text_cell(figure.verdict),
            text_cell(figure.note.as_deref().unwrap_or("-")),
        ]);
    }
    table
}

/// How values of a metric are written.
pub fn shown_as(of: Metric) -> fn(Option<f64>) -> String {
    match of.rule() {
        Rule::Time => fine_seconds,
        Rule::Memory => mebibytes,
        Rule::Quality | Rule::Identity => metric,
        Rule::Count => |value| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.0}")),
    }
}
