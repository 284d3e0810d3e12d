//! The CPU backend against plain references in `f64`.
#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

#[path = "../common/mod.rs"]
mod common;

mod attention;
mod linear;
mod rows_and_pools;
