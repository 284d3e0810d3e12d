//! From which size on lazy is better, and the recommended mode, as tables and as plain text.

use comfy_table::Table as TextTable;

use super::origin::warnings_of;
use super::tables::{NONE, Table, TableCell, basis, ratio_cell, text, whole};
use crate::case::Task;
use crate::crossover::answer::{answers, count};
use crate::crossover::recommend::{Evidence, Recommendation, RunSize, SizeBounds, recommendations};
use crate::crossover::{Cell, DeviceClass, Setting, cells_of};
use crate::report::fit::fitted;
use crate::results::NamedResults;
use crate::results::choice::RULE;
use crate::results::interval::Interval;
use pairgate::export::table_style;

/// A column of a setting: its head and its cell.
type SettingColumn = (&'static str, fn(&Setting) -> TableCell);

/// One line per setting, lazy mode and measure.
pub fn crossover_table(cells: &[Cell]) -> Table {
    let settings: [SettingColumn; 3] = [
        ("task", |setting| text(setting.task)),
        ("model", |setting| text(&setting.shown_model)),
        ("setting", |setting| text(setting.full_label())),
    ];
    crossovers(cells, &settings)
}

/// The same with one column for what distinguishes the settings.
pub(super) fn concise_crossover(cells: &[Cell]) -> Table {
    crossovers(cells, &[("setting", |setting| text(setting.label()))])
}

fn crossovers(cells: &[Cell], settings: &[SettingColumn]) -> Table {
    let heads = settings.iter().map(|(head, _)| *head);
    let own = ["mode", "measure", "sizes measured", "lazy is better", "intervals"];
    let mut table = Table::new(
        "Interpolated between the measured sizes, linear in the logarithms; the interval is where the intervals of the ratios cross 1.",
        &heads.chain(own).collect::<Vec<_>>(),
    );
    for answer in answers(cells) {
        let sizes: Vec<String> = answer.sizes.iter().map(|size| count(*size as f64)).collect();
        let own = [
            text(answer.method),
            text(answer.measure),
            text(sizes.join(", ")),
            text(answer.text()),
            text(answer.basis.map_or_else(|| NONE.to_owned(), |basis| basis.short())),
        ];
        table.push(settings.iter().map(|(_, cell)| cell(&answer.setting)).chain(own).collect());
    }
    table
}

/// One line per workload, setting, size and device that was measured. The settings have a column if there are several.
pub fn recommendation_table(recommendations: &[Recommendation], bounds: SizeBounds) -> Table {
    let mut table = Table::new(RULE, &["task", "setting", "mode", "size", "samples", "device", "why", "based on"]);
    for it in recommendations {
        table.push(vec![
            text(it.task),
            text(if it.setting.is_empty() { NONE } else { it.setting.as_str() }),
            text(it.mode.map_or_else(|| NONE.to_owned(), |mode| mode.to_string())),
            text(it.size),
            text(samples(it.size, bounds)),
            text(it.device),
            text(&it.why),
            text(&it.based_on),
        ]);
    }
    let is_one_setting = recommendations.iter().all(|it| it.setting.is_empty());
    if is_one_setting { table.without_column("setting") } else { table }
}

/// The sizes without measurements on the devices that have some: `Not measured: train on CPU, large (from 10,000 samples).`;
/// none if all sizes were measured.
pub(super) fn not_measured(recommendations: &[Recommendation], bounds: SizeBounds) -> Option<String> {
    let mut measured: Vec<(DeviceClass, Task)> = recommendations.iter().map(|it| (it.device, it.task)).collect();
    measured.dedup();
    if measured.is_empty() {
        return Some("Nothing was measured with both eager and a lazy mode, so no mode is recommended.".to_owned());
    }
    let missing = |(device, task): (DeviceClass, Task)| {
        let is_missing =
            |size: &RunSize| !recommendations.iter().any(|it| (it.device, it.task, it.size) == (device, task, *size));
        let sizes: Vec<String> = RunSize::ALL
            .into_iter()
            .filter(is_missing)
            .map(|it| format!("{it} ({} samples)", samples(it, bounds)))
            .collect();
        (!sizes.is_empty()).then(|| format!("{task} on {device}, {}", sizes.join(" and ")))
    };
    let parts: Vec<String> = measured.into_iter().filter_map(missing).collect();
    (!parts.is_empty()).then(|| format!("Not measured: {}.", parts.join("; ")))
}

/// [`evidence_table`] without the settings that all rows share.
pub(super) fn concise_evidence(recommendations: &[Recommendation]) -> Table {
    evidence_table(recommendations).concise(&["pool", "device"])
}

/// The rows on which the recommendations rest.
pub fn evidence_table(recommendations: &[Recommendation]) -> Table {
    let mut table = Table::new(
        "Ratios are eager / the row's mode. Memory is the GPU's where there is one, else resident memory.",
        &[
            "device",
            "size",
            "run",
            "task",
            "model",
            "#samples",
            "layers",
            "pool",
            "mode",
            "#speed-up",
            "#memory reduction",
            "failed",
            "intervals",
        ],
    );
    for recommendation in recommendations {
        for row in &recommendation.evidence {
            table.push(evidence_line(recommendation, row));
        }
    }
    table
}

fn samples(size: RunSize, bounds: SizeBounds) -> String {
    let (medium, large) = (count(bounds.medium_from as f64), count(bounds.large_from as f64));
    match size {
        RunSize::Small => format!("below {medium}"),
        RunSize::Medium => format!("{medium} to {large}"),
        RunSize::Large => format!("from {large}"),
    }
}

fn evidence_line(recommendation: &Recommendation, row: &Evidence) -> Vec<TableCell> {
    let ratio = |value: Option<(f64, Option<Interval>)>| {
        ratio_cell(value.map(|(ratio, _)| ratio), value.and_then(|(_, interval)| interval))
    };
    vec![
        text(recommendation.device),
        text(recommendation.size),
        text(&row.run),
        text(row.task),
        text(&row.shown_model),
        whole(row.samples),
        text(&row.depth),
        text(&row.pool),
        text(row.method),
        ratio(row.time),
        ratio(row.memory),
        text(row.failure.map_or_else(|| NONE.to_owned(), |(method, status)| format!("{method}: {status}"))),
        basis([row.time, row.memory].map(|it| it?.1)),
    ]
}

/// A note on result files without digests, whose data and model are identified by their names; none if all have them.
fn identity_note(cells: &[Cell]) -> Option<String> {
    let mut runs: Vec<&str> =
        cells.iter().filter(|cell| cell.setting.data.is_empty()).map(|cell| cell.run.as_str()).collect();
    runs.sort_unstable();
    runs.dedup();
    (!runs.is_empty()).then(|| {
        format!(
            "note: {} result files have no digests of data and model; their runs are taken for the same work if the names are equal",
            runs.len()
        )
    })
}

/// The three tables as plain text, the output of `actbench recommend`, in lines of at most `width` columns.
pub fn recommendation_text(files: &[NamedResults], bounds: SizeBounds, width: Option<u16>) -> String {
    let cells = cells_of(files);
    let found = recommendations(&cells, bounds);
    let part = |table: &Table| format!("{}{}\n", text_table(table, width), table.caption);
    let mut text = part(&recommendation_table(&found, bounds));
    let notes = not_measured(&found, bounds).into_iter().chain(warnings_of(files));
    text.extend(notes.chain(identity_note(&cells)).map(|note| format!("{note}\n")));
    if !found.is_empty() {
        let shared = cells.first().and_then(|cell| cell.setting.shared_label());
        let shared = shared.map_or_else(String::new, |shared| format!("All runs: {shared}.\n"));
        text += &format!("{shared}\n{}\n{}", part(&concise_evidence(&found)), part(&concise_crossover(&cells)));
    }
    text
}

/// A table as text in lines of at most `width` columns: numbers aligned to the right, empty columns left out.
pub fn text_table(table: &Table, width: Option<u16>) -> String {
    let table = table.clone().without_empty_columns();
    let mut shown = TextTable::new();
    shown.load_style(table_style()).set_header(&table.columns);
    for row in &table.rows {
        shown.add_row(row.iter().map(|cell| &cell.text));
    }
    for (column, numeric) in shown.column_iter_mut().zip(&table.numeric) {
        if *numeric {
            column.set_cell_alignment(comfy_table::CellAlignment::Right);
        }
    }
    fitted(shown, width)
}
