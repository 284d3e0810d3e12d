//! Where lazy begins to win: curves of ratios against samples, and the mode to take for runs of a size.
//!
//! A [`cell::Cell`] is one task of one result file; a [`setting::Setting`] is what is held fixed while its samples vary.
//! [`curve`] finds where a ratio crosses 1, [`answer`] says it for each measure of each setting, and [`recommend`] takes a
//! mode for small, medium and large runs. Everything here is a pure function of result files.

pub mod answer;
pub mod cell;
pub mod curve;
pub mod recommend;
pub mod setting;

#[cfg(test)]
pub(crate) mod tests;

pub use cell::{Cell, Figure, MethodFigures, NamedResults, cells_of};
pub use setting::{Device, Setting};
