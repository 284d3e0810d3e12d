//! Tables of a report: the text of each cell and, for numbers, the value to sort by. A leaf: charts and sections use it.

use serde::Serialize;

use crate::crossover::MedianInterval;
use crate::report::format::ratio;
use crate::results::interval::{Interval, IntervalBasis};

/// A table; every row has one cell per column.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Table {
    /// A sentence that explains its figures.
    pub caption: String,
    /// Names of the columns.
    pub columns: Vec<String>,
    /// For each column, whether it has numbers, which are aligned to the right.
    pub numeric: Vec<bool>,
    /// Cells by row.
    pub rows: Vec<Vec<TableCell>>,
}

/// A cell of a table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TableCell {
    /// The printed text.
    pub text: String,
    /// The value to sort by; none for text and for a missing figure.
    pub number: Option<f64>,
    /// The ends of the number's interval.
    pub ends: Option<(f64, f64)>,
}

impl Table {
    /// A table without rows. A head that begins with `#` marks a column of numbers; the sign is removed.
    pub fn new(caption: impl Into<String>, heads: &[&str]) -> Self {
        Table {
            caption: caption.into(),
            columns: heads.iter().map(|head| head.trim_start_matches('#').to_owned()).collect(),
            numeric: heads.iter().map(|head| head.starts_with('#')).collect(),
            rows: Vec::new(),
        }
    }

    /// Appends a row.
    pub fn push(&mut self, cells: Vec<TableCell>) {
        debug_assert_eq!(cells.len(), self.columns.len());
        self.rows.push(cells);
    }

    /// The table without its empty columns.
    #[must_use]
    pub fn without_empty_columns(self) -> Self {
        let has_content =
            |column: usize| self.rows.iter().any(|row| row.get(column).is_some_and(|cell| cell.text != NONE));
        let kept: Vec<usize> = (0..self.columns.len()).filter(|column| has_content(*column)).collect();
        Table {
            columns: kept.iter().map(|column| self.columns[*column].clone()).collect(),
            numeric: kept.iter().map(|column| self.numeric[*column]).collect(),
            rows: self.rows.iter().map(|row| kept.iter().map(|column| row[*column].clone()).collect()).collect(),
            caption: self.caption,
        }
    }
}

impl Table {
    /// The table without empty columns, and without the model and the `settings` that all rows share: the report states those
    /// once.
    #[must_use]
    pub fn concise(&self, settings: &[&str]) -> Self {
        self.clone().without_empty_columns().without_shared_columns(&["model"]).without_shared_columns(settings)
    }

    /// The table without those of the `named` columns that have the same text in all rows.
    #[must_use]
    fn without_shared_columns(self, named: &[&str]) -> Self {
        let is_shared = |table: &Table, name: &str| {
            let column = table.columns.iter().position(|column| column == name);
            column.is_some_and(|column| table.rows.windows(2).all(|rows| rows[0][column].text == rows[1][column].text))
        };
        named.iter().fold(self, |table, name| if is_shared(&table, name) { table.without_column(name) } else { table })
    }

    /// The table without the column `name`.
    #[must_use]
    pub fn without_column(mut self, name: &str) -> Self {
        if let Some(column) = self.columns.iter().position(|column| column == name) {
            self.columns.remove(column);
            self.numeric.remove(column);
            self.rows.iter_mut().for_each(|row| drop(row.remove(column)));
        }
        self
    }
}

/// The text of a missing figure.
pub const NONE: &str = "-";

/// A cell of text.
pub fn text(text: impl ToString) -> TableCell {
    TableCell { text: text.to_string(), number: None, ends: None }
}

/// A cell with a whole number.
pub fn whole(number: usize) -> TableCell {
    TableCell { text: indicatif::HumanCount(number as u64).to_string(), number: Some(number as f64), ends: None }
}

/// A cell with a number in the format of `show`, or a dash.
pub fn number(number: Option<f64>, show: fn(Option<f64>) -> String) -> TableCell {
    TableCell { text: show(number), number, ends: None }
}

/// A median with its interval: `1.23 (1.20 to 1.30)`.
pub fn figure(figure: Option<MedianInterval>, show: fn(Option<f64>) -> String) -> TableCell {
    let median = figure.map(|figure| figure.median);
    let interval = figure.and_then(|figure| figure.interval);
    let text = match interval {
        Some(ends) => format!("{} ({} to {})", show(median), show(Some(ends.low)), show(Some(ends.high))),
        None => show(median),
    };
    TableCell { text, number: median, ends: interval.map(|interval| (interval.low, interval.high)) }
}

/// The confidence of the intervals of a row: `93.8 %, 5 blocks`, or a dash.
pub fn basis(intervals: impl IntoIterator<Item = Option<Interval>>) -> TableCell {
    text(IntervalBasis::of(intervals.into_iter().flatten()).map_or_else(|| NONE.to_owned(), |basis| basis.short()))
}

/// A ratio with its interval: `3.12x (2.90 to 3.30)`.
pub fn ratio_cell(value: Option<f64>, interval: Option<Interval>) -> TableCell {
    let ends = interval.map(|interval| (interval.low, interval.high));
    TableCell { text: ratio(value, interval), number: value, ends }
}

/// A fraction in percent.
pub fn percent(fraction: Option<f64>) -> TableCell {
    let text = fraction.map_or_else(|| NONE.to_owned(), |fraction| format!("{:.0}%", 100.0 * fraction));
    TableCell { text, number: fraction, ends: None }
}
