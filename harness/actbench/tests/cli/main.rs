//! The program as people run it: real processes, their output, their files and their exit status.
//!
//! One program for all of these tests, so that they are linked once and run beside each other; what measures its own
//! process's memory is a program of its own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Helpers of tests may fail as tests do.

#[path = "../common_cli/mod.rs"]
mod common_cli;
#[path = "../runner_support/mod.rs"]
mod runner_support;

mod ablate;
mod bad_data;
mod bad_input;
mod bad_model;
mod cache_faults;
mod ci_gate;
mod explain;
mod gate;
mod help;
mod history;
mod isa;
mod matrix;
mod memory_growth;
mod memory_limit;
mod original;
mod plan;
mod profile;
mod report;
mod run;
mod runner_faults;
mod runner_interrupt;
mod selftest;
mod usage;
