//! Results over commits: a folder with one result file a run, the series of each figure in it, and where they change.
//!
//! [`folder`] reads and adds files; [`figures`] are the medians of a result file; [`series`] strings the figures of
//! comparable runs together and finds change points; after the last of them a series begins anew for whoever compares
//! with it, because what was before is another program or another machine.

pub mod figures;
pub mod folder;
pub mod series;

#[cfg(test)]
pub(crate) mod tests;

pub use figures::{Case, Figure, figures, work_of};
pub use folder::{Added, Entry};
pub use series::{Point, Series, SeriesKey, all_series};
