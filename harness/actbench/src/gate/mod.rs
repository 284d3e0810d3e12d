//! The regression gate: is `head` slower or hungrier than `base` on this machine, with known error rates?
//!
//! [`source`] is where observations come from ([`programs`]: child processes of two programs, which [`revisions`] may
//! have built; recorded noise; others), [`design`] how many pairs are taken and how strictly they are judged,
//! [`engine`] takes the pairs, [`judge`] judges them, [`report`] is what comes out. [`journal`] keeps every pair. The
//! engine knows neither processes nor files, so that one and the same engine is gated with, tested on made-up numbers
//! and tried on recorded noise.

mod case;
pub mod criterion;
pub mod design;
pub mod engine;
pub mod instructions;
pub mod journal;
pub mod judge;
pub mod metric;
pub mod programs;
pub mod report;
pub mod revisions;
pub mod source;
pub mod suite;

#[cfg(test)]
mod tests;

pub use metric::{Metric, Rule};
pub use report::{CaseReport, GateReport, MetricReport, Outcome, Verdict};
pub use source::{Observation, Observed, Side, Source};
