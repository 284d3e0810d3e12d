//! The table that a run ends with: a line a task and method, then what the methods come to against each other.

use std::fmt::Write;

use comfy_table::{CellAlignment, ContentArrangement, ContentLineStyle, LineStyle, Table, TableStyle};

use super::ablation;
use super::format::{megabytes, metric, ratio_in_words, seconds};
use super::quality;
use super::sentence::sentence;
use crate::case::{Method, Task};
use crate::results::summary::{Comparison, TaskSummary};
use crate::results::{ResultFile, Row, Status};
use pairgate::stats::summary::median;

const HEADER: [&str; 11] = [
    "task",
    "method",
    "n",
    "time s",
    "extract s",
    "train+eval s",
    "peak RSS MB",
    "peak heap MB",
    "GPU used MB",
    "GPU reserved MB",
    "metric",
];

/// The whole text: medians, ratios, a sentence for each task and lazy method. It has no colours and no line breaks that
/// depend on the terminal, so that a piped table is the table that was seen.
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

/// A line under the head and no other: rows are few and short.
pub(super) fn style() -> TableStyle {
    TableStyle::new()
        .header_lines(ContentLineStyle::none().junction(' '))
        .header_separator(LineStyle::none().fill('─').junction('─'))
        .content_lines(ContentLineStyle::none().junction(' '))
}

/// Medians over the counted repetitions of each task and method.
fn cases(results: &ResultFile) -> Table {
    let mut table = Table::new();
    table.load_style(style()).set_content_arrangement(ContentArrangement::Disabled).set_header(HEADER);
    for task in &results.config.tasks {
        for method in &results.config.methods {
            let rows: Vec<&Row> = results.rows.iter().filter(|row| is_of(row, *task, *method)).collect();
            table.add_row(line(*task, *method, &rows));
        }
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// Whether a row is of a case as the settings have it, no rule left out to show its worth.
fn is_of(row: &Row, task: Task, method: Method) -> bool {
    (row.task, row.method) == (task, method) && row.ablated().is_none()
}

fn line(task: Task, method: Method, rows: &[&Row]) -> Vec<String> {
    let ok: Vec<&Row> = rows.iter().copied().filter(|row| row.status == Status::Ok).collect();
    let middle =
        |value: fn(&Row) -> Option<f64>| median(&ok.iter().filter_map(|row| value(row)).collect::<Vec<f64>>()).ok();
    let count = match rows.iter().find(|row| row.status != Status::Ok) {
        Some(failed) => format!("{} of {} ({})", ok.len(), rows.len(), failed.status),
        None => ok.len().to_string(),
    };
    vec![
        task.to_string(),
        method.to_string(),
        count,
        seconds(middle(|row| row.elapsed_s)),
        seconds(middle(|row| row.extract_s)),
        seconds(middle(|row| row.train_eval_s)),
        megabytes(middle(|row| row.cpu_peak_rss_mb)),
        megabytes(middle(|row| row.cpu_peak_heap_mb)),
        megabytes(middle(|row| row.gpu_peak_alloc_mb)),
        megabytes(middle(|row| row.gpu_peak_reserved_mb)),
        metric(middle(|row| row.metric_value)),
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
    let told: Vec<String> = figures
        .into_iter()
        .filter(|(_, value, _)| value.is_some())
        .map(|(name, value, interval)| format!("{name} {}", ratio_in_words(value, interval)))
        .collect();
    let footing = match intervals.speedup_lazy_vs_eager {
        Some(interval) => format!("; {:.1}% intervals, {} blocks", 100.0 * interval.confidence, interval.n),
        None => "; no interval from a single block".to_owned(),
    };
    (!told.is_empty()).then(|| format!("{task}, eager / {method}: {}{footing}", told.join(", ")))
}
