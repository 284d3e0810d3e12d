//! A history as tables: the series in it, and where they change.

use std::collections::BTreeMap;

use super::chart::Chart;
use super::document::{Table, number_cell, text_cell, whole_cell};
use crate::gate_adapter::figures::series_key;
use crate::gate_adapter::{HistoryEntry, TaskMethod};
use pairgate::export::format::{counted, markdown_table, metric_format, metric_with_unit};
use pairgate::history::FigureSeries;
use pairgate::stats::change_points::{MIN_SERIES, n_undecidable, needed_after};

/// The runs, by date.
pub fn runs_table(entries: &[HistoryEntry]) -> Table {
    let mut table =
        Table::new("", &["run", "begun", "commit", "machine", "build", "model", "#samples", "#observations"]);
    for entry in entries {
        let (environment, config) = (&entry.results.environment, &entry.results.config);
        let key = series_key(&entry.results);
        table.push(vec![
            text_cell(&entry.name),
            text_cell(&environment.date),
            text_cell(entry.label()),
            text_cell(&key.machine[..8]),
            text_cell(&key.build[..8]),
            text_cell(config.model_name()),
            whole_cell(config.samples),
            whole_cell(entry.results.rows.len()),
        ]);
    }
    table
}

/// A line for each series.
pub fn series_table(series: &[FigureSeries<TaskMethod>]) -> Table {
    let heads = ["machine", "work", "case", "metric", "#runs", "#latest", "#changes", "#runs since"];
    let mut table = Table::new("", &heads);
    for one in series {
        table.push(vec![
            text_cell(&one.key.machine[..8]),
            text_cell(&one.key.work[..8]),
            text_cell(one.case),
            text_cell(metric_with_unit(one.metric)),
            whole_cell(one.points.len()),
            number_cell(one.points.last().map(|point| point.median), metric_format(one.metric)),
            whole_cell(one.changes.len()),
            whole_cell(one.current().len()),
        ]);
    }
    table
}

/// A line for each change, the latest first.
pub fn changes_table(series: &[FigureSeries<TaskMethod>]) -> Table {
    let mut table = Table::new("", &["case", "metric", "first run", "commit", "#before", "#after", "#change"]);
    let mut rows: Vec<(String, Vec<_>)> = Vec::new();
    for one in series {
        for change in &one.changes {
            let Some(point) = one.points.get(change.index) else { continue };
            let (before, after) = one.levels(change.index);
            let show = metric_format(one.metric);
            rows.push((
                point.date.clone(),
                vec![
                    text_cell(one.case),
                    text_cell(metric_with_unit(one.metric)),
                    text_cell(&point.run),
                    text_cell(&point.label),
                    number_cell(Some(before), show),
                    number_cell(Some(after), show),
                    text_cell(format!("{:+.1}%", 100.0 * (after / before - 1.0))),
                ],
            ));
        }
    }
    rows.sort_by(|a, b| b.0.cmp(&a.0));
    rows.into_iter().for_each(|(_, row)| table.push(row));
    table
}

/// A sentence about series that are too short for change points.
pub fn short_series(series: &[FigureSeries<TaskMethod>]) -> Option<String> {
    let short = series.iter().filter(|one| one.points.len() < MIN_SERIES).count();
    (short > 0).then(|| {
        format!("{short} of {} series have fewer than {MIN_SERIES} runs, too few to detect a change", series.len())
    })
}

/// A line for all series of one length: the latest runs at which no change can be significant yet, and how many runs one needs.
pub fn undecided_runs(series: &[FigureSeries<TaskMethod>]) -> Vec<String> {
    let mut lengths: BTreeMap<usize, usize> = BTreeMap::new();
    for one in series.iter().filter(|one| one.points.len() >= MIN_SERIES) {
        *lengths.entry(one.current().len()).or_default() += 1;
    }
    let line = |(length, n_series): (usize, usize)| {
        let (latest, of_series) = (n_undecidable(length), format!("{n_series} of {} series", series.len()));
        let before = length - latest;
        match needed_after(before) {
            Some(needed) => format!(
                "{of_series}: the latest {} cannot be judged yet; with {} before it, a change needs at least {} from it on",
                counted(latest, "run"),
                counted(before, "run"),
                counted(needed, "run")
            ),
            None => format!(
                "{of_series}: the {} since the last change cannot be judged yet; {MIN_SERIES} are needed",
                counted(latest, "run")
            ),
        }
    };
    lengths.into_iter().map(line).collect()
}

/// The page that shows the charts.
pub fn series_page(entries: &[HistoryEntry], series: &[FigureSeries<TaskMethod>], charts: &[Chart]) -> String {
    let mut text = format!("# Figures over commits\n\n{}. ", counted(entries.len(), "run"));
    text.push_str(&short_series(series).map_or_else(String::new, |sentence| format!("{}.", capitalized(&sentence))));
    text.push_str("\n\n## Changes\n\n");
    text.push_str(&markdown(&changes_table(series)));
    for chart in charts {
        text.push_str(&format!(
            "\n## {}\n\n![{}]({}.svg)\n\n{}\n",
            chart.title, chart.title, chart.name, chart.description
        ));
    }
    text.push_str("\n## Series\n\n");
    text.push_str(&markdown(&series_table(series)));
    text.push_str("\n## Runs\n\n");
    text.push_str(&markdown(&runs_table(entries)));
    text
}

fn capitalized(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// A table as GitHub's Markdown.
fn markdown(table: &Table) -> String {
    let columns: Vec<&str> = table.columns.iter().map(String::as_str).collect();
    let rows: Vec<Vec<&str>> =
        table.rows.iter().map(|row| row.iter().map(|cell| cell.text.as_str()).collect()).collect();
    markdown_table(&columns, &table.numeric, &rows)
}
