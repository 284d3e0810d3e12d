//! Charts of a report: SVG drawn with `plotters`, each with the table of its figures.
//!
//! Every chart shows one group of cells that differ only in the quantity on its horizontal axis; a group that does not vary in
//! it would be a single point and is not drawn. Colors belong to modes, and in charts of ratios to measures; they are the same
//! in all charts. Titles leave out the settings that all runs share: the report states those once.

mod axis;
mod breakdown;
mod canvas;
mod heat_map;
pub mod history;
mod layers;
mod samples;
mod waterfall;
mod xy;

#[cfg(test)]
mod tests;

use serde::Serialize;

pub use self::canvas::THEME;
use super::document::Table;
use crate::crossover::Cell;
use crate::error::Result;
use crate::results::interval::{Interval, IntervalBasis};

/// A chart.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Chart {
    /// Its file name without the extension; also its anchor in the page.
    pub name: String,
    /// Its heading.
    pub title: String,
    /// A sentence on its content; also its text for screen readers.
    pub description: String,
    /// The SVG file.
    pub svg: String,
    /// The same figures as a table.
    pub table: Table,
}

/// All charts for which `cells` (in the order of [`crate::crossover::cells_of`]) have figures.
///
/// # Errors
/// A fault of actbench: drawing into memory does not fail.
pub fn charts(cells: &[Cell]) -> Result<Vec<Chart>> {
    let families = [
        samples::time_charts(cells)?,
        samples::memory_charts(cells)?,
        layers::charts(cells)?,
        breakdown::charts(cells)?,
        waterfall::charts(cells)?,
        heat_map::charts(cells)?,
    ];
    Ok(families.concat())
}

/// The groups in which `varied` takes several values.
fn varying<T: PartialEq>(groups: Vec<Vec<&Cell>>, varied: fn(&Cell) -> T) -> Vec<Vec<&Cell>> {
    let varies = |group: &Vec<&Cell>| group.iter().any(|cell| varied(cell) != varied(group[0]));
    groups.into_iter().filter(varies).collect()
}

/// What the bars of a chart are, given the interval of each point: `bars are 93.8 % intervals, 5 blocks`.
fn bars(intervals: impl Iterator<Item = Option<Interval>>) -> String {
    let intervals: Vec<Option<Interval>> = intervals.collect();
    let n_without = intervals.iter().filter(|interval| interval.is_none()).count();
    match IntervalBasis::of(intervals.into_iter().flatten()) {
        Some(basis) => format!("bars are {}", basis.and_without(n_without)),
        None => "single blocks have no intervals".to_owned(),
    }
}

/// For each setting, one cell of each size.
fn by_setting(cells: &[Cell]) -> Vec<Vec<&Cell>> {
    let groups = cells.chunk_by(|a, b| a.setting == b.setting);
    groups.map(|group| crate::crossover::answer::latest(group).collect()).collect()
}

/// For each setting, the cell with the most samples that satisfies `wanted`; of several, the latest.
fn largest(cells: &[Cell], wanted: fn(&Cell) -> bool) -> Vec<&Cell> {
    let groups = cells.chunk_by(|a, b| a.setting == b.setting);
    let key = |cell: &Cell| (cell.samples, cell.date.clone());
    groups.filter_map(|group| group.iter().filter(|cell| wanted(cell)).max_by_key(|cell| key(cell))).collect()
}
