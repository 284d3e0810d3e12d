//! The engine through its public interface: plans and cache files on a fake model, forward passes on small real ones.
//!
//! One binary for all of it, since every test binary is linked with the whole engine.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Helpers of tests may fail as tests do.

#[path = "../golden_support/mod.rs"]
mod golden_support;
#[path = "../shared_prefixes/mod.rs"]
mod shared_prefixes;

mod adapter;
mod bit_identical_batches;
mod bit_identical_features;
mod cache_file;
mod cache_table;
mod fake_model;
mod families;
mod flops;
mod golden_digests;
mod goldens;
mod landing;
mod out_of_memory;
mod plan;
mod properties;
mod streams;
