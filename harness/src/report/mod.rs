//! Results as text for people.

pub mod ablation;
pub mod chart;
pub mod document;
pub mod format;
pub mod profile;
pub mod sentence;
pub mod table;
pub mod trace;

#[cfg(test)]
mod tests;
