//! From which size on lazy is better, and the recommended mode, as tables and as plain text.

use comfy_table::{ContentArrangement, Table as TextTable};

use super::tables::{NONE, Table, TableCell, ratio_cell, text, whole};
use crate::crossover::Cell;
use crate::crossover::answer::{answers, count};
use crate::crossover::recommend::{Evidence, Recommendation, RunSize, SizeBounds, recommendations};
use crate::results::summary::Interval;
use pairgate::export::table_style;

/// One line per setting, lazy mode and measure.
pub fn crossover_table(cells: &[Cell]) -> Table {
    let mut table = Table::new(
        "Interpolated between the measured sizes, linear in the logarithms; the interval is where the intervals of the ratios cross 1.",
        &["task", "model", "setting", "mode", "measure", "sizes measured", "lazy is better"],
    );
    for answer in answers(cells) {
        let sizes: Vec<String> = answer.sizes.iter().map(|size| count(*size as f64)).collect();
        table.push(vec![
            text(answer.setting.task),
            text(&answer.setting.model),
            text(answer.setting.label()),
            text(answer.method),
            text(answer.measure),
            text(sizes.join(", ")),
            text(answer.text()),
        ]);
    }
    table
}

/// One line per device and size.
pub fn recommendation_table(recommendations: &[Recommendation], bounds: SizeBounds) -> Table {
    let mut table = Table::new(
        "The mode with the fewest failures, then the fastest; among modes within 5 % of its time, the one with the least memory.",
        &["device", "size", "samples", "mode", "why"],
    );
    for it in recommendations {
        table.push(vec![
            text(it.device),
            text(it.size),
            text(samples(it.size, bounds)),
            text(it.mode.map_or_else(|| NONE.to_owned(), |mode| mode.to_string())),
            text(&it.why),
        ]);
    }
    table
}

/// The rows on which the recommendations rest.
pub fn evidence_table(recommendations: &[Recommendation]) -> Table {
    let mut table = Table::new(
        "Ratios are eager / lazy. Memory is the GPU's where there is one, else resident memory.",
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
        text(&row.model),
        whole(row.samples),
        text(&row.depth),
        text(&row.pool),
        text(row.method),
        ratio(row.time),
        ratio(row.memory),
        text(row.failure.map_or_else(|| NONE.to_owned(), |(method, status)| format!("{method}: {status}"))),
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

/// The three tables as plain text, the output of `actbench recommend`.
pub fn recommendation_text(cells: &[Cell], bounds: SizeBounds) -> String {
    let found = recommendations(cells, bounds);
    let part = |table: &Table| format!("{}{}\n", text_table(table), table.caption);
    let tables =
        [part(&recommendation_table(&found, bounds)), part(&evidence_table(&found)), part(&crossover_table(cells))];
    tables.join("\n") + &identity_note(cells).map_or_else(String::new, |note| format!("{note}\n"))
}

/// A table as text: numbers aligned to the right, empty columns left out.
pub fn text_table(table: &Table) -> String {
    let table = table.clone().without_empty_columns();
    let mut shown = TextTable::new();
    shown.load_style(table_style()).set_content_arrangement(ContentArrangement::Disabled).set_header(&table.columns);
    for row in &table.rows {
        shown.add_row(row.iter().map(|cell| &cell.text));
    }
    for (column, numeric) in shown.column_iter_mut().zip(&table.numeric) {
        if *numeric {
            column.set_cell_alignment(comfy_table::CellAlignment::Right);
        }
    }
    format!("{}\n", shown.trim_fmt())
}
