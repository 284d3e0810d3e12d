//! The drawing tools of all charts: colors, text, markers, and the SVG file around a drawing.
//!
//! `plotters` writes colors as attributes. Each color here has one purpose, so that a style sheet can replace it on a dark
//! page: [`THEME`] does that in each SVG file and in the HTML page. Viewers without style sheets show the light colors.

use plotters::backend::SVGBackend;
use plotters::coord::Shift;
use plotters::drawing::{DrawingArea, IntoDrawingArea};
use plotters::element::{Circle, Cross, Polygon, Rectangle};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{IntoFont, RGBColor, ShapeStyle, TextStyle};

use crate::case::Method;
use crate::error::{Error, Result};

/// The background of a chart.
pub const BACKGROUND: RGBColor = RGBColor(0xFF, 0xFF, 0xFF);
/// Text and axes.
pub const INK: RGBColor = RGBColor(0x1F, 0x23, 0x28);
/// Lines of the grid.
pub const GRID: RGBColor = RGBColor(0xD8, 0xDE, 0xE4);
/// The mode eager, and costs.
pub const EAGER: RGBColor = RGBColor(0xB3, 0x4A, 0x0A);
/// The mode lazy.
pub const LAZY: RGBColor = RGBColor(0x0B, 0x5C, 0xAD);
/// The mode lazy-disk, and savings.
pub const LAZY_DISK: RGBColor = RGBColor(0x1A, 0x7F, 0x5A);
/// Ratios of time.
pub const TIME: RGBColor = RGBColor(0x7A, 0x3E, 0xB8);
/// Ratios of CPU memory.
pub const CPU_MEMORY: RGBColor = RGBColor(0x0E, 0x6F, 0x8A);
/// Ratios of GPU memory.
pub const GPU_MEMORY: RGBColor = RGBColor(0x8A, 0x63, 0x00);
/// Text on a light fill that themes do not replace.
pub const FIXED_DARK: RGBColor = RGBColor(0x10, 0x10, 0x10);
/// Text on a dark fill that themes do not replace.
pub const FIXED_LIGHT: RGBColor = RGBColor(0xFD, 0xFD, 0xFD);

/// Replaces the colors with those of a dark page.
pub const THEME: &str = "@media (prefers-color-scheme: dark) {\
[fill=\"#FFFFFF\"]{fill:#0D1117}\
[fill=\"#1F2328\"]{fill:#E6EDF3}[stroke=\"#1F2328\"]{stroke:#E6EDF3}\
[fill=\"#D8DEE4\"]{fill:#30363D}[stroke=\"#D8DEE4\"]{stroke:#30363D}\
[fill=\"#B34A0A\"]{fill:#F0883E}[stroke=\"#B34A0A\"]{stroke:#F0883E}\
[fill=\"#0B5CAD\"]{fill:#58A6FF}[stroke=\"#0B5CAD\"]{stroke:#58A6FF}\
[fill=\"#1A7F5A\"]{fill:#3FB98A}[stroke=\"#1A7F5A\"]{stroke:#3FB98A}\
[fill=\"#7A3EB8\"]{fill:#C297FF}[stroke=\"#7A3EB8\"]{stroke:#C297FF}\
[fill=\"#0E6F8A\"]{fill:#4CC4DE}[stroke=\"#0E6F8A\"]{stroke:#4CC4DE}\
[fill=\"#8A6300\"]{fill:#E3B341}[stroke=\"#8A6300\"]{stroke:#E3B341}}";

/// Width of a chart in pixels. A phone shows it at three quarters of its size and a column of a wide page at a little more, so
/// that its text is readable on both.
pub const WIDTH: u32 = 480;

/// Height of the strip for the legend above a drawing, in pixels: up to three lines.
pub const LEGEND: i32 = 52;

/// A drawing area.
pub type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// The color of a mode.
pub fn color(method: Method) -> RGBColor {
    match method {
        Method::Eager => EAGER,
        Method::Lazy => LAZY,
        Method::LazyDisk => LAZY_DISK,
    }
}

