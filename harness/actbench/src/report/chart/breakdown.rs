//! Time breakdown: one bar per mode, extraction followed by training and scoring.

use plotters::style::Color;
use plotters::style::text_anchor::HPos;

use super::axis::{ChartAxis, tick_text};
use super::canvas::{Area, GRID, INK, LEGEND, Marker, WIDTH, color, legend, svg, text_style, write};
use super::xy::fill;
use super::{Chart, largest};
use crate::crossover::answer::count;
use crate::crossover::{Cell, MethodFigures};
use crate::error::Result;
use crate::report::document::{Table, figure_cell, text_cell};
use crate::report::format::seconds;

/// Height of a bar with its margins, in pixels.
const BAR: i32 = 40;

/// Left and right edge of the bars.
const EDGES: (i32, i32) = (82, 350);

/// One chart per setting, of its run with the most samples.
pub(super) fn charts(cells: &[Cell]) -> Result<Vec<Chart>> {
    let measured = |cell: &Cell| cell.methods.iter().any(|figures| figures.elapsed_s.is_some());
    largest(cells, measured).into_iter().enumerate().map(|(index, cell)| chart(index, cell)).collect()
}

fn chart(index: usize, cell: &Cell) -> Result<Chart> {
    let title = format!("Time: {}, {} samples", cell.setting.label(), count(cell.samples as f64));
    let description = "Median seconds of extraction (full color), then of training and scoring the probes (pale).";
    let mut table = Table::new("", &["mode", "#extract s", "#train+eval s", "#time s"]);
    for figures in &cell.methods {
        table.push(vec![
            text_cell(figures.method),
            figure_cell(figures.extract_s, seconds),
            figure_cell(figures.train_eval_s, seconds),
            figure_cell(figures.elapsed_s, seconds),
        ]);
    }
    let height = LEGEND + BAR * cell.methods.len() as i32 + 40;
    Ok(Chart {
        name: format!("time-breakdown-{}", index + 1),
        svg: svg((WIDTH, height.unsigned_abs()), &title, description, |area| draw(area, cell))?,
        description: description.to_owned(),
        table,
        title,
    })
}

fn draw(area: &Area<'_>, cell: &Cell) -> Result<()> {
    let (left, right) = EDGES;
    let parts = |figures: &MethodFigures| Some((figures.extract_s?.median, figures.train_eval_s?.median));
    let totals = cell.methods.iter().filter_map(parts).map(|(extract, train)| extract + train);
    let axis = ChartAxis::from_zero("s", totals);
    let x_of = |value: f64| left + (f64::from(right - left) * axis.fraction(value)).round() as i32;
    let bottom = LEGEND + BAR * cell.methods.len() as i32;
    for tick in axis.ticks() {
        fill(area, (x_of(*tick), LEGEND), (x_of(*tick) + 1, bottom), GRID)?;
        write(area, &tick_text(*tick), (x_of(*tick), bottom + 14), &text_style(13, INK, HPos::Center))?;
    }
    write(area, "seconds", ((left + right) / 2, bottom + 32), &text_style(15, INK, HPos::Center))?;
    let first = cell.methods.first().map_or(INK, |figures| color(figures.method));
    legend(area, &[("extraction; pale: training and scoring".to_owned(), first, Marker::Square)])?;
    for (index, figures) in cell.methods.iter().enumerate() {
        let top = LEGEND + BAR * index as i32 + 8;
        let middle = top + (BAR - 16) / 2;
        write(area, &figures.method.to_string(), (left - 8, middle), &text_style(15, INK, HPos::Right))?;
        match parts(figures) {
            Some((extract, train)) => {
                let (end, total) = (x_of(extract), x_of(extract + train));
                fill(area, (left, top), (end, top + BAR - 16), color(figures.method))?;
                fill(area, (end, top), (total, top + BAR - 16), color(figures.method).mix(0.45))?;
                let label = format!("{} + {}", seconds(Some(extract)), seconds(Some(train)));
                write(area, &label, (total + 6, middle), &text_style(14, INK, HPos::Left))?;
            }
            None => {
                let reason =
                    figures.failure.as_ref().map_or_else(|| "not run".to_owned(), |(status, _)| status.to_string());
                Marker::Cross.draw(area, (left + 10, middle), color(figures.method))?;
                write(area, &reason, (left + 24, middle), &text_style(14, INK, HPos::Left))?;
            }
        }
    }
    Ok(())
}
