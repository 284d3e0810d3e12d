//! The binary as users run it: real processes, their output, their files and their exit status.
//!
//! All of these tests are one binary, so that they link once and run in parallel. Tests that measure the memory of their own
//! process are binaries of their own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Test helpers may panic like tests.

#[path = "../common_cli/mod.rs"]
mod common_cli;
#[path = "../runner_support/mod.rs"]
mod runner_support;

mod ablate;
mod adapter;
mod bad_data;
mod bad_input;
mod bad_model;
mod cache_faults;
mod ci_gate;
mod explain;
mod families;
mod features;
mod full_disk;
mod gate;
mod help;
mod history;
mod isa;
mod matrix;
mod memory_growth;
mod memory_limit;
mod original;
mod output;
mod own_output;
mod plan;
mod profile;
mod report;
mod run;
mod runner_faults;
mod runner_interrupt;
mod selftest;
mod shards;
mod usage;
