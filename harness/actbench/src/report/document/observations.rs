//! The observations of each workload: time breakdown, memory, agreement of the metrics, ablation.

use serde::Serialize;

use super::summary::plural;
use super::tables::{NONE, Table, TableCell, basis, figure, number, percent, ratio_cell, text, whole};
use crate::case::{CasePhases, Method, Task, start_up_share};
use crate::crossover::{Cell, MethodFigures};
use crate::report::format::{mebibytes, metric, seconds};
use crate::report::sentence::sentence;
use crate::results::NamedResults;
use crate::results::ablation::Ratio;

/// The observations of one workload.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WorkloadPart {
    /// `train` or `sweep`.
    pub name: String,
    /// One sentence per run and lazy mode.
    pub sentences: Vec<String>,
    /// Seconds of each part, by run and mode.
    pub time: Table,
    /// The part that takes most of the time, by mode.
    pub bottlenecks: Vec<String>,
    /// Seconds of the phases of a case's process, by run and mode; no rows if the files have none.
    pub phases: Table,
    /// Peaks, by run and mode.
    pub memory: Table,
    /// Metrics, by run and mode.
    pub parity: Table,
    /// The agreement of metrics and features in one sentence.
    pub parity_sentence: String,
    /// The effect of each optimizer rule; no rows if it was not measured.
    pub ablation: Table,
}

/// Every workload that was run.
pub(super) fn workloads(files: &[NamedResults], cells: &[Cell]) -> Vec<WorkloadPart> {
    let tasks = [Task::Train, Task::Sweep].into_iter();
    tasks
        .filter_map(|task| {
            let cells: Vec<&Cell> = cells.iter().filter(|cell| cell.setting.task == task).collect();
            (!cells.is_empty()).then(|| WorkloadPart {
                name: task.to_string(),
                sentences: sentences(files, task),
                time: time(&cells),
                bottlenecks: bottlenecks(&cells),
                phases: phases(&cells),
                memory: memory(&cells),
                parity: parity(&cells),
                parity_sentence: parity_sentence(&cells),
                ablation: ablation(&cells),
            })
        })
        .collect()
}

/// `results.json: train: lazy was ...`; with several files only, the name of the file.
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

const CELL_COLUMNS: [&str; 5] = ["run", "model", "#samples", "layers", "mode"];

/// The columns [`CELL_COLUMNS`] of a line.
fn cell_columns(cell: &Cell, method: &str) -> Vec<TableCell> {
    vec![
        text(&cell.run),
        text(&cell.setting.shown_model),
        whole(cell.samples),
        text(cell.setting.depth()),
        text(method),
    ]
}

/// A table with one line per cell and method.
fn by_method(
    caption: &str,
    heads: &[&str],
    cells: &[&Cell],
    line: fn(&Cell, &MethodFigures) -> Vec<TableCell>,
) -> Table {
    let mut table = Table::new(caption, &[&CELL_COLUMNS[..], heads].concat());
    for cell in cells {
        for figures in &cell.methods {
            table.push([cell_columns(cell, &figures.method.to_string()), line(cell, figures)].concat());
        }
    }
    table.concise(&[])
}

fn time(cells: &[&Cell]) -> Table {
    let heads = ["#time s", "#extract s", "#train+eval s", "#extraction, % of time", "completed", "intervals"];
    by_method("Medians of the repetitions, with the confidence interval of the center.", &heads, cells, |_, figures| {
        let intervals = [figures.elapsed_s, figures.extract_s, figures.train_eval_s].map(|it| it?.interval);
        vec![
            figure(figures.elapsed_s, seconds),
            figure(figures.extract_s, seconds),
            figure(figures.train_eval_s, seconds),
            percent(extraction_fraction(figures)),
            text(format!("{} of {}", figures.n_ok, figures.n)),
            basis(intervals),
        ]
    })
}

/// The median extraction time as a fraction of the median time.
fn extraction_fraction(figures: &MethodFigures) -> Option<f64> {
    let (extract, total) = (figures.extract_s?.median, figures.elapsed_s?.median);
    Some((extract / total).min(1.0))
}

/// `eager: extraction takes most of the time in 4 of 4 runs (88% to 97%).`
fn bottlenecks(cells: &[&Cell]) -> Vec<String> {
    let of_method = |method: Method| -> Option<String> {
        let fractions: Vec<f64> = cells.iter().filter_map(|cell| extraction_fraction(cell.method(method)?)).collect();
        let total = fractions.len();
        let (extraction, training): (Vec<f64>, Vec<f64>) = fractions.into_iter().partition(|fraction| *fraction >= 0.5);
        let training: Vec<f64> = training.iter().map(|fraction| 1.0 - fraction).collect();
        let part = |subject: &str, fractions: &[f64]| {
            let low = fractions.iter().copied().fold(1.0, f64::min);
            let high = fractions.iter().copied().fold(0.0, f64::max);
            let (low, high) = (format!("{:.0}%", 100.0 * low), format!("{:.0}%", 100.0 * high));
            let range = if low == high { low } else { format!("{low} to {high}") };
            (!fractions.is_empty()).then(|| {
                format!("{subject} most of the time in {} of {} ({range})", fractions.len(), plural(total, "run"))
            })
        };
        let parts: Vec<String> = [part("extraction takes", &extraction), part("training and scoring take", &training)]
            .into_iter()
            .flatten()
            .collect();
        (!parts.is_empty()).then(|| format!("{method}: {}.", parts.join(", ")))
    };
    [Method::Eager, Method::Lazy, Method::LazyDisk].into_iter().filter_map(of_method).collect()
}

