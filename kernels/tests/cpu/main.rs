//! The CPU backend against plain references in `f64`.
#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/operations.rs"]
mod operations;

mod attention;
mod attention_inputs;
mod attention_scores;
mod embedding;
mod experts;
mod linear;
mod norms;
mod rows_and_pools;

use common::{filled_with_nan, host, random, upload};
