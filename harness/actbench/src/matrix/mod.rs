//! Many runs from one file: a matrix of settings. Each cell is a separate run with its own result file.
//!
//! [`file`] parses TOML into cells, [`order`] shuffles them and selects those of a shard, [`directory`] stores the results of
//! finished cells, so that a killed matrix can be resumed, and [`merge`] merges the directories of shards.
//!
//! A cell is one combination of model, samples, layers, pooling, data type and batch size. It runs all methods: only the cases of
//! one block run under the same conditions, and ratios are computed within blocks.

pub mod directory;
pub mod file;
pub mod merge;
pub mod order;
#[cfg(test)]
mod tests;

pub use file::{CellFlags, RunFlagParser, RunMatrix};

/// Built-in matrices, by name.
pub const PRESETS: [(&str, &str); 2] =
    [("small", include_str!("presets/small.toml")), ("paper", include_str!("presets/paper.toml"))];
