//! The lazy plan and its cache file, on a model whose activations can be said beforehand.
#![allow(clippy::unwrap_used, clippy::expect_used)] // Helpers of tests may fail as tests do.

#[path = "../fake_model/mod.rs"]
mod fake_model;

mod cache_file;
mod out_of_memory;
mod plan;
mod properties;
