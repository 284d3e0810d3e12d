//! actbench: should activation probes be trained from lazy or from eager activations, and is either of them slower or does
//! it use more memory than before?
//!
//! The engine is [`actbench_activations`]; this crate measures it. [`workload`] composes the engine into the two benchmarked tasks;
//! [`runner`] runs each case in a process of its own; [`results`] is the file that keeps the measurements; [`matrix`] runs many of
//! them; [`planner`] predicts their cost; [`pairgate`] estimates their uncertainty and judges changes, through the adapters of
//! [`gate_adapter`]; [`report`] presents them.

#![warn(clippy::print_stdout)] // `commands::stdout` does not panic where the pipe is closed.

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
pub mod planner;
pub mod report;
pub mod results;
pub mod runner;
#[cfg(test)]
mod test_support;
pub mod workload;

pub use error::{Error, Result};
