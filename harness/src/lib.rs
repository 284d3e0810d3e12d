//! actbench: should activation probes be trained from lazy or from eager activations, and is either of them slower
//! or hungrier than before?
//!
//! The modules in the order the data flows: a [`data`] set of dialogues becomes [`tokens`] through [`text`]; a
//! [`model`] turns tokens into activations, through a lazy plan ([`acts`]) or the [`eager`] baseline; a [`probe`] is
//! trained on them; [`workload`] composes these into the two benchmarked tasks; [`runner`] runs each case in a process
//! of its own; [`results`] is the file that keeps what was measured, [`matrix`] runs many
//! of them and [`planner`] says beforehand what they will take, [`stats`] says how sure it is, and [`report`] shows it.

#![warn(clippy::print_stdout)] // `commands::stdout` does not panic where the pipe is closed.

pub mod acts;
pub mod cli;
pub mod commands;
pub mod compare;
pub mod crossover;
pub mod data;
pub mod eager;
pub mod error;
pub mod gate;
pub mod history;
pub mod import;
pub mod matrix;
pub mod measure;
pub mod model;
pub mod panics;
pub mod planner;
pub mod probe;
pub mod report;
pub mod results;
pub mod runner;
pub mod selftest;
pub mod stats;
pub mod text;
pub mod tokens;
pub mod workload;

pub use error::{Error, Result};
