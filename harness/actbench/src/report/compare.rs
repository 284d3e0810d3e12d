//! A comparison of two stored results, as text for the terminal.

use std::fmt::Write;

use super::document::{Table, number_cell, text_cell, text_table};
use crate::gate_adapter::TaskMethod;
use pairgate::Verdict;
use pairgate::compare::{FigureComparison, RunComparison};
use pairgate::export::format::{counted, metric_format, metric_with_unit};

/// The table in lines of at most `width` columns, the verdict, and the reasons why figures are not judged.
pub fn render(comparison: &RunComparison<TaskMethod>, width: Option<u16>) -> String {
    let mut text = text_table(&table(comparison), width);
    let _ = writeln!(text, "\n{}", verdict(comparison));
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
            "judged by past runs: {} by {}, each with a false-alarm probability of 1 %",
            counted(judged, "figure"),
            counted(comparison.n_history, "run")
        );
    }
    let _ = writeln!(text, "intervals: from the scatter within the two runs; different runs scatter more");
    text
}

/// The outcome, in words that fit the number of judged figures.
fn verdict(comparison: &RunComparison<TaskMethod>) -> String {
    let judged = comparison.n_judged();
    let unjudged = comparison.figures.len() - judged;
    match comparison.outcome {
        Verdict::Pass | Verdict::Improved => "pass: no figure is worse than past runs predict".to_owned(),
        Verdict::Regressed => "regressed: see the verdicts above".to_owned(),
        Verdict::Broken => "broken: a figure is missing or a repetition failed, see above".to_owned(),
        Verdict::Inconclusive if !comparison.lacks_runs() => {
            format!(
                "inconclusive: {} of {}, see the notes above",
                comparison.n_undecided(),
                counted(judged, "judged figure")
            )
        }
        Verdict::Inconclusive if judged == 0 => {
            format!("not judged: {}; the ratios above are advisory", counted(unjudged, "figure"))
        }
        Verdict::Inconclusive => {
            format!("pass: {}, none of them worse; {unjudged} not judged", counted(judged, "judged figure"))
        }
    }
}

fn has_bound(figure: &FigureComparison<TaskMethod>) -> bool {
    figure.history.as_ref().is_some_and(|history| history.bound.is_some())
}

/// A line for each figure.
fn table(comparison: &RunComparison<TaskMethod>) -> Table {
    let heads = ["case", "metric", "#base", "#head", "#head / base", "#past mean", "#alarm above", "verdict", "note"];
    let mut table = Table::new("", &heads);
    for figure in &comparison.figures {
        let show = metric_format(figure.metric);
        let ratio = match (figure.ratio, figure.interval) {
            (Some(ratio), Some(ends)) => format!("{ratio:.3} ({:.3} to {:.3})", ends.low, ends.high),
            (Some(ratio), None) => format!("{ratio:.3}"),
            (None, _) => "-".to_owned(),
        };
        let history = figure.history.as_ref();
        let mean = history.map(|history| format!("{} ({})", show(Some(history.mean)), counted(history.n, "run")));
        table.push(vec![
            text_cell(figure.case),
            text_cell(metric_with_unit(figure.metric)),
            number_cell(figure.base, show),
            number_cell(figure.head, show),
            text_cell(ratio),
            text_cell(mean.as_deref().unwrap_or("-")),
            number_cell(history.and_then(|history| history.bound), show),
            if figure.judged { text_cell(figure.verdict) } else { text_cell("not judged") },
            text_cell(figure.note.as_deref().unwrap_or("-")),
        ]);
    }
    table
}
