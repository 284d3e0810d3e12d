//! A chart of series of points with intervals, joined by lines, over two axes.

use plotters::element::{PathElement, Rectangle};
use plotters::style::text_anchor::HPos;
use plotters::style::{Color, FontTransform, RGBColor, ShapeStyle};

use super::axis::{Axis, tick_text};
use super::canvas::{Area, GRID, INK, LEGEND, Marker, failed, legend, text_style, width_of, write};
use crate::error::Result;
use crate::results::Status;

/// Width and height in pixels.
pub const SIZE: (u32, u32) = (720, 400);

/// Left, right, upper and lower edge of the plot within the drawing.
const EDGES: (i32, i32, i32, i32) = (70, 700, LEGEND + 14, 350);

/// A point with its interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Place on the horizontal axis.
    pub x: f64,
    /// Place on the vertical axis.
    pub y: f64,
    /// Ends of the interval of `y`.
    pub ends: Option<(f64, f64)>,
}

/// A line of points.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Its name in the legend.
    pub name: String,
    /// Its colour.
    pub colour: RGBColor,
    /// Its marker.
    pub marker: Marker,
    /// Points by `x`.
    pub points: Vec<Point>,
    /// Where on the horizontal axis it has no point because every case failed, and how.
    pub failures: Vec<(f64, Status)>,
}

/// A chart.
#[derive(Clone, Debug, PartialEq)]
pub struct Xy {
    /// Horizontal.
    pub x: Axis,
    /// Vertical.
    pub y: Axis,
    /// A line across at this height.
    pub reference: Option<f64>,
    /// Lines upright at these places.
    pub marks: Vec<f64>,
    /// What is drawn.
    pub series: Vec<Series>,
}

impl Xy {
    /// Draws it all.
    pub fn draw(&self, area: &Area<'_>) -> Result<()> {
        self.grid(area)?;
        let named = self.series.iter().map(|series| (series.name.clone(), series.colour, series.marker));
        let mut names: Vec<_> = named.collect();
        if self.series.iter().any(|series| !series.failures.is_empty()) {
            names.push(("never came through".to_owned(), INK, Marker::Cross));
        }
        legend(area, &names)?;
        self.series.iter().try_for_each(|series| self.line(area, series))?;
        self.failures(area)
    }

    fn place(&self, x: f64, y: f64) -> (i32, i32) {
        let (left, right, top, bottom) = EDGES;
        let along = |from: i32, to: i32, share: f64| from + (f64::from(to - from) * share).round() as i32;
        (along(left, right, self.x.share(x)), along(bottom, top, self.y.share(y)))
    }

    fn grid(&self, area: &Area<'_>) -> Result<()> {
        let (left, right, top, bottom) = EDGES;
        let rule = |from: (i32, i32), to: (i32, i32), colour: RGBColor| {
            area.draw(&PathElement::new(vec![from, to], colour)).map_err(failed)
        };
        for tick in self.x.ticks() {
            let x = self.place(*tick, 1.0).0;
            rule((x, top), (x, bottom), GRID)?;
            write(area, &self.x.text(*tick), (x, bottom + 14), &text_style(14, INK, HPos::Center))?;
        }
        for tick in self.y.ticks() {
            let y = self.place(1.0, *tick).1;
            rule((left, y), (right, y), GRID)?;
            write(area, &tick_text(*tick), (left - 8, y), &text_style(14, INK, HPos::Right))?;
        }
        for mark in &self.marks {
            let x = self.place(*mark, 1.0).0;
            rule((x, top), (x, bottom), INK)?;
        }
        if let Some(reference) = self.reference {
            let y = self.place(1.0, reference).1;
            rule((left, y), (right, y), INK)?;
        }
        rule((left, bottom), (right, bottom), INK)?;
        rule((left, top), (left, bottom), INK)?;
        write(area, &self.x.label, ((left + right) / 2, bottom + 36), &text_style(15, INK, HPos::Center))?;
        let upright = text_style(15, INK, HPos::Center).transform(FontTransform::Rotate270);
        write(area, &self.y.label, (16, (top + bottom) / 2), &upright)
    }

    fn line(&self, area: &Area<'_>, series: &Series) -> Result<()> {
        let path: Vec<(i32, i32)> = series.points.iter().map(|point| self.place(point.x, point.y)).collect();
        if path.len() > 1 {
            let style = ShapeStyle::from(&series.colour).stroke_width(2);
            area.draw(&PathElement::new(path, style)).map_err(failed)?;
        }
        for point in &series.points {
            if let Some((low, high)) = point.ends {
                let ((x, from), (_, to)) = (self.place(point.x, low), self.place(point.x, high));
                for ends in [[(x, from), (x, to)], [(x - 4, from), (x + 4, from)], [(x - 4, to), (x + 4, to)]] {
                    area.draw(&PathElement::new(ends.to_vec(), series.colour)).map_err(failed)?;
                }
            }
            series.marker.draw(area, self.place(point.x, point.y), series.colour)?;
        }
        Ok(())
    }

    /// A cross with the mode and the way it failed at the upper edge, those of one place below each other.
    fn failures(&self, area: &Area<'_>) -> Result<()> {
        let (_, right, top, _) = EDGES;
        let mut taken: Vec<i32> = Vec::new();
        for series in &self.series {
            for (place, status) in &series.failures {
                let x = self.place(*place, 1.0).0;
                let y = top + 14 + 18 * taken.iter().filter(|other| **other == x).count() as i32;
                taken.push(x);
                Marker::Cross.draw(area, (x, y), series.colour)?;
                let label = format!("{}: {status}", series.name);
                // Beside the cross, on the side where there is room.
                let (at, anchor) = match x + 12 + width_of(&label, 14) > right {
                    true => (x - 12, HPos::Right),
                    false => (x + 12, HPos::Left),
                };
                write(area, &label, (at, y), &text_style(14, series.colour, anchor))?;
            }
        }
        Ok(())
    }
}

/// A filled rectangle between two corners.
pub fn fill(area: &Area<'_>, from: (i32, i32), to: (i32, i32), colour: impl Color) -> Result<()> {
    area.draw(&Rectangle::new([from, to], colour.filled())).map_err(failed)
}
