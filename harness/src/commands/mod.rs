//! The subcommands, one a file.

pub mod cache;
pub mod compare;
pub mod completions;
pub mod datasets;
pub mod env;
pub mod explain;
pub mod exports;
pub mod features;
pub mod gate;
mod gate_criterion;
mod gate_progress;
pub mod history;
pub mod import;
pub mod models;
pub mod profile;
pub mod recommend;
pub mod report;
pub mod result_files;
pub mod run;
pub mod selftest;
mod selftest_progress;
pub mod settings;
pub mod worker;
