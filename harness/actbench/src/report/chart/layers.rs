//! Speed-up and memory reduction against layers, for each lazy mode.

use plotters::style::RGBColor;

use super::axis::ChartAxis;
use super::canvas::{CPU_MEMORY, GPU_MEMORY, Marker, TIME, svg};
use super::xy::{ChartPoint, ChartSeries, SIZE, XyChart};
use super::{Chart, bars, varying};
use crate::case::{Method, Task};
use crate::crossover::answer::{ComparedQuantity, count};
use crate::crossover::{Cell, Setting};
use crate::error::Result;
use crate::report::document::{Table, ratio_cell, text_cell, whole_cell};

/// One chart per setting without its layers, and number of samples.
pub(super) fn charts(cells: &[Cell]) -> Result<Vec<Chart>> {
    // If one side never completed, there is no ratio to draw.
    let compared = cells.iter().filter(|cell| {
        cell.comparisons.iter().any(|(_, comparison)| MEASURES.iter().any(|(it, ..)| it.ratio(comparison).is_some()))
    });
    let key = |cell: &Cell| (Setting { layers: 0, ..cell.setting.clone() }, cell.samples);
    let mut groups: Vec<Vec<&Cell>> = Vec::new();
    for cell in compared {
        match groups.iter_mut().find(|group| key(group[0]) == key(cell)) {
            Some(group) => match group.iter_mut().find(|other| other.setting.layers == cell.setting.layers) {
                // The latest of several runs with the same layers counts.
                Some(other) if other.date < cell.date => *other = cell,
                Some(_) => {}
                None => group.push(cell),
            },
            None => groups.push(vec![cell]),
        }
    }
    let groups = varying(groups, |cell| cell.setting.layers);
    groups.iter().enumerate().map(|(index, group)| chart(index, group)).collect()
}

/// Each measure has a color of its own; markers distinguish the modes.
const MEASURES: [(ComparedQuantity, &str, RGBColor); 3] = [
    (ComparedQuantity::Time, "time", TIME),
    (ComparedQuantity::CpuMemory, "CPU memory", CPU_MEMORY),
    (ComparedQuantity::GpuMemory, "GPU memory", GPU_MEMORY),
];

fn chart(index: usize, group: &[&Cell]) -> Result<Chart> {
    let methods: Vec<Method> = [Method::Lazy, Method::LazyDisk]
        .into_iter()
        .filter(|method| group.iter().any(|cell| cell.comparison(*method).is_some()))
        .collect();
    let mut series = Vec::new();
    for method in &methods {
        for (measure, name, color) in MEASURES {
            let points: Vec<ChartPoint> = group.iter().filter_map(|cell| point(cell, *method, measure)).collect();
            if !points.is_empty() {
                let marker = Marker::for_method(*method);
                let name = if methods.len() > 1 { format!("{method} {name}") } else { name.to_owned() };
                series.push(ChartSeries { name, color, marker, points, failures: Vec::new() });
            }
        }
    }
    let heights = series.iter().flat_map(|it| &it.points).flat_map(|point| {
        let (low, high) = point.ends.unwrap_or((point.y, point.y));
        [point.y, low, high]
    });
    let label = match group[0].setting.task {
        Task::Train => "layer",
        Task::Sweep => "layers",
    };
    let xy = XyChart {
        x: ChartAxis::of_whole_numbers(label, group.iter().map(|cell| cell.setting.layers as f64)),
        y: ChartAxis::logarithmic("eager / lazy", heights.chain([1.0])),
        reference: Some(1.0),
        marks: Vec::new(),
        series,
    };
    let samples = group[0].samples;
    let title = format!("Eager / lazy: {}, {} samples", group[0].setting.label_without_layers(), count(samples as f64));
    let ratios = group
        .iter()
        .flat_map(|cell| &cell.comparisons)
        .flat_map(|(_, comparison)| MEASURES.iter().filter_map(|(measure, ..)| Some(measure.ratio(comparison)?.1)));
    let bars = bars(ratios);
    let description = format!("Above the line at 1 lazy is better. The vertical axis is logarithmic; {bars}.");
    Ok(Chart {
        name: format!("ratios-against-layers-{}", index + 1),
        svg: svg(SIZE, &title, &description, |area| xy.draw(area))?,
        description,
        table: table(group, label),
        title,
    })
}

fn point(cell: &Cell, method: Method, measure: ComparedQuantity) -> Option<ChartPoint> {
    let (ratio, interval) = measure.ratio(cell.comparison(method)?)?;
    let ends = interval.map(|interval| (interval.low, interval.high));
    Some(ChartPoint { x: cell.setting.layers as f64, y: ratio, ends })
}

fn table(group: &[&Cell], label: &str) -> Table {
    let heads = [&format!("#{label}"), "mode", "#speed-up", "#CPU memory reduction", "#GPU memory reduction"];
    let mut table = Table::new("", &heads);
    for cell in group {
        for (method, comparison) in &cell.comparisons {
            let ratio = |measure: ComparedQuantity| {
                let found = measure.ratio(comparison);
                ratio_cell(found.map(|(ratio, _)| ratio), found.and_then(|(_, interval)| interval))
            };
            let mut line = vec![whole_cell(cell.setting.layers), text_cell(method)];
            line.extend([ComparedQuantity::Time, ComparedQuantity::CpuMemory, ComparedQuantity::GpuMemory].map(ratio));
            table.push(line);
        }
    }
    table
}
