//! The gate on this machine: whole gates of one short case, without a difference, against fresh copies of the program, and
//! with real extra work or memory.
//!
//! The caller's [`Testbed`] makes the sources: it knows how to add work or memory to a program's runs.

use std::path::PathBuf;
use std::time::Duration;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Resolution;
use super::trials::{CONFIDENCE, ChangeTrials, CopiedFile, HeadLoad, InjectedChange, MEBIBYTE, Testbed, TrialGate};
use crate::design::GateDesign;
use crate::error::{Error, Result};
use crate::metric::Metric;
use crate::report::CaseReport;
use crate::source::{Observation, ObservationResult, Side};
use crate::stats::RatioEstimate;
use crate::stats::summary::median;

/// A slowdown is resolved if at least this fraction of its gates caught it.
pub const POWER: f64 = 0.9;

/// Pairs of the pilot.
const PILOT_PAIRS: usize = 10;

/// Units of work that the pilot begins with. They are quadrupled until the case is slowed by [`PILOT_SLOWDOWN`].
const PILOT_UNITS: u64 = 1 << 10;

/// A slowdown that is large compared with the noise, so that the pilot measures it to a few percent of itself.
const PILOT_SLOWDOWN: f64 = 0.3;

/// More units than this take hours: if they do not slow the case, its time is not being measured.
const MAX_UNITS: u64 = 1 << 28;

/// The changes that are tried, and how often.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SelftestPlan {
    /// The program.
    pub program: PathBuf,
    /// Its arguments for the case, for the record.
    pub arguments: Vec<String>,
    /// Gates without a difference.
    pub unchanged_gates: usize,
    /// Gates of each slowdown. Growths of memory and fresh copies get half as many.
    pub changed_gates: usize,
    /// Slowdowns, as fractions.
    pub slowdowns: Vec<f64>,
    /// Growths of the allocated memory, as fractions.
    #[serde(rename = "memory_shares")]
    pub memory_fractions: Vec<f64>,
    /// Growths of the allocated memory, in bytes.
    pub memory_bytes: Vec<u64>,
    /// Seed of the order of gates, and of the gates.
    pub seed: u64,
    /// The longest that a run may take.
    pub timeout: Option<Duration>,
}

/// The caller's facts about itself and the machine, for the report.
#[derive(Clone, Debug, PartialEq)]
pub struct SelftestContext {
    /// Name and version of the caller's self-test reports.
    pub schema: String,
    /// The caller's record of the machine and of its own build.
    pub environment: Value,
    /// Digest of the machine's facts.
    pub machine: String,
    /// The current time, RFC 3339 in UTC.
    pub date: String,
}

/// The report of a self-test.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SelftestReport {
    /// Name and version of the caller's self-test reports.
    pub schema: String,
    /// The caller's record of the machine and of its own build.
    pub environment: Value,
    /// The changes that were tried.
    pub plan: SelftestPlan,
    /// The design of the gates; their seeds differ.
    pub design: GateDesign,
    /// Median seconds of the case.
    pub case_s: f64,
    /// Median of the memory that the case allocates, in MiB.
    pub case_anonymous_mb: f64,
    /// Units of work that double the case's time.
    pub units_to_double: f64,
    /// The results for each change.
    pub trials: Vec<ChangeTrials>,
    /// The smallest slowdown that is resolved.
    pub resolution: Resolution,
}

/// Receives the progress of a self-test.
pub trait SelftestObserver {
    /// The pilot begins.
    fn on_pilot(&mut self, pairs: usize);
    /// A gate has ended, the `done`-th of `total`.
    fn on_gate(&mut self, done: usize, total: usize, change: InjectedChange, case: &CaseReport);
}