fn phases(cells: &[&Cell]) -> Table {
    let heads = CasePhases::ALL.map(|(name, _)| format!("#{name} s"));
    let heads = CELL_COLUMNS.into_iter().chain(heads.iter().map(String::as_str)).chain(["#start-up %"]);
    let mut table = Table::new(
        "Medians of the repetitions, of the whole process of a case: from its start to the command (to 10 ms), data and tokens, the \
         driver's start, contexts and kernels of the GPUs, weights, the rest until the measurement, extraction, releasing the model, \
         probes. The time of a case covers extraction and probes, and the release on the CPU. Start-up is the part of the process \
         before the measurement.",
        &heads.collect::<Vec<&str>>(),
    );
    for cell in cells {
        for figures in cell.methods.iter().filter(|figures| figures.phases.iter().any(Option::is_some)) {
            let medians = figures.phases.iter().map(|median| number(*median, seconds));
            let percent = start_up_share(&figures.phases).map(|share| 100.0 * share);
            let share = number(percent, |share| share.map_or_else(|| NONE.to_owned(), |share| format!("{share:.0}")));
            table.push(
                cell_columns(cell, &figures.method.to_string()).into_iter().chain(medians).chain([share]).collect(),
            );
        }
    }
    table.concise(&[])
}

fn memory(cells: &[&Cell]) -> Table {
    let heads = ["#peak RSS MiB", "#peak heap MiB", "#GPU used MiB", "#GPU reserved MiB", "intervals"];
    let caption = "Peaks, medians of the repetitions, with the confidence interval of the center.";
    by_method(caption, &heads, cells, |_, figures| {
        let peaks = [
            figures.cpu_peak_rss_mb,
            figures.cpu_peak_heap_mb,
            figures.gpu_peak_alloc_mb,
            figures.gpu_peak_reserved_mb,
        ];
        vec![
            figure(figures.cpu_peak_rss_mb, mebibytes),
            figure(figures.cpu_peak_heap_mb, mebibytes),
            figure(figures.gpu_peak_alloc_mb, mebibytes),
            figure(figures.gpu_peak_reserved_mb, mebibytes),
            basis(peaks.map(|it| it?.interval)),
        ]
    })
}

fn parity(cells: &[&Cell]) -> Table {
    let heads = ["#metric", "features"];
    by_method("AUROC (train) or mean AUROC (sweep).", &heads, cells, |cell, figures| {
        let features = match cell.digests_agree.filter(|_| figures.n_ok > 0) {
            Some(true) => "bit-identical in all modes",
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
        "{metrics}; the features are bit-identical in {agreed} of {} that could be compared.",
        plural(digests.len(), "run")
    )
}

fn ablation(cells: &[&Cell]) -> Table {
    let heads = [
        &CELL_COLUMNS[..],
        &[
            "rules",
            "#time s",
            "#time vs full",
            "#extraction vs full",
            "#memory vs full",
            "#tokens computed",
            "#GFLOP",
            "intervals",
        ],
    ];
    let mut table = Table::new(
        "vs full: the plan without the rule / the full plan in the same block; above 1 the rule saves time or memory.",
        &heads.concat(),
    );
    let vs_full = |value: Option<Ratio>| ratio_cell(value.map(|it| it.estimate), value.and_then(|it| it.interval));
    for cell in cells {
        for effect in &cell.ablation {
            let rules = effect.without.as_ref().map_or_else(|| "full".to_owned(), |rule| format!("without {rule}"));
            let own = vec![
                text(rules),
                number(effect.elapsed_s, seconds),
                vs_full(effect.time),
                vs_full(effect.extract),
                vs_full(effect.memory),
                effect
                    .tokens_computed
                    .map_or_else(|| text(NONE), |tokens| whole(usize::try_from(tokens).unwrap_or(usize::MAX))),
                number(effect.flops.map(|flops| flops as f64 / 1e9), |gflop| {
                    gflop.map_or_else(|| NONE.to_owned(), |gflop| format!("{gflop:.1}"))
                }),
                basis([effect.time, effect.extract, effect.memory].map(|it| it?.interval)),
            ];
            table.push([cell_columns(cell, &effect.method.to_string()), own].concat());
        }
    }
    table.concise(&[])
}
