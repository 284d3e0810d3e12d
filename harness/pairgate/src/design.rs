//! How many pairs the gate takes, and how strictly it judges them.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Pairs of a positive and a negative test row that may swap their order where other features are allowed. A change of
/// rounding swaps pairs whose scores nearly tie: another order of bf16 sums moved the mean AUROC of a sweep by 5.4 of 3,600
/// pairs (docs/measurements/cpu.md).
pub const SWAPPED_PAIRS: u32 = 6;

/// How often the pairs of a case are judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GateMode {
    /// One case: judged at each look, at a level that accounts for the number of looks.
    Looks,
    /// A suite: judged at each look to flag cases, which fresh pairs then confirm, with Holm's correction for the number
    /// of flagged metrics.
    ScreenConfirm,
}

/// The design of a gate. Fractions are not percentages: 0.01 is 1 %.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GateDesign {
    /// Seed of the order within pairs and of the order of cases.
    pub seed: u64,
    /// Whether flagged cases are confirmed.
    pub mode: GateMode,
    /// A slowdown of at most this fraction is not a regression.
    pub delta: f64,
    /// A slowdown of this fraction must not pass.
    pub effect: f64,
    /// The probability of a false alarm that is allowed, over all looks and flagged cases.
    pub alpha: f64,
    /// Pairs at each look.
    pub looks: Vec<usize>,
    /// Significance level of each look: of an alarm where a case is gated alone, of a flag where fresh pairs will confirm it.
    pub look_level: f64,
    /// The slowdown that the test at a look allows: `delta` for an alarm, 0 for a flag.
    pub look_delta: f64,
    /// The probability that a slowdown of `effect` passes at a look.
    pub pass_level: f64,
    /// Fresh pairs for each flagged case; 0 where there is no confirmation.
    pub confirm_pairs: usize,
    /// Memory: a growth of at most this fraction is not a regression...
    #[serde(rename = "memory_margin_share")]
    pub memory_margin_fraction: f64,
    /// ...nor is a growth of at most so many MiB.
    pub memory_margin_mb: f64,
    /// Counts: a growth of at most this fraction is not a regression.
    pub count_margin: f64,
    /// AUROC: a difference of at most this much is not a regression.
    pub auroc_tolerance: f64,
    /// Whether results with another digest than base's pass; their AUROC is still compared.
    pub allow_other_features: bool,
    /// AUROC, where other features are allowed: a difference of so many swapped pairs of test rows is not a regression.
    #[serde(default)]
    pub auroc_swapped_pairs: u32,
}

impl GateDesign {
    /// The design for one case.
    pub fn looks(seed: u64) -> Self {
        GateDesign {
            seed,
            mode: GateMode::Looks,
            delta: 0.01,
            effect: 0.05,
            alpha: 0.05,
            looks: vec![10, 20, 30, 40],
            // Pocock 1977: four looks at this level spend 5 % in all.
            look_level: 0.0197,
            look_delta: 0.01,
            pass_level: 0.05,
            confirm_pairs: 0,
            memory_margin_fraction: 0.002,
            memory_margin_mb: 0.25,
            count_margin: 0.001,
            auroc_tolerance: 1e-6,
            allow_other_features: false,
            auroc_swapped_pairs: SWAPPED_PAIRS,
        }
    }

    /// The design for a suite.
    pub fn screen_confirm(seed: u64) -> Self {
        GateDesign {
            mode: GateMode::ScreenConfirm,
            looks: vec![10, 20],
            look_level: 0.10,
            look_delta: 0.0,
            confirm_pairs: 40,
            ..Self::looks(seed)
        }
    }

    /// Refuses an inconsistent design.
    ///
    /// # Errors
    /// Fractions out of range, looks that are not ascending.
    pub fn check(&self) -> Result<()> {
        for (name, value) in [
            ("--effect", self.effect),
            ("--alpha", self.alpha),
            ("the level of a look", self.look_level),
            ("the level of passing", self.pass_level),
        ] {
            if !(value > 0.0 && value < 1.0) {
                return Err(Error::usage(format!("{name} is {value}; it must lie between 0 and 1 (0.05 is 5 %)")));
            }
        }
        if !(self.delta >= 0.0 && self.delta < self.effect) {
            return Err(Error::usage(format!(
                "--delta {} must be at least 0 and below --effect {}",
                self.delta, self.effect
            )));
        }
        if self.looks.first().is_none_or(|first| *first == 0) || self.looks.windows(2).any(|pair| pair[0] >= pair[1]) {
            return Err(Error::usage("looks must be ascending numbers of pairs, as in 10,20,30,40"));
        }
        if self.mode == GateMode::ScreenConfirm && self.confirm_pairs == 0 {
            return Err(Error::usage("the number of confirming pairs must be above 0 for a suite"));
        }
        Ok(())
    }
}
