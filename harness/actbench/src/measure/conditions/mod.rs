//! Conditions of the machine that disturb measurements, and the remedies.
//!
//! [`read`] gathers the texts of the system, [`parse`] parses them, and [`judge`] derives [`Warning`]s. [`counters`] has what
//! only a stretch of time shows: stolen CPU time, swapped pages, throttled clocks. Nothing here fails: what cannot be read is
//! unknown.

pub mod counters;
pub mod judge;
pub mod parse;
pub mod read;
pub mod state;
pub mod warning;

pub use counters::SystemCounters;
pub use judge::{during, warnings};
pub use read::conditions;
pub use state::Conditions;
pub use warning::{Kind, Level, Warning, short_line};
