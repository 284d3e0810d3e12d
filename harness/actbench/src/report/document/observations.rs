//! What was seen of each workload: where the time goes, what memory was taken, whether the metrics agree.

use serde::Serialize;

use super::summary::plural;
use super::tables::{NONE, Table, TableCell, figure, number, ratio_cell, share, text, whole};
use crate::case::{Method, Task};
use crate::crossover::{Cell, MethodFigures, NamedResults};
use crate::report::format::{megabytes, metric, seconds};
use crate::report::sentence::sentence;
use crate::results::ablation::Ratio;

/// One workload.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Workload {
    /// `train` or `sweep`.
    pub name: String,
    /// One sentence a run and lazy mode.
    pub sentences: Vec<String>,
    /// Seconds of each part, by run and mode.
    pub time: Table,
    /// Which part takes the largest share, by mode.
    pub bottlenecks: Vec<String>,
    /// Peaks, by run and mode.
    pub memory: Table,
    /// Metrics, by run and mode.
    pub parity: Table,
    /// What the metrics come to.
    pub parity_sentence: String,
    /// What each optimiser rule is worth; no rows where that was not measured.
    pub ablation: Table,
}

/// Each workload that was run.
pub(super) fn workloads(files: &[NamedResults], cells: &[Cell]) -> Vec<Workload> {
    let tasks = [Task::Train, Task::Sweep].into_iter();
    tasks
        .filter_map(|task| {
            let cells: Vec<&Cell> = cells.iter().filter(|cell| cell.setting.task == task).collect();
            (!cells.is_empty()).then(|| Workload {
                name: task.to_string(),
                sentences: sentences(files, task),
                time: time(&cells),
                bottlenecks: bottlenecks(&cells),
                memory: memory(&cells),
                parity: parity(&cells),
                parity_sentence: parity_sentence(&cells),
                ablation: ablation(&cells),
            })
        })
        .collect()
}

/// `results.json: train: lazy was ...`; the file's name only where there are several.
fn sentences(files: &[NamedResults], task: Task) -> Vec<String> {
    let mut sentences = Vec::new();
    for file in files.iter().filter(|file| file.results.config.tasks.contains(&task)) {
        let summary = file.results.task_summary(task);
        for (method, comparison) in summary.by_method() {
            if let Some(sentence) = sentence(task, method, comparison, &file.results.rows) {
                sentences.push(if files.len() == 1 { sentence } else { format!("{}: {sentence}", file.name) });
            }
        }
    }
    sentences
}

const PLACE: [&str; 5] = ["run", "model", "#samples", "layers", "mode"];

/// The cells that say where a line belongs, under the heads [`PLACE`].
fn place(cell: &Cell, method: &str) -> Vec<TableCell> {
    vec![text(&cell.run), text(&cell.setting.model), whole(cell.samples), text(cell.setting.depth()), text(method)]
}

/// A table with a line a cell and method.
fn by_method(
    caption: &str,
    heads: &[&str],
    cells: &[&Cell],
    line: fn(&Cell, &MethodFigures) -> Vec<TableCell>,
) -> Table {
    let mut table = Table::new(caption, &[&PLACE[..], heads].concat());
    for cell in cells {
        for figures in &cell.methods {
            table.push([place(cell, &figures.method.to_string()), line(cell, figures)].concat());
        }
    }
    table
}

fn time(cells: &[&Cell]) -> Table {
    let heads = ["#time s", "#extract s", "#train+eval s", "#extraction's share", "came through"];
    by_method("Medians of the repetitions with the interval of their centre.", &heads, cells, |_, figures| {
        vec![
            figure(figures.elapsed_s, seconds),
            figure(figures.extract_s, seconds),
            figure(figures.train_eval_s, seconds),
            share(extraction_share(figures)),
            text(format!("{} of {}", figures.n_ok, figures.n)),
        ]
    })
}

/// Of the median time, the share of the median extraction.
fn extraction_share(figures: &MethodFigures) -> Option<f64> {
    let (extract, total) = (figures.extract_s?.median, figures.elapsed_s?.median);
    Some((extract / total).min(1.0))
}

