//! Wall time and peak memory against samples, modes as series.

use super::axis::Axis;
use super::canvas::{Marker, colour, svg};
use super::xy::{Point, SIZE, Series, Xy};
use super::{Chart, by_setting, varying};
use crate::case::Method;
use crate::crossover::{Cell, Device, Figure, MethodFigures};
use crate::error::Result;
use crate::report::document::{Table, figure_cell, text_cell, whole_cell};
use crate::report::format::{megabytes, seconds};

/// What is drawn against samples.
struct Measured {
    name: &'static str,
    title: &'static str,
    axis: &'static str,
    of: fn(&MethodFigures) -> Option<Figure>,
    show: fn(Option<f64>) -> String,
}

/// Wall time.
pub(super) fn time_charts(cells: &[Cell]) -> Result<Vec<Chart>> {
    let measured = Measured {
        name: "time",
        title: "Wall time against samples",
        axis: "wall time, s",
        of: |figures| figures.elapsed_s,
        show: seconds,
    };
    charts(cells, &measured)
}

/// Peak memory of the host, and of the GPU where there is one.
pub(super) fn memory_charts(cells: &[Cell]) -> Result<Vec<Chart>> {
    let host = Measured {
        name: "memory",
        title: "Peak memory against samples",
        axis: "peak resident memory, MB",
        of: |figures| figures.cpu_peak_rss_mb,
        show: megabytes,
    };
    let gpu = Measured {
        name: "gpu-memory",
        title: "Peak GPU memory against samples",
        axis: "peak GPU memory, MB",
        of: |figures| figures.gpu_peak_alloc_mb,
        show: megabytes,
    };
    let on_gpu: Vec<Cell> = cells.iter().filter(|cell| cell.setting.device != Device::Cpu).cloned().collect();
    Ok([charts(cells, &host)?, charts(&on_gpu, &gpu)?].concat())
}

fn charts(cells: &[Cell], measured: &Measured) -> Result<Vec<Chart>> {
    let groups = varying(by_setting(cells), |cell| cell.samples);
    groups.iter().enumerate().map(|(index, group)| chart(index, group, measured)).collect()
}

fn chart(index: usize, group: &[&Cell], measured: &Measured) -> Result<Chart> {
    let series: Vec<Series> = [Method::Eager, Method::Lazy, Method::LazyDisk]
        .into_iter()
        .filter(|method| group.iter().any(|cell| cell.method(*method).is_some_and(|figures| figures.n > 0)))
        .map(|method| one_series(group, method, measured))
        .collect();
    let sizes: Vec<f64> = group.iter().map(|cell| cell.samples as f64).collect();
    let heights = series.iter().flat_map(|it| &it.points).flat_map(|point| {
        let (low, high) = point.ends.unwrap_or((point.y, point.y));
        [point.y, low, high]
    });
    let xy = Xy {
        x: Axis::logarithmic("samples", sizes.iter().copied()).with_ticks(sizes),
        y: Axis::logarithmic(measured.axis, heights),
        reference: None,
        marks: Vec::new(),
        series,
    };
    let label = group[0].setting.label();
    let title = format!("{}: {label}", measured.title);
    let description = "Both axes are logarithmic; bars are intervals; a cross marks a mode that never came through.";
    Ok(Chart {
        name: format!("{}-against-samples-{}", measured.name, index + 1),
        svg: svg(SIZE, &title, description, |area| xy.draw(area))?,
        description: description.to_owned(),
        table: table(group, measured),
        title,
    })
}

fn one_series(group: &[&Cell], method: Method, measured: &Measured) -> Series {
    let figures = || group.iter().filter_map(|cell| Some((cell.samples as f64, cell.method(method)?)));
    let points = figures().filter_map(|(x, figures)| {
        let figure = (measured.of)(figures)?;
        Some(Point { x, y: figure.median, ends: figure.interval })
    });
    let failures = figures().filter(|(_, figures)| figures.never_came_through());
    Series {
        name: method.to_string(),
        colour: colour(method),
        marker: Marker::of(method),
        points: points.collect(),
        failures: failures.filter_map(|(x, figures)| Some((x, figures.failure.as_ref()?.0))).collect(),
    }
}

fn table(group: &[&Cell], measured: &Measured) -> Table {
    let mut table = Table::new("", &["#samples", "mode", &format!("#{}", measured.axis)]);
    for cell in group {
        for figures in &cell.methods {
            let mut value = figure_cell((measured.of)(figures), measured.show);
            if let (None, Some((status, _))) = (value.number, &figures.failure) {
                value.text = status.to_string();
            }
            table.push(vec![whole_cell(cell.samples), text_cell(figures.method), value]);
        }
    }
    table
}
