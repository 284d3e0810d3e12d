//! The summary table: one line per run, task and lazy mode, every ratio with its interval.

use super::tables::{NONE, Table, TableCell, basis, number, ratio_cell, text, whole};
use crate::case::{Method, Task};
use crate::crossover::answer::ComparedQuantity;
use crate::crossover::{Cell, MethodFigures};
use crate::results::interval::{IntervalBasis, is_same};
use crate::results::summary::Comparison;

/// The summary table of `cells`.
pub(super) fn table(cells: &[Cell]) -> Table {
    let mut table = Table::new(
        "Ratios are eager / the row's mode: above 1 that mode is better. The metric's difference is that mode - eager.",
        &[
            "run",
            "task",
            "mode",
            "model",
            "#samples",
            "layers",
            "pool",
            "dtype",
            "device",
            "#speed-up",
            "#CPU memory reduction",
            "#GPU allocation reduction",
            "#GPU reserved reduction",
            "#metric delta",
            "#blocks",
            "intervals",
        ],
    );
    for cell in cells {
        for (method, comparison) in &cell.comparisons {
            table.push(line(cell, *method, comparison));
        }
    }
    table
}

fn line(cell: &Cell, method: Method, comparison: &Comparison) -> Vec<TableCell> {
    let (setting, intervals) = (&cell.setting, &comparison.intervals);
    let mut speedup = ratio_cell(comparison.speedup_lazy_vs_eager, intervals.speedup_lazy_vs_eager);
    if speedup.number.is_none() {
        speedup.text = failed_methods(cell, method);
    }
    let blocks = intervals.speedup_lazy_vs_eager.map(|interval| interval.n);
    vec![
        text(&cell.run),
        text(setting.task),
        text(method),
        text(&setting.shown_model),
        whole(cell.samples),
        text(setting.depth()),
        text(&setting.pool),
        text(&setting.dtype),
        text(setting.device),
        speedup,
        ratio_cell(comparison.cpu_mem_reduction_x, intervals.cpu_mem_reduction_x),
        ratio_cell(comparison.gpu_alloc_reduction_x, intervals.gpu_alloc_reduction_x),
        ratio_cell(comparison.gpu_reserved_reduction_x, intervals.gpu_reserved_reduction_x),
        number(comparison.metric_delta, delta),
        match blocks {
            Some(blocks) => whole(blocks),
            None => number(comparison.speedup_lazy_vs_eager.map(|_| 1.0), |one| {
                one.map_or_else(|| NONE.to_owned(), |_| "1".to_owned())
            }),
        },
        basis([
            intervals.speedup_lazy_vs_eager,
            intervals.cpu_mem_reduction_x,
            intervals.gpu_alloc_reduction_x,
            intervals.gpu_reserved_reduction_x,
        ]),
    ]
}

/// `eager: oom` if a method failed, so that there is no ratio.
fn failed_methods(cell: &Cell, method: Method) -> String {
    let failed = |method: Method| {
        let figures = cell.method(method).filter(|figures| figures.never_succeeded())?;
        figures.failure.as_ref().map(|(status, _)| format!("{method}: {status}"))
    };
    let failures: Vec<String> = [Method::Eager, method].into_iter().filter_map(failed).collect();
    if failures.is_empty() { NONE.to_owned() } else { failures.join(", ") }
}

/// A difference of metrics with its sign, without a sign if it rounds to 0.
fn delta(value: Option<f64>) -> String {
    value.map_or_else(
        || NONE.to_owned(),
        |value| if value.abs() < 5e-5 { "0.0000".to_owned() } else { format!("{value:+.4}") },
    )
}

/// `sweep, lazy compared with eager in 4 runs (93.8 % intervals, 5 blocks; 1 without an interval): faster in 4 (1.58x to
/// 3.10x); ...`, for each workload and mode.
pub(super) fn conclusions(cells: &[Cell]) -> Vec<String> {
    let mut sentences = Vec::new();
    for task in [Task::Train, Task::Sweep] {
        for method in [Method::Lazy, Method::LazyDisk] {
            let of_task = cells.iter().filter(|cell| cell.setting.task == task);
            let compared: Vec<(&Cell, &Comparison)> =
                of_task.filter_map(|cell| Some((cell, cell.comparison(method)?))).collect();
            if !compared.is_empty() {
                let intervals = compared.iter().flat_map(|(_, comparison)| {
                    [comparison.intervals.speedup_lazy_vs_eager, comparison.intervals.cpu_mem_reduction_x]
                });
                let n_without = compared.iter().filter(|(_, comparison)| comparison.lacks_interval()).count();
                let basis = match IntervalBasis::of(intervals.flatten()) {
                    Some(basis) => format!(" ({})", basis.and_without(n_without)),
                    None if n_without > 0 => " (no intervals)".to_owned(),
                    None => String::new(),
                };
                sentences.push(format!(
                    "{task}, {method} compared with eager in {}{basis}: {}; {}{}.",
                    plural(compared.len(), "run"),
                    outcome(&compared, ComparedQuantity::Time, "faster", "slower", "time"),
                    outcome(&compared, ComparedQuantity::CpuMemory, "less memory", "more memory", "memory"),
                    failures(&compared, method),
                ));
            }
        }
    }
    sentences
}

/// `faster in 2 (1.58x to 3.10x), same time within 2 % in 1, no difference in time shown in 1`.
fn outcome(
    compared: &[(&Cell, &Comparison)],
    measure: ComparedQuantity,
    better: &str,
    worse: &str,
    quantity: &str,
) -> String {
    let (mut gains, mut losses, mut same, mut open) = (Vec::new(), Vec::new(), 0, 0);
    for (_, comparison) in compared {
        match measure.ratio(comparison) {
            Some((_, Some(interval))) if interval.shows_the_same() => same += 1,
            Some((_, Some(interval))) if interval.contains_one() => open += 1,
            Some((ratio, _)) if is_same(ratio) => same += 1,
            Some((ratio, _)) if ratio > 1.0 => gains.push(ratio),
            Some((ratio, _)) => losses.push(1.0 / ratio),
            None => {}
        }
    }
    let range = |ratios: &[f64]| {
        let (low, high) = ratios.iter().fold((f64::INFINITY, 0.0_f64), |(low, high), it| (low.min(*it), high.max(*it)));
        if ratios.len() == 1 { format!("{low:.2}x") } else { format!("{low:.2}x to {high:.2}x") }
    };
    let mut parts = Vec::new();
    for (ratios, word) in [(gains, better), (losses, worse)] {
        if !ratios.is_empty() {
            parts.push(format!("{word} in {} ({})", ratios.len(), range(&ratios)));
        }
    }
    if same > 0 {
        parts.push(format!("same {quantity} within 2 % in {same}"));
    }
    if open > 0 {
        parts.push(format!("no difference in {quantity} shown in {open}"));
    }
    if parts.is_empty() { format!("{quantity} not measured") } else { parts.join(", ") }
}

fn failures(compared: &[(&Cell, &Comparison)], method: Method) -> String {
    let failed = |method: Method| {
        let never = compared.iter().filter(|(cell, _)| cell.method(method).is_some_and(MethodFigures::never_succeeded));
        match never.count() {
            0 => String::new(),
            n => format!("; {method} never completed in {n}"),
        }
    };
    failed(Method::Eager) + &failed(method)
}

/// `1 run`, `2 runs`.
pub(super) fn plural(n: usize, noun: &str) -> String {
    if n == 1 { format!("1 {noun}") } else { format!("{n} {noun}s") }
}
