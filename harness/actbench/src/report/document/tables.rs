//! Tables of a report: text to show and, where it is a number, the number to sort by.

use serde::Serialize;

use crate::crossover::MedianInterval;
use crate::report::format::ratio;
use crate::results::summary::Interval;

/// A table; every row has a cell a column.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Table {
    /// What it shows.
    pub caption: String,
    /// Heads.
    pub columns: Vec<String>,
    /// Whether a column holds numbers and is set to the right.
    pub numeric: Vec<bool>,
    /// Cells.
    pub rows: Vec<Vec<TableCell>>,
}

/// A cell.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TableCell {
    /// What is shown.
    pub text: String,
    /// What it is sorted by; none is text, or a figure that is not there.
    pub number: Option<f64>,
    /// The ends of the number's interval.
    pub ends: Option<(f64, f64)>,
}

impl Table {
    /// No rows yet. A column whose head begins with `#` holds numbers; the sign is taken off.
    pub fn new(caption: impl Into<String>, heads: &[&str]) -> Self {
        Table {
            caption: caption.into(),
            columns: heads.iter().map(|head| head.trim_start_matches('#').to_owned()).collect(),
            numeric: heads.iter().map(|head| head.starts_with('#')).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row.
    pub fn push(&mut self, cells: Vec<TableCell>) {
        debug_assert_eq!(cells.len(), self.columns.len());
        self.rows.push(cells);
    }

    /// The table without the columns in which no cell has anything to show.
    #[must_use]
    pub fn without_empty_columns(self) -> Self {
        let filled = |column: usize| self.rows.iter().any(|row| row.get(column).is_some_and(|cell| cell.text != NONE));
        let kept: Vec<usize> = (0..self.columns.len()).filter(|column| filled(*column)).collect();
        Table {
            columns: kept.iter().map(|column| self.columns[*column].clone()).collect(),
            numeric: kept.iter().map(|column| self.numeric[*column]).collect(),
            rows: self.rows.iter().map(|row| kept.iter().map(|column| row[*column].clone()).collect()).collect(),
            caption: self.caption,
        }
    }
}

/// How a figure is told that is not there.
pub const NONE: &str = "-";

/// Text.
pub fn text(text: impl ToString) -> TableCell {
    TableCell { text: text.to_string(), number: None, ends: None }
}

/// A whole number.
pub fn whole(number: usize) -> TableCell {
    TableCell { text: indicatif::HumanCount(number as u64).to_string(), number: Some(number as f64), ends: None }
}

/// A number as `show` writes it, or a dash.
pub fn number(number: Option<f64>, show: fn(Option<f64>) -> String) -> TableCell {
    TableCell { text: show(number), number, ends: None }
}

/// A median with its interval: `1.23 (1.20 to 1.30)`.
pub fn figure(figure: Option<MedianInterval>, show: fn(Option<f64>) -> String) -> TableCell {
    let middle = figure.map(|figure| figure.median);
    let text = match figure.and_then(|figure| figure.interval) {
        Some((low, high)) => format!("{} ({} to {})", show(middle), show(Some(low)), show(Some(high))),
        None => show(middle),
    };
    TableCell { text, number: middle, ends: figure.and_then(|figure| figure.interval) }
}

/// A ratio with its interval: `3.12x (2.90 to 3.30)`.
pub fn ratio_cell(value: Option<f64>, interval: Option<Interval>) -> TableCell {
    let ends = interval.map(|interval| (interval.low, interval.high));
    TableCell { text: ratio(value, interval), number: value, ends }
}

/// A share as per cent.
pub fn share(share: Option<f64>) -> TableCell {
    let text = share.map_or_else(|| NONE.to_owned(), |share| format!("{:.0}%", 100.0 * share));
    TableCell { text, number: share, ends: None }
}
