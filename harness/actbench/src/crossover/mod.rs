//! From how many samples on lazy is better than eager, and which method to use for runs of a given size.
//!
//! A [`cell::Cell`] is one task of one result file; a [`setting::Setting`] is what is fixed while the number of samples
//! varies. [`curve`] finds where a ratio crosses 1, [`answer`] does so for each setting and quantity, and [`recommend`]
//! chooses a method for small, medium and large runs. Everything here is a pure function of result files.

pub mod answer;
pub mod cell;
pub mod curve;
pub mod recommend;
pub mod setting;

#[cfg(test)]
pub(crate) mod tests;

pub use cell::{Cell, MedianInterval, MethodFigures, cells_of, phase_medians};
pub use setting::{DeviceClass, Setting};
