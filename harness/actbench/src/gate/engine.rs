//! Takes pairs from a source and judges them.
//!
//! Pairs are taken round by round: a pair of each case that is still open, in a random order, so that a bad minute of
//! the machine hits a pair of every case and not every pair of one. Which side comes first in a pair is random. Both
//! follow from the seed alone, so that a gate that goes on after an interruption takes the same pairs.

use std::collections::BTreeMap;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::case::Case;
use super::design::{Design, Mode};
use super::metric::Metric;
use super::report::CaseReport;
use super::source::{Observed, Side, Source};
use crate::error::Result;
use crate::stats::holm;

/// Part of a gate: pairs of one are never used in the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// All cases.
    Screen,
    /// Those that were flagged, with fresh pairs.
    Confirm,
}

/// A pair of runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pair {
    /// The part of the gate.
    pub stage: Stage,
    /// The case.
    pub case: String,
    /// The place in the stage, from 0 on.
    pub index: usize,
    /// The side that was run first.
    pub first: Side,
    /// What base came to.
    pub base: Observed,
    /// What head came to.
    pub head: Observed,
}

/// Hears of a gate while it runs, and remembers what an earlier one did; every method has a default that does nothing.
pub trait Listener {
    /// A pair that was taken before an interruption, if there is one: it is then not taken again.
    fn recorded(&mut self, _stage: Stage, _case: &str, _index: usize) -> Option<Pair> {
        None
    }

    /// A pair was taken.
    ///
    /// # Errors
    /// It cannot be kept.
    fn taken(&mut self, _pair: &Pair) -> Result<()> {
        Ok(())
    }

    /// A round begins: of at most so many in this stage, with so many cases.
    fn round(&mut self, _stage: Stage, _round: usize, _most: usize, _cases: usize) {}
}

/// Nobody listens.
pub struct Silent;

impl Listener for Silent {}

/// Runs the gate over all cases of `source`.
///
/// # Errors
/// The user interrupts, a program cannot be started, or the listener cannot keep a pair. What is wrong with one case
/// is in its report.
pub fn run(source: &mut dyn Source, design: &Design, listener: &mut dyn Listener) -> Result<Vec<CaseReport>> {
    design.check()?;
    let mut cases: Vec<Case> = source
        .cases()
        .into_iter()
        .map(|name| (source.metrics(&name), name))
        .map(|(it, name)| Case::new(name, it))
        .collect();
    let mut open: Vec<usize> = (0..cases.len()).collect();
    let most = design.looks.last().copied().unwrap_or(0);
    for round in 0..most {
        if open.is_empty() {
            break;
        }
        take_round(source, design, listener, &mut cases, &open, (Stage::Screen, round, most))?;
        open.retain(|index| !cases[*index].is_broken());
        if design.looks.contains(&(round + 1)) {
            for index in &open {
                cases[*index].look(design);
            }
            open.retain(|index| cases[*index].is_open());
        }
    }
    let confirmed = match design.mode {
        Mode::Looks => BTreeMap::new(),
        Mode::ScreenConfirm => confirm(source, design, listener, &mut cases)?,
    };
    let none = BTreeMap::new();
    Ok(cases.iter().map(|case| case.report(design, confirmed.get(&case.name).unwrap_or(&none))).collect())
}

/// Takes fresh pairs of all cases with a doubtful metric. Gives each such metric's chance after Holm's correction for
/// all of them.
fn confirm(
    source: &mut dyn Source,
    design: &Design,
    listener: &mut dyn Listener,
    cases: &mut [Case],
) -> Result<BTreeMap<String, BTreeMap<Metric, f64>>> {
    let doubtful: Vec<(usize, Metric)> = (0..cases.len())
        .flat_map(|index| cases[index].doubtful().into_iter().map(move |metric| (index, metric)))
        .collect();
    let mut open: Vec<usize> = doubtful.iter().map(|(index, _)| *index).collect();
    open.dedup();
    for round in 0..design.confirm_pairs {
        open.retain(|index| !cases[*index].is_broken());
        if open.is_empty() {
            break;
        }
        take_round(source, design, listener, cases, &open, (Stage::Confirm, round, design.confirm_pairs))?;
    }
    let mut tested = Vec::new();
    for (index, metric) in doubtful {
        match cases[index].chance(metric, design) {
            Ok(chance) => tested.push((index, metric, chance)),
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
    design: &Design,
    listener: &mut dyn Listener,
    cases: &mut [Case],
    open: &[usize],
    (stage, round, most): (Stage, usize, usize),
) -> Result<()> {
    listener.round(stage, round, most, open.len());
    let mut order = open.to_vec();
    order.shuffle(&mut generator(design.seed, stage, round, ""));
    for index in order {
        let name = cases[index].name.clone();
        let pair = match listener.recorded(stage, &name, round) {
            Some(pair) => pair,
            None => {
                let pair = take_pair(source, design, stage, &name, round)?;
                listener.taken(&pair)?;
                pair
            }
        };
        cases[index].take(pair);
    }
    Ok(())
}

fn take_pair(source: &mut dyn Source, design: &Design, stage: Stage, case: &str, index: usize) -> Result<Pair> {
    let mut sides = [Side::Base, Side::Head];
    sides.shuffle(&mut generator(design.seed, stage, index, case));
    let first = sides[0];
    let one = source.observe(case, sides[0])?;
    let other = source.observe(case, sides[1])?;
    let (base, head) = if first == Side::Base { (one, other) } else { (other, one) };
    Ok(Pair { stage, case: case.to_owned(), index, first, base, head })
}

/// A generator that follows from the seed and the place alone.
fn generator(seed: u64, stage: Stage, index: usize, case: &str) -> ChaCha8Rng {
    let stage: u8 = match stage {
        Stage::Screen => 0,
        Stage::Confirm => 1,
    };
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes()).update(&[stage]).update(&(index as u64).to_le_bytes()).update(case.as_bytes());
    ChaCha8Rng::from_seed(*hasher.finalize().as_bytes())
}
