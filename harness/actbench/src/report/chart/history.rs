//! A metric over commits, with a line for each method and a vertical line at each change.

use super::Chart;
use super::axis::ChartAxis;
use super::canvas::{Marker, color, svg};
use super::xy::{ChartPoint, ChartSeries, SIZE, XyChart};
use crate::case::Task;
use crate::error::Result;
use crate::gate_adapter::TaskMethod;
use crate::report::document::{Table, number_cell, text_cell};
use pairgate::Metric;
use pairgate::export::format::{metric_format, metric_with_unit};
use pairgate::history::{FigureSeries, SeriesKey};

/// The largest number of commit names below the axis: more would be illegible.
const MAX_NAMES: usize = 8;

/// A chart for each machine, work, task and metric with more than one run.
pub fn charts(series: &[FigureSeries<TaskMethod>]) -> Result<Vec<Chart>> {
    let key =
        |it: &FigureSeries<TaskMethod>| -> (SeriesKey, Task, Metric) { (it.key.clone(), it.case.task, it.metric) };
    let mut long: Vec<&FigureSeries<TaskMethod>> = series.iter().filter(|it| it.points.len() > 1).collect();
    long.sort_by_key(|it| (key(it), it.case.method));
    let groups = long.chunk_by(|a, b| key(a) == key(b));
    groups.enumerate().map(|(index, group)| chart(index, group)).collect()
}

fn chart(index: usize, group: &[&FigureSeries<TaskMethod>]) -> Result<Chart> {
    // The runs of all methods by date: a run that a method lacks is a gap and not a shift.
    let mut runs: Vec<(&str, &str, &str)> = group
        .iter()
        .flat_map(|it| &it.points)
        .map(|it| (it.date.as_str(), it.run.as_str(), it.label.as_str()))
        .collect();
    runs.sort_unstable();
    runs.dedup();
    let position =
        |run: &str| runs.iter().position(|(_, other, _)| *other == run).map_or(0.0, |index| (index + 1) as f64);
    let lines: Vec<ChartSeries> = group
        .iter()
        .map(|it| ChartSeries {
            name: it.case.method.to_string(),
            color: color(it.case.method),
            marker: Marker::for_method(it.case.method),
            points: it
                .points
                .iter()
                .map(|point| ChartPoint { x: position(&point.run), y: point.median, ends: Some(point.ends) })
                .collect(),
            failures: Vec::new(),
        })
        .collect();
    let changed = group.iter().flat_map(|it| it.changes.iter().filter_map(|change| it.points.get(change.index)));
    let mut marks: Vec<f64> = changed.map(|point| position(&point.run) - 0.5).collect();
    marks.sort_by(f64::total_cmp);
    marks.dedup();
    let values = group.iter().flat_map(|it| &it.points).flat_map(|point| [point.ends.0, point.median, point.ends.1]);
    let step = runs.len().div_ceil(MAX_NAMES);
    // Counted from the last run, whose name must be shown.
    let names = runs.iter().enumerate().rev().step_by(step).map(|(index, run)| ((index + 1) as f64, run.2.to_owned()));
    let first = group[0];
    let xy = XyChart {
        x: ChartAxis::of_whole_numbers("commit", (1..=runs.len()).map(|run| run as f64)).with_names(names.collect()),
        y: ChartAxis::around(&metric_with_unit(first.metric), values),
        reference: None,
        marks,
        series: lines,
    };
    let title = format!("{} {} on {}", first.case.task, first.metric, &first.key.machine[..8]);
    let description =
        "Medians of runs by date, bars from the smallest to the largest observation; a vertical line is a change.";
    Ok(Chart {
        name: format!("history-{}-{}-{}", index + 1, first.case.task, first.metric),
        svg: svg(SIZE, &title, description, |area| xy.draw(area))?,
        description: description.to_owned(),
        table: table(group),
        title,
    })
}

fn table(group: &[&FigureSeries<TaskMethod>]) -> Table {
    let mut table =
        Table::new("", &["run", "commit", "mode", &format!("#{}", metric_with_unit(group[0].metric)), "change"]);
    for it in group {
        for (index, point) in it.points.iter().enumerate() {
            let changed = it.changes.iter().any(|change| change.index == index);
            table.push(vec![
                text_cell(&point.run),
                text_cell(&point.label),
                text_cell(it.case.method),
                number_cell(Some(point.median), metric_format(it.metric)),
                text_cell(if changed { "change" } else { "-" }),
            ]);
        }
    }
    table
}
