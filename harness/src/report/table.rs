//! The table that a run ends with: a line a task and method, then what the methods come to against each other.

use std::fmt::Write;

use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{CellAlignment, ContentArrangement, Table};

use super::format::{megabytes, metric, ratio, seconds};
use super::sentence::sentence;
use crate::results::summary::Comparison;
use crate::results::{ResultFile, Row, Status};
use crate::stats::summary::median;
use crate::workload::case::{Method, Task};

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

/// The whole text: medians, ratios, a sentence a task.
pub fn render(results: &ResultFile) -> String {
    let mut text = format!("{}\n", cases(results));
    for task in &results.config.tasks {
        let summary = results.task_summary(*task);
        let lazy = if results.config.methods.contains(&Method::Lazy) { Method::Lazy } else { Method::LazyDisk };
        let mut comparisons = vec![(lazy, &summary.comparison)];
        comparisons.extend(summary.lazy_disk.as_ref().map(|comparison| (Method::LazyDisk, comparison)));
        for (method, comparison) in comparisons {
            if comparison.speedup_lazy_vs_eager.is_some() {
                let _ = writeln!(text, "{}", ratios(*task, method, comparison));
            }
        }
    }
    for task in &results.config.tasks {
        if let Some(sentence) = sentence(*task, results) {
            let _ = writeln!(text, "{sentence}");
        }
    }
    text
}

/// Medians over the counted repetitions of each task and method.
fn cases(results: &ResultFile) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Disabled).set_header(HEADER);
    for task in &results.config.tasks {
        for method in &results.config.methods {
            let rows: Vec<&Row> =
                results.rows.iter().filter(|row| (row.task, row.method) == (*task, *method)).collect();
            table.add_row(line(*task, *method, &rows));
        }
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
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

fn ratios(task: Task, method: Method, comparison: &Comparison) -> String {
    let intervals = &comparison.intervals;
    let mut parts = vec![
        format!("time {}", ratio(comparison.speedup_lazy_vs_eager, intervals.speedup_lazy_vs_eager)),
        format!("peak RSS {}", ratio(comparison.cpu_mem_reduction_x, intervals.cpu_mem_reduction_x)),
    ];
    if comparison.gpu_alloc_reduction_x.is_some() {
        parts.push(format!("GPU used {}", ratio(comparison.gpu_alloc_reduction_x, intervals.gpu_alloc_reduction_x)));
    }
    format!("{task}: eager / {method}: {}", parts.join(", "))
}
