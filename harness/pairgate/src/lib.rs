//! Is `head` worse than `base`? Paired regression tests of any two programs, with known error rates.
//!
//! Both programs run on one machine in pairs and in random order, so that a disturbance hits both sides. A *case* is one
//! piece of work; a *pair* is one process of each side; a *look* is an interim analysis after a number of pairs. Each
//! metric of a case is judged by its own rule (times by the exact signed-rank test of log-ratios, memory by separated
//! ranges), flagged cases are confirmed by fresh pairs, and the outcome is an exit status: 0 pass, 1 regressed, 2 broken,
//! 3 inconclusive.
//!
//! ```
//! use pairgate::design::GateDesign;
//! use pairgate::engine::{self, NoopGateObserver};
//! use pairgate::source::{CommandCase, CommandSource};
//! use pairgate::{GateReport, Verdict};
//!
//! # fn main() -> pairgate::Result<()> {
//! let case = CommandCase::new("noop", "true", "true");
//! let mut source = CommandSource::new(vec![case], Default::default())?;
//! let cases = engine::run(&mut source, &GateDesign::looks(1), &mut NoopGateObserver)?;
//! assert!(cases[0].pairs >= 10);
//! println!("{}", Verdict::of_cases(&cases));
//! # Ok(()) }
//! ```
//!
//! Entry points:
//!
//! | to | see |
//! |---|---|
//! | gate two commands from a terminal | the binary `pairgate` |
//! | gate anything else | implement [`source::Source`]; [`engine::run`] takes the pairs and judges them |
//! | choose pairs, margins and levels | [`design::GateDesign`] |
//! | survive an interruption | [`journal::GateJournal`] |
//! | print or export a report | [`export`] |
//! | learn the error rates of the gate | [`selftest`]: on recorded noise, or with injected slowdowns |
//! | judge one stored run by many earlier ones | [`history`], [`compare`] |
//! | use the statistics alone | [`stats`] |
//!
//! The engine sees observations and neither processes nor files: the same engine gates programs, is tested on synthetic
//! numbers and is replayed on recorded noise. The crate knows nothing of what the programs compute; callers hand over
//! names, numbers and, where a report keeps them, opaque JSON.

pub mod atomic_file;
pub mod case;
#[cfg(feature = "clap")]
pub mod command_line;
pub mod compare;
pub mod console;
pub mod design;
pub mod engine;
pub mod error;
pub mod export;
pub mod history;
pub mod journal;
pub mod judge;
pub mod lock;
pub mod metric;
pub mod own_output;
pub mod pair;
pub mod process;
pub mod report;
pub mod selftest;
pub mod source;
pub mod stats;
pub mod temporary;

#[cfg(test)]
mod engine_tests;
#[cfg(test)]
mod test_support;

pub use error::{Error, Result};
pub use metric::{Metric, MetricRule};
pub use report::{CaseReport, GateReport, MetricReport, Verdict};
