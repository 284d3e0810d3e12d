//! actbench-activations: from dialogues to tokens, activations, pooled features and probes.
//!
//! The modules in the order the data flows: a [`data`] set of dialogues becomes [`tokens`] through [`text`]; a
//! [`model`] turns tokens into activations, through a lazy [`plan`] or the [`eager`] baseline; a [`probe`] is trained on
//! them. [`import`] converts GGUF files to model directories.

#![warn(clippy::print_stdout)]

pub mod data;
pub mod eager;
pub mod error;
pub mod import;
pub mod model;
pub mod panics;
pub mod plan;
pub mod probe;
pub mod text;
pub mod tokens;
mod units;

pub use error::{Error, Result};