/// Runs the pilot and then all gates in random order. `context` is called at the end.
///
/// # Errors
/// The program cannot be started, the case fails, or the user interrupts.
pub fn run(
    plan: &SelftestPlan,
    testbed: &dyn Testbed,
    context: impl FnOnce() -> SelftestContext,
    observer: &mut dyn SelftestObserver,
) -> Result<SelftestReport> {
    observer.on_pilot(PILOT_PAIRS);
    let pilot = PilotResult::measure(testbed)?;
    let mut changes = vec![InjectedChange::None];
    changes.extend(plan.slowdowns.iter().copied().map(InjectedChange::Slowdown));
    changes.extend(plan.memory_bytes.iter().copied().map(InjectedChange::MemoryBytes));
    changes.extend(plan.memory_fractions.iter().copied().map(InjectedChange::MemoryFraction));
    changes.extend([CopiedFile::Cached, CopiedFile::Evicted].map(InjectedChange::FreshCopy));
    // In random order, so that a bad minute of the machine does not affect one change alone.
    let mut order: Vec<usize> = Vec::new();
    for (index, change) in changes.iter().enumerate() {
        let gates = match change {
            InjectedChange::None => plan.unchanged_gates,
            InjectedChange::Slowdown(_) => plan.changed_gates,
            InjectedChange::MemoryFraction(_) | InjectedChange::MemoryBytes(_) | InjectedChange::FreshCopy(_) => {
                plan.changed_gates.div_ceil(2)
            }
        };
        order.extend(std::iter::repeat_n(index, gates));
    }
    order.shuffle(&mut ChaCha8Rng::seed_from_u64(plan.seed));
    let mut gates: Vec<Vec<TrialGate>> = vec![Vec::new(); changes.len()];
    for (done, &index) in order.iter().enumerate() {
        let seed = plan.seed.wrapping_add(done as u64 + 1);
        let gate = TrialGate::run(testbed, pilot.head_load(changes[index]), seed)?;
        observer.on_gate(done + 1, order.len(), changes[index], &gate.case);
        gates[index].push(gate);
    }
    let trials: Vec<ChangeTrials> =
        changes.iter().zip(&gates).map(|(change, gates)| ChangeTrials::of(*change, gates)).collect();
    let context = context();
    Ok(SelftestReport {
        resolution: resolution(&context, &trials),
        schema: context.schema,
        environment: context.environment,
        plan: plan.clone(),
        design: GateDesign::looks(plan.seed),
        case_s: pilot.seconds,
        case_anonymous_mb: pilot.allocated_mib,
        units_to_double: pilot.units_to_double,
        trials,
    })
}

/// The smallest slowdown that at least [`POWER`] of its gates caught, as well as all larger ones.
fn resolution(context: &SelftestContext, trials: &[ChangeTrials]) -> Resolution {
    let mut slowdowns: Vec<(f64, bool)> = trials
        .iter()
        .filter_map(|trial| match trial.change {
            InjectedChange::Slowdown(fraction) => {
                Some((fraction, trial.regressed as f64 >= POWER * trial.gates as f64))
            }
            _ => None,
        })
        .collect();
    slowdowns.sort_by(|a, b| b.0.total_cmp(&a.0));
    let caught = slowdowns.iter().take_while(|(_, is_caught)| *is_caught);
    // A fresh copy is the same program.
    let unchanged = || trials.iter().filter(|trial| trial.change.is_none());
    Resolution {
        machine: context.machine.clone(),
        date: context.date.clone(),
        smallest_effect: caught.last().map(|(fraction, _)| *fraction),
        trials_without_difference: unchanged().map(|trial| trial.gates).sum(),
        false_alarms: unchanged().map(|trial| trial.regressed).sum(),
    }
}

/// The resources of the case, and how much extra work makes how much of a slowdown.
struct PilotResult {
    seconds: f64,
    allocated_mib: f64,
    units_to_double: f64,
}

impl PilotResult {
    fn measure(testbed: &dyn Testbed) -> Result<Self> {
        let mut units = PILOT_UNITS;
        loop {
            let pairs = pilot_pairs(testbed, units)?;
            let values = |metric: Metric| -> (Vec<f64>, Vec<f64>) {
                let value = |observation: &Observation| observation.values.get(&metric).copied().unwrap_or(f64::NAN);
                pairs.iter().map(|(base, head)| (value(base), value(head))).unzip()
            };
            let (base, head) = values(Metric::Wall);
            let slowdown = RatioEstimate::of_pairs(&head, &base, CONFIDENCE)?.estimate - 1.0;
            if slowdown >= PILOT_SLOWDOWN {
                let allocated_mib = median(&values(Metric::PeakAnonymous).0)?;
                let units_to_double = units as f64 / slowdown;
                return Ok(PilotResult { seconds: median(&base)?, allocated_mib, units_to_double });
            }
            units *= 4;
            if units > MAX_UNITS {
                return Err(Error::Measurement(
                    "extra work does not slow the case: its times cannot be measured here".to_owned(),
                ));
            }
        }
    }

