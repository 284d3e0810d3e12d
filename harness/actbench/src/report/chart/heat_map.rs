//! AUROC by layer and C.

use plotters::style::text_anchor::HPos;
use plotters::style::{FontTransform, RGBColor};

use super::axis::tick_text;
use super::canvas::{Area, FIXED_DARK, FIXED_LIGHT, INK, LEGEND, WIDTH, svg, text_style, write};
use super::xy::fill;
use super::{Chart, largest};
use crate::crossover::Cell;
use crate::crossover::answer::count;
use crate::crossover::cell::AurocGrid;
use crate::error::Result;
use crate::report::document::{Table, number_cell, whole_cell};
use crate::report::format::metric;

/// Height of a row, and left and right edge of the map.
const ROW: i32 = 24;
const EDGES: (i32, i32) = (64, 470);

/// The lightest and the darkest color.
const PALE: (f64, f64, f64) = (247.0, 251.0, 255.0);
const DEEP: (f64, f64, f64) = (8.0, 69.0, 128.0);

/// One chart per setting of the task `sweep`, of its run with the most samples.
pub(super) fn charts(cells: &[Cell]) -> Result<Vec<Chart>> {
    // A single probe is a number and not a map.
    let has_map =
        |cell: &Cell| cell.aurocs.as_ref().is_some_and(|grid| grid.aurocs.iter().map(Vec::len).sum::<usize>() > 1);
    let found = largest(cells, has_map).into_iter();
    let found = found.filter_map(|cell| Some((cell, cell.aurocs.as_ref()?)));
    found.enumerate().map(|(index, (cell, grid))| chart(index, cell, grid)).collect()
}

fn chart(index: usize, cell: &Cell, grid: &AurocGrid) -> Result<Chart> {
    let title = format!("AUROC: {}, {} samples", cell.setting.label(), count(cell.samples as f64));
    let description =
        "Area under the ROC curve on the test side of the probe of each layer and each C; darker is higher.";
    let heads: Vec<String> =
        [String::from("#layer")].into_iter().chain(grid.cs.iter().map(|c| format!("#C = {}", tick_text(*c)))).collect();
    let mut table = Table::new("", &heads.iter().map(String::as_str).collect::<Vec<_>>());
    for (layer, aurocs) in grid.aurocs.iter().enumerate() {
        let cells = aurocs.iter().map(|auroc| number_cell(Some(*auroc), metric));
        table.push([whole_cell(layer)].into_iter().chain(cells).collect());
    }
    let height = LEGEND + ROW * grid.aurocs.len() as i32 + 50;
    Ok(Chart {
        name: format!("auroc-{}", index + 1),
        svg: svg((WIDTH, height.unsigned_abs()), &title, description, |area| draw(area, grid))?,
        description: description.to_owned(),
        table,
        title,
    })
}

fn draw(area: &Area<'_>, grid: &AurocGrid) -> Result<()> {
    let (left, right) = EDGES;
    let all = || grid.aurocs.iter().flatten().copied();
    let (low, high) = (all().fold(f64::INFINITY, f64::min), all().fold(f64::NEG_INFINITY, f64::max));
    write(area, &format!("light {low:.4}, dark {high:.4}"), (left, LEGEND / 2), &text_style(15, INK, HPos::Left))?;
    let column = |index: usize| left + (right - left) * index as i32 / grid.cs.len() as i32;
    let row = |index: usize| LEGEND + ROW * index as i32;
    for (layer, aurocs) in grid.aurocs.iter().enumerate() {
        let middle = row(layer) + ROW / 2;
        write(area, &layer.to_string(), (left - 8, middle), &text_style(14, INK, HPos::Right))?;
        for (index, auroc) in aurocs.iter().enumerate() {
            let fraction = if high > low { (auroc - low) / (high - low) } else { 0.5 };
            let (from, to) = ((column(index) + 1, row(layer) + 1), (column(index + 1) - 1, row(layer + 1) - 1));
            fill(area, from, to, shade(fraction))?;
            // Above this shade light text has more contrast than dark text.
            let ink = if fraction > 0.7 { FIXED_LIGHT } else { FIXED_DARK };
            let middle = ((from.0 + to.0) / 2, middle);
            write(area, &metric(Some(*auroc)), middle, &text_style(14, ink, HPos::Center))?;
        }
    }
    let bottom = row(grid.aurocs.len());
    for (index, c) in grid.cs.iter().enumerate() {
        let middle = (column(index) + column(index + 1)) / 2;
        write(area, &tick_text(*c), (middle, bottom + 14), &text_style(14, INK, HPos::Center))?;
    }
    write(area, "C", ((left + right) / 2, bottom + 34), &text_style(15, INK, HPos::Center))?;
    let upright = text_style(15, INK, HPos::Center).transform(FontTransform::Rotate270);
    write(area, "layer", (16, (LEGEND + bottom) / 2), &upright)
}

/// A color between the lightest and the darkest.
fn shade(fraction: f64) -> RGBColor {
    let mix = |pale: f64, deep: f64| (pale + (deep - pale) * fraction.clamp(0.0, 1.0)).round() as u8;
    RGBColor(mix(PALE.0, DEEP.0), mix(PALE.1, DEEP.1), mix(PALE.2, DEEP.2))
}
