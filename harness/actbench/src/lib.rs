//! actbench: should activation probes be trained from lazy or from eager activations, and does a change make either of
//! them slower, use more memory, or change its results?
//!
//! The engine is [`actbench_activations`]; this crate measures it. Modules in the order in which they use each other,
//! which `tests/layers.rs` checks: [`measure`] records the machine, memory and conditions; [`results`] is the file of the
//! measurements; [`workload`] composes the engine into the two benchmarked tasks; [`runner`] runs each case in a process of
//! its own; [`planner`] predicts cost, [`crossover`] finds the sizes from which lazy is better, [`matrix`] runs many
//! settings; [`stats`] estimates uncertainty; [`gate`], [`selftest`], [`compare`] and [`history`] compare versions;
//! [`report`] renders all of it; [`commands`] and [`cli`] are the command line.

#![warn(clippy::print_stdout)] // `commands::stdout` does not panic if the pipe is closed.

pub mod atomic_file;
pub mod case;
pub mod cli;
pub mod commands;
pub mod crossover;
pub mod devices;
pub mod error;
pub mod gate_adapter;
pub mod matrix;
pub mod measure;
pub mod own_output;
pub mod planner;
pub mod progress;
pub mod quantities;
pub mod report;
pub mod results;
pub mod runner;
pub mod shard;
#[cfg(test)]
mod test_support;
pub mod workload;

pub use error::{Error, Result};
