//! Notifications of a case while it runs.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A phase of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Reading data and weights; not timed.
    Loading,
    /// Running the model.
    Extracting,
    /// Training and scoring probes.
    Training,
    /// Releasing the model: before [`Phase::Training`] on the CPU, after the measurement on a GPU.
    Releasing,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Phase::Loading => "loading",
            Phase::Extracting => "extracting",
            Phase::Training => "training",
            Phase::Releasing => "releasing",
        })
    }
}

/// Receives notifications of a case while it runs.
pub trait CaseObserver: Send + Sync {
    /// A phase begins.
    fn phase(&self, phase: Phase);
    /// `done` of `total` units of the phase are complete.
    fn progress(&self, done: u64, total: u64, unit: &str);
    /// Loading is complete and the measurement begins.
    fn loaded(&self);
    /// The measurement is complete.
    fn measured(&self);
}

/// Ignores all notifications.
pub struct NoopObserver;

impl CaseObserver for NoopObserver {
    fn phase(&self, _phase: Phase) {}
    fn progress(&self, _done: u64, _total: u64, _unit: &str) {}
    fn loaded(&self) {}
    fn measured(&self) {}
}
