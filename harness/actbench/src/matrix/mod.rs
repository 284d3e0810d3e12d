//! Many runs from one file: a matrix of settings, each cell of it a run of its own with a result file of its own.
//!
//! [`file`] turns TOML into cells, [`order`] says in which order they run and which of them a shard takes, [`folder`]
//! keeps what a matrix has done so far, so that a killed one is gone on with, and [`merge`] joins folders.
//!
//! A cell is one combination of model, samples, layers, pooling, type and batch size. The methods are inside it: only what
//! runs in one block meets the same state of the machine, and ratios are taken within blocks.

pub mod file;
pub mod folder;
pub mod merge;
pub mod order;
#[cfg(test)]
mod tests;

pub use file::{CellFlags, Matrix, RunFlags};

/// Matrices that come with the program, by name.
pub const PRESETS: [(&str, &str); 2] =
    [("small", include_str!("presets/small.toml")), ("paper", include_str!("presets/paper.toml"))];
