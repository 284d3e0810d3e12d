//! Predicts what a run needs before it runs: memory, disk, operations and time by method, from the model's configuration and
//! the lengths of the data alone.
//!
//! [`job`] is the planned run; its batches are counted, not run. [`memory`] and [`time`] convert counts to bytes and seconds,
//! the latter with the [`calibration`] of this machine, and [`prediction`] joins them. [`choice`] decides which methods fit
//! and which to use. [`describe`] builds a job from settings, [`calibration_source`] calibrates this machine for it
//! ([`calibrate`] measures [`reduced`] shapes, [`stored_rates`] come from result files, and those of [`published_gpu`] from a page), and [`dry_run`] predicts all cells of a matrix.

pub mod calibrate;
pub mod calibration;
pub mod calibration_source;
pub mod calibration_steps;
pub mod choice;
pub mod describe;
pub mod dry_run;
pub mod job;
pub mod memory;
pub mod prediction;
pub mod probe_work;
pub mod published_gpu;
pub mod reduced;
pub mod stored_rates;
#[cfg(test)]
mod tests;
pub mod time;

pub use prediction::{CasePrediction, predict};
