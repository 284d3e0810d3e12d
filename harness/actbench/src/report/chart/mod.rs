//! Charts of a report: SVG made with `plotters`, each with the table of what it shows.
//!
//! Every chart is one group of cells that differ in one thing, the one it is drawn against. Where some group varies in it,
//! groups that do not are left out; where none does, each is drawn as points. Colours and markers belong to modes and are the
//! same in all charts.

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

/// A chart.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Chart {
    /// Its file's name without the ending; also its place in the page.
    pub name: String,
    /// Its heading.
    pub title: String,
    /// What it shows, in a sentence; also what is read out in its place.
    pub description: String,
    /// The whole SVG file.
    pub svg: String,
    /// The same figures as a table.
    pub table: Table,
}

/// All charts that `cells` (ordered as [`crate::crossover::cells_of`] gives them) have figures for.
///
/// # Errors
/// None that a caller could cause: drawing into memory does not fail.
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

/// The groups in which `varied` takes several values, or all groups where it does in none.
fn varying<T: PartialEq>(groups: Vec<Vec<&Cell>>, varied: fn(&Cell) -> T) -> Vec<Vec<&Cell>> {
    let varies = |group: &Vec<&Cell>| group.iter().any(|cell| varied(cell) != varied(group[0]));
    match groups.iter().any(varies) {
        true => groups.into_iter().filter(varies).collect(),
        false => groups,
    }
}

/// Of each setting, one cell of each size.
fn by_setting(cells: &[Cell]) -> Vec<Vec<&Cell>> {
    let groups = cells.chunk_by(|a, b| a.setting == b.setting);
    groups.map(|group| crate::crossover::answer::latest(group).collect()).collect()
}

/// Of each setting, the cell of the most samples that has what `wanted` asks for; of several, the latest.
fn largest(cells: &[Cell], wanted: fn(&Cell) -> bool) -> Vec<&Cell> {
    let groups = cells.chunk_by(|a, b| a.setting == b.setting);
    let key = |cell: &Cell| (cell.samples, cell.date.clone());
    groups.filter_map(|group| group.iter().filter(|cell| wanted(cell)).max_by_key(|cell| key(cell))).collect()
}
