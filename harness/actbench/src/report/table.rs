//! The table at the end of a run: one line per task and method, then the ratios between methods.

use std::fmt::Write;

use comfy_table::{CellAlignment, Table};

use super::ablation;
use super::fit::fitted;
use super::format::{mebibytes, metric, ratio_or_no_difference, seconds};
use super::sentence::sentence;
use super::{phases, quality};
use crate::case::{Method, Task};
use crate::crossover::recommend::{Recommendation, recommendations_of_run};
use crate::results::interval::IntervalBasis;
use crate::results::summary::{Comparison, TaskSummary};
use crate::results::{ResultFile, Row, Status};
use pairgate::export::table_style;
use pairgate::stats::summary::median;

/// A column of figures: its heading on two lines, so that the table is narrow, and the value in a row.
struct FigureColumn {
    head: &'static str,
    value: fn(&Row) -> Option<f64>,
    show: fn(Option<f64>) -> String,
}

const FIGURES: [FigureColumn; 8] = [
    FigureColumn { head: "time\ns", value: |row| row.elapsed_s, show: seconds },
    FigureColumn { head: "extract\ns", value: |row| row.extract_s, show: seconds },
    FigureColumn { head: "train+eval\ns", value: |row| row.train_eval_s, show: seconds },
    FigureColumn { head: "peak RSS\nMiB", value: |row| row.cpu_peak_rss_mb, show: mebibytes },
    FigureColumn { head: "peak heap\nMiB", value: |row| row.cpu_peak_heap_mb, show: mebibytes },
    FigureColumn { head: "GPU used\nMiB", value: |row| row.gpu_peak_alloc_mb, show: mebibytes },
    FigureColumn { head: "GPU reserved\nMiB", value: |row| row.gpu_peak_reserved_mb, show: mebibytes },
    FigureColumn { head: "metric", value: |row| row.metric_value, show: metric },
];

/// The columns, in two lines that fit into a terminal of 80 columns.
const LEGEND: &str = "n: repetitions; figures are medians; time: extract + train+eval; metric: AUROC.\n\
                      RSS: resident memory; heap: what was allocated, eager's full tensors included.\n";

/// The whole text: medians, ratios, a sentence and the recommended method for each task. `width` is that of the terminal;
/// without one no line of a table is wrapped. Cases that used the disk cache are called `lazy-disk`.
pub fn render(results: &ResultFile, width: Option<u16>) -> String {
    let results = &results.with_shown_methods();
    let mut text = format!("{}{LEGEND}", cases(results, width));
    // On a CPU, loading is short, and the report has its phases.
    if results.rows.iter().any(|row| row.gpu_peak_alloc_mb.is_some()) {
        text += &phases::render(results, width);
    }
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
    for recommendation in recommendations_of_run(results) {
        let Recommendation { task, mode, why, .. } = &recommendation;
        let mode = mode.map_or_else(|| "no mode is recommended".to_owned(), |mode| format!("use {mode}"));
        let _ = writeln!(text, "{task}: {mode}: {why}.");
    }
    for line in quality::lines(results) {
        let _ = writeln!(text, "{line}");
    }
    if summaries.iter().any(|(_, summary)| !summary.ablation.is_empty()) {
        let _ = write!(text, "\n{}", ablation::render(&summaries, width));
    }
    text
}

/// Medians over the counted repetitions of each task and method; columns without any value are left out.
fn cases(results: &ResultFile, width: Option<u16>) -> String {
    let columns: Vec<&FigureColumn> =
        FIGURES.iter().filter(|column| results.rows.iter().any(|row| (column.value)(row).is_some())).collect();
    let mut table = Table::new();
    let heads = ["task", "method", "n"].into_iter().chain(columns.iter().map(|column| column.head));
    table.load_style(table_style()).set_header(heads);
    for task in &results.config.tasks {
        for method in &results.config.methods {
            let rows: Vec<&Row> = results.rows.iter().filter(|row| is_full_case(row, *task, *method)).collect();
            table.add_row(line(*task, *method, &rows, &columns));
        }
    }
    for column in table.column_iter_mut() {
        column.set_padding((1, 0));
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    fitted(table, width)
}

/// Whether a row belongs to this task and method with all rules that the settings select: no rule ablated.
fn is_full_case(row: &Row, task: Task, method: Method) -> bool {
    (row.task, row.method) == (task, method) && row.ablated().is_none()
}

fn line(task: Task, method: Method, rows: &[&Row], columns: &[&FigureColumn]) -> Vec<String> {
    let ok: Vec<&Row> = rows.iter().copied().filter(|row| row.status == Status::Ok).collect();
    let figure = |column: &&FigureColumn| {
        let values: Vec<f64> = ok.iter().filter_map(|row| (column.value)(row)).collect();
        (column.show)(median(&values).ok())
    };
    let count = match rows.iter().find(|row| row.status != Status::Ok) {
        Some(failed) => format!("{} of {} ({})", ok.len(), rows.len(), failed.status),
        None => ok.len().to_string(),
    };
    [task.to_string(), method.to_string(), count].into_iter().chain(columns.iter().map(figure)).collect()
}

/// `train, eager / lazy: time 2.10x (1.98 to 2.25), peak RSS 1.37x (1.37 to 1.38); 93.8 % intervals, 5 blocks`.
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
    let footing = match IntervalBasis::of(figures.into_iter().filter_map(|(.., interval)| interval)) {
        Some(basis) => format!("; {basis}"),
        None => "; no interval from a single block".to_owned(),
    };
    (!ratios.is_empty()).then(|| format!("{task}, eager / {method}: {}{footing}", ratios.join(", ")))
}
