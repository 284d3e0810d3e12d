//! The table of the effect of each optimizer rule.

use comfy_table::{CellAlignment, Table};
use indicatif::HumanCount;

use super::fit::fitted;
use super::format::{mebibytes, ratio, seconds};
use crate::case::Task;
use crate::results::ablation::{AblationResult, Ratio};
use crate::results::interval::IntervalBasis;
use crate::results::summary::TaskSummary;
use pairgate::export::table_style;

const HEADER: [&str; 11] = [
    "task",
    "method",
    "rules",
    "n",
    "time s",
    "vs full",
    "extract s",
    "vs full",
    "peak RSS MiB",
    "tokens computed",
    "GFLOP",
];

/// One line for each full lazy plan, and one for the plan without each rule; ratios are to the full plan of the same block.
pub fn render(summaries: &[(Task, TaskSummary)], width: Option<u16>) -> String {
    let mut table = Table::new();
    table.load_style(table_style()).set_header(HEADER);
    for (task, summary) in summaries {
        for effect in &summary.ablation {
            table.add_row(line(*task, effect));
        }
    }
    for column in table.column_iter_mut().skip(3) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    format!("{}{}\n", fitted(table, width), footing(summaries))
}

/// The definition of the ratios and the confidence of their intervals.
fn footing(summaries: &[(Task, TaskSummary)]) -> String {
    let effects = summaries.iter().flat_map(|(_, summary)| &summary.ablation);
    let intervals = effects.flat_map(|effect| [effect.time, effect.extract]).filter_map(|ratio| ratio?.interval);
    let confidence = match IntervalBasis::of(intervals) {
        Some(basis) => basis.to_string(),
        None => "no intervals from a single block".to_owned(),
    };
    format!(
        "vs full: time without the rule / time of the full plan in the same block; above 1 the rule saves time; {confidence}"
    )
}

fn line(task: Task, effect: &AblationResult) -> Vec<String> {
    let vs_full = |value: Option<Ratio>| ratio(value.map(|it| it.estimate), value.and_then(|it| it.interval));
    let count = |value: Option<u64>| value.map_or_else(|| "-".to_owned(), |value| HumanCount(value).to_string());
    vec![
        task.to_string(),
        effect.method.to_string(),
        effect.without.as_ref().map_or_else(|| "full".to_owned(), |without| format!("without {without}")),
        effect.n.to_string(),
        seconds(effect.elapsed_s),
        vs_full(effect.time),
        seconds(effect.extract_s),
        vs_full(effect.extract),
        mebibytes(effect.cpu_peak_rss_mb),
        count(effect.tokens_computed),
        effect.flops.map_or_else(|| "-".to_owned(), |flops| format!("{:.1}", flops as f64 / 1e9)),
    ]
}
