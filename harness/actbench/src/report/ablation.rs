//! The table of what each optimiser rule is worth.

use comfy_table::{CellAlignment, ContentArrangement, Table};
use indicatif::HumanCount;

use super::format::{megabytes, ratio, seconds};
use super::table::style;
use crate::case::Task;
use crate::results::ablation::{AblationResult, Ratio};
use crate::results::summary::TaskSummary;

const HEADER: [&str; 11] = [
    "task",
    "method",
    "rules",
    "n",
    "time s",
    "of full",
    "extract s",
    "of full",
    "peak RSS MB",
    "rows computed",
    "GFLOP",
];

/// A line for each lazy plan in full and one for it without each rule; ratios are to the full plan of the same block.
pub fn render(summaries: &[(Task, TaskSummary)]) -> String {
    let mut table = Table::new();
    table.load_style(style()).set_content_arrangement(ContentArrangement::Disabled).set_header(HEADER);
    for (task, summary) in summaries {
        for worth in &summary.ablation {
            table.add_row(line(*task, worth));
        }
    }
    for column in table.column_iter_mut().skip(3) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    format!("{}\n{}\n", table.trim_fmt(), footing(summaries))
}

/// What the ratios are, and how sure.
fn footing(summaries: &[(Task, TaskSummary)]) -> String {
    let worths = || summaries.iter().flat_map(|(_, summary)| &summary.ablation);
    let sure = match worths().find_map(|worth| worth.time?.interval) {
        Some(interval) => format!("{:.1}% intervals, {} blocks", 100.0 * interval.confidence, interval.n),
        None => "no intervals from a single block".to_owned(),
    };
    format!("of full: time without the rule / time of the full plan in the same block, above 1 the rule pays; {sure}")
}

fn line(task: Task, worth: &AblationResult) -> Vec<String> {
    let of_full = |value: Option<Ratio>| ratio(value.map(|it| it.estimate), value.and_then(|it| it.interval));
    let count = |value: Option<u64>| value.map_or_else(|| "-".to_owned(), |value| HumanCount(value).to_string());
    vec![
        task.to_string(),
        worth.method.to_string(),
        worth.without.as_ref().map_or_else(|| "full".to_owned(), |without| format!("without {without}")),
        worth.n.to_string(),
        seconds(worth.elapsed_s),
        of_full(worth.time),
        seconds(worth.extract_s),
        of_full(worth.extract),
        megabytes(worth.cpu_peak_rss_mb),
        count(worth.tokens_computed),
        worth.flops.map_or_else(|| "-".to_owned(), |flops| format!("{:.1}", flops as f64 / 1e9)),
    ]
}
