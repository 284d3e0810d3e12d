//! The subcommands, one a file.

pub mod cache;
pub mod check;
pub mod completions;
pub mod datasets;
pub mod env;
pub mod explain;
pub mod features;
pub mod halved;
pub mod import;
pub mod models;
pub mod profile;
pub mod recommend;
pub mod report;
pub mod result_files;
pub mod run;
pub mod settings;
pub mod worker;