/// `eager: extraction takes the largest share in 4 of 4 runs (88% to 97%)`.
fn bottlenecks(cells: &[&Cell]) -> Vec<String> {
    let of_method = |method: Method| -> Option<String> {
        let shares: Vec<f64> = cells.iter().filter_map(|cell| extraction_share(cell.method(method)?)).collect();
        let total = shares.len();
        let (extraction, training): (Vec<f64>, Vec<f64>) = shares.into_iter().partition(|share| *share >= 0.5);
        let training: Vec<f64> = training.iter().map(|share| 1.0 - share).collect();
        let told = |name: &str, shares: &[f64]| {
            let low = shares.iter().copied().fold(1.0, f64::min);
            let high = shares.iter().copied().fold(0.0, f64::max);
            let range = match format!("{:.0}%", 100.0 * low) == format!("{:.0}%", 100.0 * high) {
                true => format!("{:.0}% of the time", 100.0 * low),
                false => format!("{:.0}% to {:.0}% of the time", 100.0 * low, 100.0 * high),
            };
            (!shares.is_empty()).then(|| format!("{name} in {} of {} ({range})", shares.len(), plural(total, "run")))
        };
        let parts: Vec<String> =
            [told("extraction", &extraction), told("training and scoring", &training)].into_iter().flatten().collect();
        (!parts.is_empty()).then(|| format!("{method}: the largest share is {}.", parts.join(", ")))
    };
    [Method::Eager, Method::Lazy, Method::LazyDisk].into_iter().filter_map(of_method).collect()
}

fn memory(cells: &[&Cell]) -> Table {
    let heads = ["#peak RSS MB", "#peak heap MB", "#GPU used MB", "#GPU reserved MB"];
    by_method("Peaks in MB of 2^20 bytes, medians of the repetitions.", &heads, cells, |_, figures| {
        vec![
            figure(figures.cpu_peak_rss_mb, megabytes),
            figure(figures.cpu_peak_heap_mb, megabytes),
            figure(figures.gpu_peak_alloc_mb, megabytes),
            figure(figures.gpu_peak_reserved_mb, megabytes),
        ]
    })
}

fn parity(cells: &[&Cell]) -> Table {
    let heads = ["#metric", "features"];
    by_method("AUROC (train) or mean AUROC (sweep).", &heads, cells, |cell, figures| {
        let features = match cell.digests_agree.filter(|_| figures.n_ok > 0) {
            Some(true) => "same bits in all modes",
            Some(false) => "DIFFER between modes",
            None => NONE,
        };
        vec![number(figures.metric, metric), text(features)]
    })
}

fn parity_sentence(cells: &[&Cell]) -> String {
    let deltas: Vec<f64> = cells
        .iter()
        .flat_map(|cell| &cell.comparisons)
        .filter_map(|(_, comparison)| comparison.metric_delta)
        .map(f64::abs)
        .collect();
    let digests: Vec<bool> = cells.iter().filter_map(|cell| cell.digests_agree).collect();
    let agreed = digests.iter().filter(|agree| **agree).count();
    let metrics = match deltas.iter().copied().reduce(f64::max) {
        Some(largest) => format!("The largest difference of the metric between lazy and eager is {largest:.4}"),
        None => "No metric can be compared".to_owned(),
    };
    format!(
        "{metrics}; the features have the same bits in {agreed} of {} that could be compared.",
        plural(digests.len(), "run")
    )
}

fn ablation(cells: &[&Cell]) -> Table {
    let heads = [
        &PLACE[..],
        &["rules", "#time s", "#time of full", "#extraction of full", "#memory of full", "#rows computed", "#GFLOP"],
    ];
    let mut table = Table::new(
        "Of full: the plan without the rule / the full plan in the same block; above 1 the rule pays.",
        &heads.concat(),
    );
    let of_full = |value: Option<Ratio>| ratio_cell(value.map(|it| it.estimate), value.and_then(|it| it.interval));
    for cell in cells {
        for worth in &cell.ablation {
            let rules = worth.without.as_ref().map_or_else(|| "full".to_owned(), |rule| format!("without {rule}"));
            let own = vec![
                text(rules),
                number(worth.elapsed_s, seconds),
                of_full(worth.time),
                of_full(worth.extract),
                of_full(worth.memory),
                worth
                    .tokens_computed
                    .map_or_else(|| text(NONE), |rows| whole(usize::try_from(rows).unwrap_or(usize::MAX))),
                number(worth.flops.map(|flops| flops as f64 / 1e9), |gflop| {
                    gflop.map_or_else(|| NONE.to_owned(), |gflop| format!("{gflop:.1}"))
                }),
            ];
            table.push([place(cell, &worth.method.to_string()), own].concat());
        }
    }
    table
}