/// A shape that distinguishes series without color.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marker {
    /// The mode eager.
    Circle,
    /// The mode lazy.
    Square,
    /// The mode lazy-disk.
    Triangle,
    /// A mode that never completed.
    Cross,
}

impl Marker {
    /// The marker of a mode.
    pub fn for_method(method: Method) -> Self {
        match method {
            Method::Eager => Marker::Circle,
            Method::Lazy => Marker::Square,
            Method::LazyDisk => Marker::Triangle,
        }
    }

    /// Draws it around `(x, y)`.
    pub fn draw(self, area: &Area<'_>, (x, y): (i32, i32), color: RGBColor) -> Result<()> {
        let filled = ShapeStyle::from(&color).filled();
        match self {
            Marker::Circle => area.draw(&Circle::new((x, y), 5, filled)),
            Marker::Square => area.draw(&Rectangle::new([(x - 4, y - 4), (x + 5, y + 5)], filled)),
            Marker::Triangle => area.draw(&Polygon::new(vec![(x - 6, y + 5), (x + 6, y + 5), (x, y - 6)], filled)),
            Marker::Cross => area.draw(&Cross::new((x, y), 6, ShapeStyle::from(&color).stroke_width(2))),
        }
        .map_err(failed)
    }
}

/// By which `plotters` divides the size of a font when it writes SVG.
const FONT_SCALE: f64 = 1.24;

/// Text of `size` pixels with a horizontal anchor, centered vertically.
pub fn text_style(size: u32, color: RGBColor, horizontal: HPos) -> TextStyle<'static> {
    ("sans-serif", f64::from(size) * FONT_SCALE).into_font().color(&color).pos(Pos::new(horizontal, VPos::Center))
}

/// Writes `text` at a position.
pub fn write(area: &Area<'_>, text: &str, position: (i32, i32), style: &TextStyle<'_>) -> Result<()> {
    area.draw_text(text, style, position).map_err(failed)
}

/// Markers with their names along the top of the drawing, on several lines if one is too short.
pub fn legend(area: &Area<'_>, entries: &[(String, RGBColor, Marker)]) -> Result<()> {
    const LEFT: i32 = 14;
    let right = i32::try_from(area.dim_in_pixel().0).unwrap_or(i32::MAX);
    let (mut x, mut y) = (LEFT, 10);
    for (name, color, marker) in entries {
        let width = 28 + width_of(name, 14);
        if x + width > right && x > LEFT {
            (x, y) = (LEFT, y + 17);
        }
        marker.draw(area, (x, y), *color)?;
        write(area, name, (x + 11, y), &text_style(14, INK, HPos::Left))?;
        x += width;
    }
    Ok(())
}

/// The approximate width of `text` in a sans-serif font of `size` pixels; there is no font to measure with.
pub fn width_of(text: &str, size: i32) -> i32 {
    i32::try_from(text.chars().count()).unwrap_or(1000) * size * 11 / 20
}

/// The SVG file of a drawing of `width` by `height`, with a title and a description for screen readers.
pub fn svg(
    (width, height): (u32, u32),
    title: &str,
    description: &str,
    draw: impl FnOnce(&Area<'_>) -> Result<()>,
) -> Result<String> {
    let mut drawing = String::new();
    {
        let area = SVGBackend::with_string(&mut drawing, (width, height)).into_drawing_area();
        area.fill(&BACKGROUND).map_err(failed)?;
        draw(&area)?;
        area.present().map_err(failed)?;
    }
    let body = drawing.split_once('>').map_or(drawing.as_str(), |(_, body)| body);
    let (title, description) = (escaped(title), escaped(description));
    Ok(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         role=\"img\" aria-label=\"{title}. {description}\">\n<title>{title}</title>\n<style>{THEME}</style>{body}"
    ))
}

/// Text escaped for XML.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// An error of the drawing library; drawing into memory has no known one.
pub fn failed(error: impl std::fmt::Display) -> Error {
    Error::internal(format!("a chart could not be drawn into memory: {error}"))
}
