//! Results over commits: a record a run, a series for each figure, and where the series change.
//!
//! [`record`] is what callers hand over of a run: names, medians and facts; [`directory`] keeps one file a run; [`series`]
//! joins the figures of comparable runs and finds change points. After a change point a series starts over for
//! comparisons, because the earlier runs belong to another program or another machine.

pub mod directory;
pub mod record;
pub mod series;

#[cfg(test)]
mod tests;

pub use directory::AddedFile;
pub use record::{CaseName, RunFacts, RunFigure, RunRecord, SeriesKey};
pub use series::{FigureSeries, SeriesPoint, all_series};
