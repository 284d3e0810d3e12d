//! How many pairs the gate takes, and how strictly it judges them.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// How a case's pairs are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// One case: judged at each look, at a level that pays for looking several times.
    Looks,
    /// A suite: looked at likewise, and what is flagged is confirmed by fresh pairs, with Holm's correction for the
    /// number of flagged cases.
    ScreenConfirm,
}

/// The design of a gate. Shares are shares: 0.01 is 1 %.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Design {
    /// Seed of the order within pairs and of the order of cases.
    pub seed: u64,
    /// How pairs are looked at.
    pub mode: Mode,
    /// A slowdown of at most this much is none.
    pub delta: f64,
    /// A slowdown of this much must not pass.
    pub effect: f64,
    /// The chance of a false alarm that is allowed, over all looks and flagged cases.
    pub alpha: f64,
    /// Pairs at each look.
    pub looks: Vec<usize>,
    /// Level of each look: of an alarm where a case stands alone, of a flag where fresh pairs will confirm it.
    pub look_level: f64,
    /// The slowdown that is none at a look: `delta` for an alarm, 0 for a flag.
    pub look_delta: f64,
    /// The chance that a slowdown of `effect` passes at a look.
    pub pass_level: f64,
    /// Fresh pairs for each flagged case; 0 where there is no confirmation.
    pub confirm_pairs: usize,
    /// Memory: a growth of at most this share is none.
    pub memory_margin_share: f64,
    /// Memory: a growth of at most this many MB is none.
    pub memory_margin_mb: f64,
    /// Counts: a growth of at most this share is none.
    pub count_margin: f64,
    /// AUROC: a difference of at most this much is none.
    pub auroc_tolerance: f64,
    /// Whether other features than base's pass; their own AUROC is still compared.
    pub allow_other_features: bool,
}

impl Design {
    /// The design for one case.
    pub fn looks(seed: u64) -> Self {
        Design {
            seed,
            mode: Mode::Looks,
            delta: 0.01,
            effect: 0.05,
            alpha: 0.05,
            looks: vec![10, 20, 30, 40],
            look_level: 0.0197,
            look_delta: 0.01,
            pass_level: 0.05,
            confirm_pairs: 0,
            memory_margin_share: 0.002,
            memory_margin_mb: 0.25,
            count_margin: 0.001,
            auroc_tolerance: 1e-6,
            allow_other_features: false,
        }
    }

    /// The design for a suite.
    pub fn screen_confirm(seed: u64) -> Self {
        Design {
            mode: Mode::ScreenConfirm,
            looks: vec![10, 20],
            look_level: 0.10,
            look_delta: 0.0,
            confirm_pairs: 40,
            ..Self::looks(seed)
        }
    }

    /// The most pairs that a case can take.
    pub fn most_pairs(&self) -> usize {
        self.looks.last().copied().unwrap_or(0) + self.confirm_pairs
    }

    /// Refuses what cannot be.
    ///
    /// # Errors
    /// Shares out of range, looks that are not ascending.
    pub fn check(&self) -> Result<()> {
        let share = |name: &str, value: f64| match value > 0.0 && value < 1.0 {
            true => Ok(()),
            false => Err(Error::usage(format!("{name} is {value}; it must lie between 0 and 1 (0.05 is 5 %)"))),
        };
        share("--effect", self.effect)?;
        share("--alpha", self.alpha)?;
        share("the level of a look", self.look_level)?;
        share("the level of passing", self.pass_level)?;
        if !(self.delta >= 0.0 && self.delta < self.effect) {
            return Err(Error::usage(format!(
                "--delta {} must be at least 0 and below --effect {}",
                self.delta, self.effect
            )));
        }
        if self.looks.first().is_none_or(|first| *first == 0) || self.looks.windows(2).any(|pair| pair[0] >= pair[1]) {
            return Err(Error::usage("looks must be ascending numbers of pairs, as in 10,20,30,40"));
        }
        if self.mode == Mode::ScreenConfirm && self.confirm_pairs == 0 {
            return Err(Error::usage("a suite's flagged cases need pairs to confirm them by"));
        }
        Ok(())
    }
}
