//! Takes pairs from a source and judges them.
//!
//! Pairs are taken in rounds: a pair of each case that is still open, in a random order, so that a bad minute of the
//! machine affects one pair of every case and not every pair of one. Which side comes first in a pair is random. Both
//! follow from the seed alone, so that a resumed gate takes the same pairs.

use std::collections::BTreeMap;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::case::GatedCase;
use crate::design::{GateDesign, GateMode};
use crate::error::Result;
use crate::metric::Metric;
use crate::pair::{GatePair, GateStage};
use crate::report::CaseReport;
use crate::source::{Side, Source};
use crate::stats::holm;

/// Receives the pairs of a gate while it runs, and returns those of an interrupted one.
pub trait GateObserver {
    /// The pair that was taken before an interruption, if there is one: it is then not taken again.
    fn recorded_pair(&mut self, stage: GateStage, case: &str, index: usize) -> Option<GatePair>;

    /// A pair was taken.
    ///
    /// # Errors
    /// The pair cannot be recorded, which ends the gate.
    fn on_pair(&mut self, pair: &GatePair) -> Result<()>;

    /// A round begins.
    fn on_round(&mut self, round: &GateRound);
}

/// A round: one pair of each case that is still open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GateRound {
    /// The part of the gate.
    pub stage: GateStage,
    /// The number of the round in the stage, from 0 on.
    pub index: usize,
    /// The largest number of rounds that the stage can have.
    pub max_rounds: usize,
    /// Cases that are still open.
    pub cases: usize,
}

/// Records and shows nothing.
pub struct NoopGateObserver;

impl GateObserver for NoopGateObserver {
    fn recorded_pair(&mut self, _stage: GateStage, _case: &str, _index: usize) -> Option<GatePair> {
        None
    }

    fn on_pair(&mut self, _pair: &GatePair) -> Result<()> {
        Ok(())
    }

    fn on_round(&mut self, _round: &GateRound) {}
}

/// Runs the gate over all cases of `source`.
///
/// # Errors
/// The user interrupts, a program cannot be started, or the observer cannot record a pair. A failure of one case is in its
/// report.
pub fn run(source: &mut dyn Source, design: &GateDesign, observer: &mut dyn GateObserver) -> Result<Vec<CaseReport>> {
    design.check()?;
    let mut cases: Vec<GatedCase> = source
        .cases()
        .into_iter()
        .map(|name| (source.metrics(&name), name))
        .map(|(metrics, name)| GatedCase::new(name, metrics))
        .collect();
    let mut open: Vec<usize> = (0..cases.len()).collect();
    let max_rounds = design.looks.last().copied().unwrap_or(0);
    for index in 0..max_rounds {
        if open.is_empty() {
            break;
        }
        let round = GateRound { stage: GateStage::Screen, index, max_rounds, cases: open.len() };
        take_round(source, design, observer, &mut cases, &open, &round)?;
        open.retain(|index| !cases[*index].is_broken());
        if design.looks.contains(&(index + 1)) {
            for index in &open {
                cases[*index].judge_at_look(design);
            }
            open.retain(|index| cases[*index].is_open());
        }
    }
    let confirmed = match design.mode {
        GateMode::Looks => BTreeMap::new(),
        GateMode::ScreenConfirm => confirm(source, design, observer, &mut cases)?,
    };
    let unconfirmed = BTreeMap::new();
    Ok(cases.iter().map(|case| case.report(design, confirmed.get(&case.name).unwrap_or(&unconfirmed))).collect())
}

/// Takes fresh pairs of all cases with an unconfirmed metric. Returns the p-value of each such metric after Holm's
/// correction for all of them.
fn confirm(
    source: &mut dyn Source,
    design: &GateDesign,
    observer: &mut dyn GateObserver,
    cases: &mut [GatedCase],
) -> Result<BTreeMap<String, BTreeMap<Metric, f64>>> {
    let unconfirmed: Vec<(usize, Metric)> = (0..cases.len())
        .flat_map(|index| cases[index].unconfirmed_metrics().into_iter().map(move |metric| (index, metric)))
        .collect();
    let mut open: Vec<usize> = unconfirmed.iter().map(|(index, _)| *index).collect();
    open.dedup();
    for index in 0..design.confirm_pairs {
        open.retain(|index| !cases[*index].is_broken());
        if open.is_empty() {
            break;
        }
        let max_rounds = design.confirm_pairs;
        let round = GateRound { stage: GateStage::Confirm, index, max_rounds, cases: open.len() };
        take_round(source, design, observer, cases, &open, &round)?;
    }
    let mut tested = Vec::new();
    for (index, metric) in unconfirmed {
        match cases[index].p_value(metric, design) {
            Ok(p_value) => tested.push((index, metric, p_value)),
            Err(error) => cases[index].break_with(&error),
        }
    }
    let adjusted = holm(&tested.iter().map(|(_, _, chance)| *chance).collect::<Vec<f64>>())?;
    let mut confirmed: BTreeMap<String, BTreeMap<Metric, f64>> = BTreeMap::new();
    for ((index, metric, _), chance) in tested.into_iter().zip(adjusted) {
        confirmed.entry(cases[index].name.clone()).or_default().insert(metric, chance);
    }
    Ok(confirmed)
}

/// Takes a pair of each open case.
fn take_round(
    source: &mut dyn Source,
    design: &GateDesign,
    observer: &mut dyn GateObserver,
    cases: &mut [GatedCase],
    open: &[usize],
    round: &GateRound,
) -> Result<()> {
    observer.on_round(round);
    let mut order = open.to_vec();
    order.shuffle(&mut generator(design.seed, round.stage, round.index, ""));
    for index in order {
        let name = cases[index].name.clone();
        let pair = match observer.recorded_pair(round.stage, &name, round.index) {
            Some(pair) => pair,
            None => {
                let pair = take_pair(source, design, round, &name)?;
                observer.on_pair(&pair)?;
                pair
            }
        };
        cases[index].add(pair);
    }
    Ok(())
}

fn take_pair(source: &mut dyn Source, design: &GateDesign, round: &GateRound, case: &str) -> Result<GatePair> {
    let mut sides = [Side::Base, Side::Head];
    sides.shuffle(&mut generator(design.seed, round.stage, round.index, case));
    let first = source.observe(case, sides[0])?;
    let second = source.observe(case, sides[1])?;
    let (base, head) = if sides[0] == Side::Base { (first, second) } else { (second, first) };
    Ok(GatePair { stage: round.stage, case: case.to_owned(), index: round.index, first: sides[0], base, head })
}

/// A random generator that depends only on the seed and on the position in the gate.
fn generator(seed: u64, stage: GateStage, index: usize, case: &str) -> ChaCha8Rng {
    let stage: u8 = match stage {
        GateStage::Screen => 0,
        GateStage::Confirm => 1,
    };
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes()).update(&[stage]).update(&(index as u64).to_le_bytes()).update(case.as_bytes());
    ChaCha8Rng::from_seed(*hasher.finalize().as_bytes())
}
