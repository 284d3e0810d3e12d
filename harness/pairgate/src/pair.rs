//! A pair of runs: one process of each side, taken next to each other.

use serde::{Deserialize, Serialize};

use crate::source::{ObservationResult, Side};

/// A part of a gate: pairs of one stage are never used in the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GateStage {
    /// All cases.
    Screen,
    /// The flagged cases, with fresh pairs.
    Confirm,
}

/// A pair of runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GatePair {
    /// The part of the gate.
    pub stage: GateStage,
    /// The case.
    pub case: String,
    /// The number of the pair in the stage, from 0 on.
    pub index: usize,
    /// The side that was run first.
    pub first: Side,
    /// The result of base.
    pub base: ObservationResult,
    /// The result of head.
    pub head: ObservationResult,
}

impl GatePair {
    /// Whether a run of either side failed.
    pub fn has_failed(&self) -> bool {
        [&self.base, &self.head].into_iter().any(|side| matches!(side, ObservationResult::Failed(_)))
    }
}