    fn head_load(&self, change: InjectedChange) -> HeadLoad {
        match change {
            InjectedChange::None => HeadLoad::Unchanged,
            InjectedChange::Slowdown(fraction) => HeadLoad::WorkUnits((fraction * self.units_to_double).round() as u64),
            InjectedChange::MemoryFraction(fraction) => {
                HeadLoad::MemoryBytes((fraction * self.allocated_mib * MEBIBYTE).round() as u64)
            }
            InjectedChange::MemoryBytes(bytes) => HeadLoad::MemoryBytes(bytes),
            InjectedChange::FreshCopy(file) => HeadLoad::FreshCopy(file),
        }
    }
}

/// Pairs of the case without and with so much extra work.
fn pilot_pairs(testbed: &dyn Testbed, units: u64) -> Result<Vec<(Observation, Observation)>> {
    let mut source = testbed.source(HeadLoad::WorkUnits(units))?;
    let case = source.cases().into_iter().next().ok_or_else(|| Error::internal("a testbed without a case"))?;
    let mut observe = |side: Side| match source.observe(&case, side)? {
        ObservationResult::Measured(observation) => Ok(observation),
        ObservationResult::Failed(reason) => Err(Error::Measurement(format!("the case fails: {reason}"))),
    };
    (0..PILOT_PAIRS).map(|_| Ok((observe(Side::Base)?, observe(Side::Head)?))).collect()
}

impl SelftestReport {
    /// Error rates that miss the gate's guarantees, a sentence each.
    pub fn shortcomings(&self) -> Vec<String> {
        let mut shortcomings = Vec::new();
        for trial in &self.trials {
            let (caught, gates) = (trial.regressed, trial.gates);
            let shortcoming = match trial.change {
                change if change.is_none() && caught > 0 => format!("{caught} false alarms in {gates} gates"),
                InjectedChange::Slowdown(fraction) if fraction >= 0.0999 && caught < gates => {
                    format!("{caught} of {gates} caught")
                }
                InjectedChange::Slowdown(fraction) if fraction >= 0.0499 && (caught as f64) < POWER * gates as f64 => {
                    format!("{caught} of {gates} caught")
                }
                InjectedChange::MemoryFraction(_) | InjectedChange::MemoryBytes(_) if caught < gates => {
                    format!("{caught} of {gates} caught")
                }
                _ if trial.broken > 0 => format!("{} of {gates} gates broken", trial.broken),
                _ => continue,
            };
            shortcomings.push(format!("{}: {shortcoming}", trial.change));
        }
        shortcomings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trial(change: InjectedChange, gates: usize, regressed: usize) -> ChangeTrials {
        let passed = gates - regressed;
        let (inconclusive, broken, measured, metrics) = (0, 0, None, Vec::new());
        ChangeTrials { change, gates, regressed, passed, inconclusive, broken, mean_pairs: 10.0, measured, metrics }
    }

    #[test]
    fn smallest_effect_is_caught_with_all_larger_ones() {
        let context = SelftestContext {
            schema: String::new(),
            environment: Value::Null,
            machine: "m".to_owned(),
            date: "2026-11-27".to_owned(),
        };
        let resolve = |caught: [usize; 3]| {
            let slowdowns = [0.02, 0.05, 0.10].into_iter().zip(caught);
            let copies = trial(InjectedChange::FreshCopy(CopiedFile::Evicted), 10, 2);
            let mut trials = vec![trial(InjectedChange::None, 40, 1), copies];
            trials.extend(slowdowns.map(|(fraction, caught)| trial(InjectedChange::Slowdown(fraction), 20, caught)));
            resolution(&context, &trials)
        };
        assert_eq!(resolve([3, 18, 20]).smallest_effect, Some(0.05));
        assert_eq!(resolve([20, 20, 20]).smallest_effect, Some(0.02));
        assert_eq!(resolve([20, 17, 20]).smallest_effect, Some(0.10), "a larger slowdown was missed");
        assert_eq!(resolve([20, 20, 17]).smallest_effect, None);
        assert_eq!((resolve([3, 18, 20]).trials_without_difference, resolve([3, 18, 20]).false_alarms), (50, 3));
    }
}
