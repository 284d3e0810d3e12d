//! The regression gate: is `head` slower or hungrier than `base` on this machine, with known error rates?
//!
//! [`source`] is where observations come from (child processes of two programs, criterion's bench programs, recorded
//! noise), [`design`] how many pairs are taken and how strictly they are judged, [`engine`] takes the pairs and judges
//! them, [`report`] is what comes out. The engine knows neither processes nor files, so that one and the same engine
//! is gated with, tested on made-up numbers and tried on recorded noise.

pub mod design;
pub mod engine;
pub mod metric;
pub mod report;
pub mod source;

pub use metric::{Metric, Rule};
pub use report::{CaseReport, GateReport, MetricReport, Outcome, Verdict};
pub use source::{Observation, Observed, Side, Source};
