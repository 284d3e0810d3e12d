//! The table at the end of a run: one line per task and method, then the ratios between methods.

use std::fmt::Write;

use comfy_table::{CellAlignment, ContentArrangement, Table};

use super::ablation;
use super::format::{mebibytes, metric, ratio_or_no_difference, seconds};
use super::quality;
use super::sentence::sentence;
use crate::case::{Method, Task};
use crate::results::summary::{Comparison, TaskSummary};
use crate::results::{ResultFile, Row, Status};
use pairgate::export::table_style;
use pairgate::stats::summary::median;

const HEADER: [&str; 11] = [
    "task",
    "method",
    "n",
    "time s",
    "extract s",
    "train+eval s",
    "peak RSS MiB",
    "peak heap MiB",
    "GPU used MiB",
    "GPU reserved MiB",
    "metric",
];

/// The whole text: medians, ratios, a sentence for each task and lazy method. Colors and line breaks do not depend on the
/// terminal, so that a piped table equals a printed one.
pub fn render(results: &ResultFile) -> String {
    let mut text = format!("{}\n", cases(results).trim_fmt());
    let summaries: Vec<(Task, TaskSummary)> =
        results.config.tasks.iter().map(|task| (*task, results.task_summary(*task))).collect();
    let comparisons = || summaries.iter().flat_map(|(task, summary)| summary.by_method().map(move |it| (*task, it)));
    for (task, (method, comparison)) in comparisons() {
        if let Some(line) = ratios(task, method, comparison) {
            let _ = writeln!(text, "{line}");
        }
    }
    for (task, (method, comparison)) in comparisons() {
        if let Some(sentence) = sentence(task, method, comparison, &results.rows) {
            let _ = writeln!(text, "{sentence}");
        }
    }
    for line in quality::lines(results) {
        let _ = writeln!(text, "{line}");
    }
    if summaries.iter().any(|(_, summary)| !summary.ablation.is_empty()) {
        let _ = write!(text, "\n{}", ablation::render(&summaries));
    }
    text
}

/// Medians over the counted repetitions of each task and method.
fn cases(results: &ResultFile) -> Table {
    let mut table = Table::new();
    table.load_style(table_style()).set_content_arrangement(ContentArrangement::Disabled).set_header(HEADER);
    for task in &results.config.tasks {
        for method in &results.config.methods {
            let rows: Vec<&Row> = results.rows.iter().filter(|row| is_full_case(row, *task, *method)).collect();
            table.add_row(line(*task, *method, &rows));
        }
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// Whether a row belongs to this task and method with all rules that the settings select: no rule ablated.
fn is_full_case(row: &Row, task: Task, method: Method) -> bool {
    (row.task, row.method) == (task, method) && row.ablated().is_none()
}

fn line(task: Task, method: Method, rows: &[&Row]) -> Vec<String> {
    let ok: Vec<&Row> = rows.iter().copied().filter(|row| row.status == Status::Ok).collect();
    let median_of =
        |value: fn(&Row) -> Option<f64>| median(&ok.iter().filter_map(|row| value(row)).collect::<Vec<f64>>()).ok();
    let count = match rows.iter().find(|row| row.status != Status::Ok) {
        Some(failed) => format!("{} of {} ({})", ok.len(), rows.len(), failed.status),
        None => ok.len().to_string(),
    };
    vec![
        task.to_string(),
        method.to_string(),
        count,
        seconds(median_of(|row| row.elapsed_s)),
        seconds(median_of(|row| row.extract_s)),
        seconds(median_of(|row| row.train_eval_s)),
        mebibytes(median_of(|row| row.cpu_peak_rss_mb)),
        mebibytes(median_of(|row| row.cpu_peak_heap_mb)),
        mebibytes(median_of(|row| row.gpu_peak_alloc_mb)),
        mebibytes(median_of(|row| row.gpu_peak_reserved_mb)),
        metric(median_of(|row| row.metric_value)),
    ]
}

/// `train, eager / lazy: time 2.10x (1.98 to 2.25), peak RSS 1.37x (1.37 to 1.38); 93.8% intervals, 5 blocks`.
fn ratios(task: Task, method: Method, comparison: &Comparison) -> Option<String> {
    let intervals = &comparison.intervals;
    let figures = [
        ("time", comparison.speedup_lazy_vs_eager, intervals.speedup_lazy_vs_eager),
        ("peak RSS", comparison.cpu_mem_reduction_x, intervals.cpu_mem_reduction_x),
        ("GPU used", comparison.gpu_alloc_reduction_x, intervals.gpu_alloc_reduction_x),
        ("GPU reserved", comparison.gpu_reserved_reduction_x, intervals.gpu_reserved_reduction_x),
    ];
    let ratios: Vec<String> = figures
        .into_iter()
        .filter(|(_, value, _)| value.is_some())
        .map(|(name, value, interval)| format!("{name} {}", ratio_or_no_difference(value, interval)))
        .collect();
    let footing = match intervals.speedup_lazy_vs_eager {
        Some(interval) => format!("; {:.1}% intervals, {} blocks", 100.0 * interval.confidence, interval.n),
        None => "; no interval from a single block".to_owned(),
    };
    (!ratios.is_empty()).then(|| format!("{task}, eager / {method}: {}{footing}", ratios.join(", ")))
}
