//! The error type of the engine, under the name that the benchmark uses.

pub use actbench_activations::error::{Error, Result};
