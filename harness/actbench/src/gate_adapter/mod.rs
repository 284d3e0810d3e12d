//! Adapters of actbench for pairgate: suites of cases, runs of actbench executables as observations, result files as runs of
//! a history, and a testbed for the self-test.
//!
//! pairgate knows nothing of activations; everything that names a task, a method or a result file is here.

pub mod figures;
pub mod history;
pub mod runs;
pub mod staging;
pub mod suite;
pub mod testbed;

#[cfg(test)]
pub(crate) mod tests;

pub use figures::TaskMethod;
pub use history::HistoryEntry;

/// The gate's name in titles of reports.
pub const GATE_NAME: &str = "actbench gate";

/// Name and version of gate reports; raised when a name changes its meaning.
pub const GATE_SCHEMA: &str = "actbench-gate/1";

/// Name and version of gate journals.
pub const JOURNAL_SCHEMA: &str = "actbench-gate-journal/1";

/// Name and version of self-test reports.
pub const SELFTEST_SCHEMA: &str = "actbench-selftest/2";

/// Name and version of comparisons as JSON.
pub const COMPARE_SCHEMA: &str = "actbench-compare/1";
