//! A history as tables: the series in it, and where they change.

use super::chart::Chart;
use super::compare::shown_as;
use super::document::{Table, number_cell, text_cell, whole_cell};
use crate::gate::Metric;
use crate::history::{Entry, Series};
use crate::stats::change_points::FEWEST;

/// The runs, by date.
pub fn runs_table(entries: &[Entry]) -> Table {
    let mut table =
        Table::new("", &["run", "begun", "commit", "machine", "build", "model", "#samples", "#observations"]);
    for entry in entries {
        let (environment, config) = (&entry.results.environment, &entry.results.config);
        let key = crate::history::SeriesKey::of(&entry.results);
        table.push(vec![
            text_cell(&entry.name),
            text_cell(&environment.date),
            text_cell(entry.label()),
            text_cell(&key.machine[..8]),
            text_cell(&key.build[..8]),
            text_cell(config.model.as_deref().unwrap_or("embedded")),
            whole_cell(config.samples),
            whole_cell(entry.results.rows.len()),
        ]);
    }
    table
}

/// A line a series.
pub fn series_table(series: &[Series]) -> Table {
    let heads = ["machine", "work", "case", "metric", "#runs", "#latest", "#changes", "#runs since"];
    let mut table = Table::new("", &heads);
    for it in series {
        table.push(vec![
            text_cell(&it.key.machine[..8]),
            text_cell(&it.key.work[..8]),
            text_cell(it.case),
            text_cell(named(it.metric)),
            whole_cell(it.points.len()),
            number_cell(it.points.last().map(|point| point.median), shown_as(it.metric)),
            whole_cell(it.changes.len()),
            whole_cell(it.current().len()),
        ]);
    }
    table
}

/// A line a change, the latest first.
pub fn changes_table(series: &[Series]) -> Table {
    let mut table = Table::new("", &["case", "metric", "first run", "commit", "#before", "#after", "#change"]);
    let mut rows: Vec<(String, Vec<_>)> = Vec::new();
    for it in series {
        for change in &it.changes {
            let Some(point) = it.points.get(change.index) else { continue };
            let (before, after) = it.levels(change.index);
            let show = shown_as(it.metric);
            rows.push((
                point.date.clone(),
                vec![
                    text_cell(it.case),
                    text_cell(named(it.metric)),
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

/// The metric with its unit.
pub fn named(metric: Metric) -> String {
    match metric.unit() {
        "" => metric.to_string(),
        unit => format!("{metric}, {unit}"),
    }
}

/// What must be said of series in which no change can be found yet.
pub fn too_short(series: &[Series]) -> Option<String> {
    let short = series.iter().filter(|it| it.points.len() < FEWEST).count();
    (short > 0).then(|| {
        format!(
            "{short} of {} series have fewer than {FEWEST} runs, too few for a change to be told from chance",
            series.len()
        )
    })
}

/// The page beside the charts.
pub fn series_page(entries: &[Entry], series: &[Series], charts: &[Chart]) -> String {
    let mut text = format!("# Figures over commits\n\n{} runs. ", entries.len());
    text.push_str(&too_short(series).map_or_else(String::new, |sentence| format!("{}.", capitalised(&sentence))));
    text.push_str("\n\n## Changes\n\n");
    text.push_str(&markdown_table(&changes_table(series)));
    for chart in charts {
        text.push_str(&format!(
            "\n## {}\n\n![{}]({}.svg)\n\n{}\n",
            chart.title, chart.title, chart.name, chart.description
        ));
    }
    text.push_str("\n## Series\n\n");
    text.push_str(&markdown_table(&series_table(series)));
    text.push_str("\n## Runs\n\n");
    text.push_str(&markdown_table(&runs_table(entries)));
    text
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// A table as GitHub's Markdown.
pub fn markdown_table(table: &Table) -> String {
    if table.rows.is_empty() {
        return "None.\n".to_owned();
    }
    // A bar would end the cell, and a name from a file could hold markup.
    let cell = |text: &str| text.replace('|', "\\|").replace('<', "&lt;").replace(['\n', '\r'], " ");
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let mut text = line(table.columns.iter().map(|head| cell(head)).collect());
    let rules = table.numeric.iter().map(|numeric| if *numeric { "---:" } else { "---" }.to_owned());
    text.push_str(&line(rules.collect()));
    table.rows.iter().for_each(|row| text.push_str(&line(row.iter().map(|it| cell(&it.text)).collect())));
    text
}
