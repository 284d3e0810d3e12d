//! A comparison of two stored results, as text for the terminal.

use std::fmt::Write;

use super::document::{Table, number_cell, text_cell, text_table};
use crate::gate_adapter::TaskMethod;
use pairgate::Verdict;
use pairgate::compare::{FigureComparison, RunComparison};
use pairgate::export::format::{metric_format, metric_with_unit};

/// The table, the verdict, and the reasons why figures are not judged.
pub fn render(comparison: &RunComparison<TaskMethod>) -> String {
    let mut text = text_table(&table(comparison));
    let verdict = match comparison.outcome {
        Verdict::Pass | Verdict::Improved => "pass: no figure is worse than past runs predict",
        Verdict::Regressed => "regressed: see the verdicts above",
        Verdict::Broken => "broken: a figure is missing or a repetition failed, see above",
        Verdict::Inconclusive => "inconclusive: advisory only, the ratios are not judged",
    };
    let _ = writeln!(text, "\n{verdict}");
    for reason in &comparison.not_judged {
        let _ = writeln!(text, "not judged: {reason}");
    }
    if comparison.n_history == 0 {
        let _ = writeln!(
            text,
            "advice: `actbench history add` stores runs; `actbench gate` judges two commits without a history"
        );
    }
    let judged = comparison.figures.iter().filter(|figure| has_bound(figure)).count();
    if judged > 0 {
        let _ = writeln!(
            text,
            "judged: {judged} figures by {} past runs, each with a false-alarm probability of 1 %",
            comparison.n_history
        );
    }
    let _ = writeln!(text, "intervals: from the scatter within the two runs; different runs scatter more");
    text
}

fn has_bound(figure: &FigureComparison<TaskMethod>) -> bool {
    figure.history.as_ref().is_some_and(|history| history.bound.is_some())
}

/// A line for each figure.
fn table(comparison: &RunComparison<TaskMethod>) -> Table {
    let heads = ["case", "metric", "#base", "#head", "#head / base", "#history", "#alarm above", "verdict", "note"];
    let mut table = Table::new("", &heads);
    for figure in &comparison.figures {
        let show = metric_format(figure.metric);
        let ratio = match (figure.ratio, figure.interval) {
            (Some(ratio), Some(ends)) => format!("{ratio:.3} ({:.3} to {:.3})", ends.low, ends.high),
            (Some(ratio), None) => format!("{ratio:.3}"),
            (None, _) => "-".to_owned(),
        };
        let history = figure.history.as_ref();
        let mean = history.map(|history| format!("{} of {}", show(Some(history.mean)), history.n));
        table.push(vec![
            text_cell(figure.case),
            text_cell(metric_with_unit(figure.metric)),
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
