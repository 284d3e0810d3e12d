//! Wall time and peak memory against samples, one series per mode.

use super::axis::ChartAxis;
use super::canvas::{Marker, color, svg};
use super::xy::{ChartPoint, ChartSeries, SIZE, XyChart};
use super::{Chart, bars, by_setting, varying};
use crate::case::Method;
use crate::crossover::{Cell, DeviceClass, MedianInterval, MethodFigures};
use crate::error::Result;
use crate::report::document::{Table, figure_cell, text_cell, whole_cell};
use crate::report::format::{mebibytes, seconds};

/// A quantity that is drawn against samples.
struct ChartQuantity {
    name: &'static str,
    title: &'static str,
    axis: &'static str,
    figure: fn(&MethodFigures) -> Option<MedianInterval>,
    show: fn(Option<f64>) -> String,
}

/// Wall time.
pub(super) fn time_charts(cells: &[Cell]) -> Result<Vec<Chart>> {
    let quantity = ChartQuantity {
        name: "time",
        title: "Wall time",
        axis: "wall time, s",
        figure: |figures| figures.elapsed_s,
        show: seconds,
    };
    charts(cells, &quantity)
}

/// Peak memory of the host, and of the GPU if there is one.
pub(super) fn memory_charts(cells: &[Cell]) -> Result<Vec<Chart>> {
    let host = ChartQuantity {
        name: "memory",
        title: "Peak memory",
        axis: "peak resident memory, MiB",
        figure: |figures| figures.cpu_peak_rss_mb,
        show: mebibytes,
    };
    let gpu = ChartQuantity {
        name: "gpu-memory",
        title: "Peak GPU memory",
        axis: "peak GPU memory, MiB",
        figure: |figures| figures.gpu_peak_alloc_mb,
        show: mebibytes,
    };
    let on_gpu: Vec<Cell> = cells.iter().filter(|cell| cell.setting.device != DeviceClass::Cpu).cloned().collect();
    Ok([charts(cells, &host)?, charts(&on_gpu, &gpu)?].concat())
}

fn charts(cells: &[Cell], quantity: &ChartQuantity) -> Result<Vec<Chart>> {
    let groups = varying(by_setting(cells), |cell| cell.samples);
    groups.iter().enumerate().map(|(index, group)| chart(index, group, quantity)).collect()
}

fn chart(index: usize, group: &[&Cell], quantity: &ChartQuantity) -> Result<Chart> {
    let series: Vec<ChartSeries> = [Method::Eager, Method::Lazy, Method::LazyDisk]
        .into_iter()
        .filter(|method| group.iter().any(|cell| cell.method(*method).is_some_and(|figures| figures.n > 0)))
        .map(|method| one_series(group, method, quantity))
        .collect();
    let sizes: Vec<f64> = group.iter().map(|cell| cell.samples as f64).collect();
    let heights = series.iter().flat_map(|it| &it.points).flat_map(|point| {
        let (low, high) = point.ends.unwrap_or((point.y, point.y));
        [point.y, low, high]
    });
    let xy = XyChart {
        x: ChartAxis::logarithmic("samples", sizes.iter().copied()).with_ticks(sizes),
        y: ChartAxis::logarithmic(quantity.axis, heights),
        reference: None,
        marks: Vec::new(),
        series,
    };
    let title = format!("{}: {}", quantity.title, group[0].setting.label());
    let figures =
        group.iter().flat_map(|cell| &cell.methods).filter_map(|figures| Some((quantity.figure)(figures)?.interval));
    let bars = bars(figures);
    let description = format!("Both axes are logarithmic; {bars}; a cross marks a mode that never completed.");
    Ok(Chart {
        name: format!("{}-against-samples-{}", quantity.name, index + 1),
        svg: svg(SIZE, &title, &description, |area| xy.draw(area))?,
        description,
        table: table(group, quantity),
        title,
    })
}

fn one_series(group: &[&Cell], method: Method, quantity: &ChartQuantity) -> ChartSeries {
    let figures = || group.iter().filter_map(|cell| Some((cell.samples as f64, cell.method(method)?)));
    let points = figures().filter_map(|(x, figures)| {
        let figure = (quantity.figure)(figures)?;
        let ends = figure.interval.map(|interval| (interval.low, interval.high));
        Some(ChartPoint { x, y: figure.median, ends })
    });
    let failures = figures().filter(|(_, figures)| figures.never_succeeded());
    ChartSeries {
        name: method.to_string(),
        color: color(method),
        marker: Marker::for_method(method),
        points: points.collect(),
        failures: failures.filter_map(|(x, figures)| Some((x, figures.failure.as_ref()?.0))).collect(),
    }
}

fn table(group: &[&Cell], quantity: &ChartQuantity) -> Table {
    let mut table = Table::new("", &["#samples", "mode", &format!("#{}", quantity.axis)]);
    for cell in group {
        for figures in &cell.methods {
            let mut value = figure_cell((quantity.figure)(figures), quantity.show);
            if let (None, Some((status, _))) = (value.number, &figures.failure) {
                value.text = status.to_string();
            }
            table.push(vec![whole_cell(cell.samples), text_cell(figures.method), value]);
        }
    }
    table
}
