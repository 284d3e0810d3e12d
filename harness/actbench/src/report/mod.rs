//! Results as text, tables, charts and reports. Pure: no files, no clock.

pub mod ablation;
pub mod chart;
pub mod compare;
pub mod document;
pub mod fit;
pub mod format;
pub mod gate;
pub mod history;
pub mod phases;
pub mod precision;
pub mod profile;
pub mod quality;
pub mod rule_costs;
pub mod selftest;
pub mod sentence;
pub mod table;
pub mod trace;

#[cfg(test)]
mod tests;
