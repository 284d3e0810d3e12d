//! Where lazy begins to win and which mode to take, as tables and as plain text.

use std::fmt::Write as _;

use comfy_table::{ContentArrangement, Table as TextTable};

use super::RecommendationPart;
use super::tables::{NONE, Table, TableCell, ratio_cell, text, whole};
use crate::crossover::Cell;
use crate::crossover::answer::{answers, count};
use crate::crossover::recommend::{Evidence, Recommendation, Size, SizeBounds, recommendations};
use crate::report::table::style;
use crate::results::summary::Interval;

/// A line a setting, lazy mode and measure.
pub fn crossover_table(cells: &[Cell]) -> Table {
    let mut table = Table::new(
        "Interpolated between the sizes tried, linear in the logarithms; the interval is where those of the ratios cross 1.",
        &["task", "model", "setting", "mode", "measure", "sizes tried", "lazy wins"],
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

/// The recommendations of each device with anything measured on it, or of the CPU and GPUs alike where nothing was.
pub fn recommendation_parts(cells: &[Cell], bounds: SizeBounds) -> Vec<RecommendationPart> {
    recommendations(cells, bounds)
        .chunk_by(|a, b| a.device == b.device)
        .map(|of_device| {
            let mut table = Table::new("", &["size", "samples", "mode", "why"]);
            let mut evidence = Table::new(
                "Ratios are eager / lazy. Memory is the GPU's where there is one, else resident memory.",
                &[
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
            for recommendation in of_device {
                table.push(vec![
                    text(recommendation.size),
                    text(samples(recommendation.size, bounds)),
                    text(recommendation.mode.map_or_else(|| NONE.to_owned(), |mode| mode.to_string())),
                    text(&recommendation.why),
                ]);
                for row in &recommendation.evidence {
                    evidence.push(evidence_line(recommendation, row));
                }
            }
            RecommendationPart { device: of_device[0].device.to_string(), table, evidence }
        })
        .collect()
}

fn samples(size: Size, bounds: SizeBounds) -> String {
    let (medium, large) = (count(bounds.medium_from as f64), count(bounds.large_from as f64));
    match size {
        Size::Small => format!("below {medium}"),
        Size::Medium => format!("{medium} to {large}"),
        Size::Large => format!("from {large}"),
    }
}

fn evidence_line(recommendation: &Recommendation, row: &Evidence) -> Vec<TableCell> {
    let ratio = |value: Option<(f64, Option<Interval>)>| {
        ratio_cell(value.map(|(ratio, _)| ratio), value.and_then(|(_, interval)| interval))
    };
    vec![
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

/// All of it as plain text, as `actbench recommend` prints it.
pub fn recommendation_text(cells: &[Cell], bounds: SizeBounds) -> String {
    let mut told = String::new();
    let parts = recommendation_parts(cells, bounds);
    for part in &parts {
        // Writing to a string cannot fail.
        let _ = writeln!(told, "{}\n{}", part.device, text_table(&part.table));
        if !part.evidence.rows.is_empty() {
            let _ = writeln!(told, "evidence, {} (eager / lazy)\n{}", part.device, text_table(&part.evidence));
        }
    }
    let _ = write!(told, "where lazy begins to win\n{}", text_table(&crossover_table(cells)));
    told
}

/// A table as text, numbers to the right, columns with nothing in them left out.
pub fn text_table(table: &Table) -> String {
    let table = table.clone().without_empty_columns();
    let mut shown = TextTable::new();
    shown.load_style(style()).set_content_arrangement(ContentArrangement::Disabled).set_header(&table.columns);
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
