//! A chart of series over two axes: points with intervals, joined by lines.

use plotters::element::{PathElement, Rectangle};
use plotters::style::text_anchor::HPos;
use plotters::style::{Color, FontTransform, RGBColor, ShapeStyle};

use super::axis::{ChartAxis, tick_text};
use super::canvas::{Area, GRID, INK, LEGEND, Marker, WIDTH, failed, legend, text_style, width_of, write};
use crate::error::Result;
use crate::results::Status;

/// Width and height in pixels.
pub const SIZE: (u32, u32) = (WIDTH, 350);

/// Left, right, upper and lower edge of the plot within the drawing.
const EDGES: (i32, i32, i32, i32) = (70, 466, LEGEND + 12, 302);

/// A point with its interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ChartPoint {
    /// Horizontal value.
    pub x: f64,
    /// Vertical value.
    pub y: f64,
    /// Ends of the interval of `y`.
    pub ends: Option<(f64, f64)>,
}

/// A series of points, joined by a line.
#[derive(Clone, Debug, PartialEq)]
pub struct ChartSeries {
    /// Its name in the legend.
    pub name: String,
    /// Its color.
    pub color: RGBColor,
    /// Its marker.
    pub marker: Marker,
    /// Points by `x`.
    pub points: Vec<ChartPoint>,
    /// Horizontal values without a point because every case failed, with the failure.
    pub failures: Vec<(f64, Status)>,
}

/// A chart.
#[derive(Clone, Debug, PartialEq)]
pub struct XyChart {
    /// Horizontal.
    pub x: ChartAxis,
    /// Vertical.
    pub y: ChartAxis,
    /// A horizontal line at this value.
    pub reference: Option<f64>,
    /// Vertical lines at these horizontal values.
    pub marks: Vec<f64>,
    /// The series.
    pub series: Vec<ChartSeries>,
}

impl XyChart {
    /// Draws axes, grid, legend, series and failures.
    pub fn draw(&self, area: &Area<'_>) -> Result<()> {
        self.grid(area)?;
        let named = self.series.iter().map(|series| (series.name.clone(), series.color, series.marker));
        let mut names: Vec<_> = named.collect();
        if self.series.iter().any(|series| !series.failures.is_empty()) {
            names.push(("never completed".to_owned(), INK, Marker::Cross));
        }
        legend(area, &names)?;
        self.series.iter().try_for_each(|series| self.line(area, series))?;
        self.failures(area)
    }

    fn position(&self, x: f64, y: f64) -> (i32, i32) {
        let (left, right, top, bottom) = EDGES;
        let between = |from: i32, to: i32, fraction: f64| from + (f64::from(to - from) * fraction).round() as i32;
        (between(left, right, self.x.fraction(x)), between(bottom, top, self.y.fraction(y)))
    }

    fn grid(&self, area: &Area<'_>) -> Result<()> {
        let (left, right, top, bottom) = EDGES;
        let rule = |from: (i32, i32), to: (i32, i32), color: RGBColor| {
            area.draw(&PathElement::new(vec![from, to], color)).map_err(failed)
        };
        for tick in self.x.ticks() {
            let x = self.position(*tick, 1.0).0;
            rule((x, top), (x, bottom), GRID)?;
            write(area, &self.x.text(*tick), (x, bottom + 14), &text_style(14, INK, HPos::Center))?;
        }
        for tick in self.y.ticks() {
            let y = self.position(1.0, *tick).1;
            rule((left, y), (right, y), GRID)?;
            write(area, &tick_text(*tick), (left - 8, y), &text_style(14, INK, HPos::Right))?;
        }
        for mark in &self.marks {
            let x = self.position(*mark, 1.0).0;
            rule((x, top), (x, bottom), INK)?;
        }
        if let Some(reference) = self.reference {
            let y = self.position(1.0, reference).1;
            rule((left, y), (right, y), INK)?;
        }
        rule((left, bottom), (right, bottom), INK)?;
        rule((left, top), (left, bottom), INK)?;
        write(area, &self.x.label, ((left + right) / 2, bottom + 36), &text_style(15, INK, HPos::Center))?;
        let upright = text_style(15, INK, HPos::Center).transform(FontTransform::Rotate270);
        write(area, &self.y.label, (16, (top + bottom) / 2), &upright)
    }

    fn line(&self, area: &Area<'_>, series: &ChartSeries) -> Result<()> {
        let path: Vec<(i32, i32)> = series.points.iter().map(|point| self.position(point.x, point.y)).collect();
        if path.len() > 1 {
            let style = ShapeStyle::from(&series.color).stroke_width(2);
            area.draw(&PathElement::new(path, style)).map_err(failed)?;
        }
        for point in &series.points {
            if let Some((low, high)) = point.ends {
                let ((x, from), (_, to)) = (self.position(point.x, low), self.position(point.x, high));
                for ends in [[(x, from), (x, to)], [(x - 4, from), (x + 4, from)], [(x - 4, to), (x + 4, to)]] {
                    area.draw(&PathElement::new(ends.to_vec(), series.color)).map_err(failed)?;
                }
            }
            series.marker.draw(area, self.position(point.x, point.y), series.color)?;
        }
        Ok(())
    }

    /// A cross with the mode and its failure at the upper edge; several at one position are stacked.
    fn failures(&self, area: &Area<'_>) -> Result<()> {
        let (_, right, top, _) = EDGES;
        let mut taken: Vec<i32> = Vec::new();
        for series in &self.series {
            for (value, status) in &series.failures {
                let x = self.position(*value, 1.0).0;
                let y = top + 14 + 18 * taken.iter().filter(|other| **other == x).count() as i32;
                taken.push(x);
                Marker::Cross.draw(area, (x, y), series.color)?;
                let label = format!("{}: {status}", series.name);
                // To the right of the cross, or to the left at the edge.
                let (label_x, anchor) =
                    if x + 12 + width_of(&label, 14) > right { (x - 12, HPos::Right) } else { (x + 12, HPos::Left) };
                write(area, &label, (label_x, y), &text_style(14, series.color, anchor))?;
            }
        }
        Ok(())
    }
}

/// A filled rectangle between two corners.
pub fn fill(area: &Area<'_>, from: (i32, i32), to: (i32, i32), color: impl Color) -> Result<()> {
    area.draw(&Rectangle::new([from, to], color.filled())).map_err(failed)
}
