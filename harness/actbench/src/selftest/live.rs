//! The gate on this machine: whole gates of one short case, with nothing changed and with real extra work or memory.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::case::{Method, Task};
use crate::error::{Error, Result};
use crate::gate::design::Design;
use crate::gate::engine::{self, Listener, Pair};
use crate::gate::programs::{Program, Programs};
use crate::gate::source::{Observation, Observed, Side, Source};
use crate::gate::suite::{Suite, SuiteCase};
use crate::gate::{CaseReport, Metric, Verdict};
use crate::measure::MIB;
use crate::measure::fingerprint;
use crate::measure::machine_record::MachineRecord;
use crate::measure::resolution::Resolution;
use crate::stats::RatioEstimate;
use crate::stats::summary::median;

/// The schema's name and version.
pub const SCHEMA: &str = "actbench-selftest/1";

/// A slowdown counts as resolved when at least this share of its gates caught it.
pub const POWER: f64 = 0.9;

/// The case's name.
const CASE: &str = "train-lazy";

/// Pairs of the pilot.
const PILOT_PAIRS: usize = 10;

/// Units of work that the pilot begins with; four times as many, until the case is slowed by [`PILOT_SLOWDOWN`].
const PILOT_UNITS: u64 = 1 << 10;

/// A slowdown that is large against the noise, so that it is known to some percent of itself.
const PILOT_SLOWDOWN: f64 = 0.3;

/// More units than this are hours; a case that they do not slow is not being measured.
const MOST_UNITS: u64 = 1 << 28;

/// What is tried.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The program.
    pub program: PathBuf,
    /// Flags of `actbench run` for the case, which is the task train by lazy.
    pub arguments: Vec<String>,
    /// Gates with nothing changed.
    pub unchanged_gates: usize,
    /// Gates of each slowdown; growths of memory get half as many.
    pub changed_gates: usize,
    /// Slowdowns, as shares.
    pub slowdowns: Vec<f64>,
    /// Growths of the peak RSS, as shares.
    pub memory_shares: Vec<f64>,
    /// Growths of the peak RSS, in bytes.
    pub memory_bytes: Vec<u64>,
    /// Seed.
    pub seed: u64,
    /// The longest a run may take.
    pub timeout: Option<Duration>,
}

/// What was done to head.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// Nothing.
    None,
    /// Work that takes this share of the case's time.
    Slowdown(f64),
    /// Memory of this share of the case's peak.
    MemoryShare(f64),
    /// So many bytes of memory.
    MemoryBytes(u64),
}

/// What came of all gates of a change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// The change.
    pub change: Change,
    /// Gates.
    pub gates: usize,
    /// Those that said regressed: false alarms where nothing was changed.
    pub regressed: usize,
    /// Those that passed.
    pub passed: usize,
    /// Those that stayed open.
    pub inconclusive: usize,
    /// Those that could not be judged.
    pub broken: usize,
    /// Pairs of a gate, on average.
    pub mean_pairs: f64,
    /// What the change came to in the metric that it changes (wall, or peak RSS), over the pairs of all gates.
    pub realised: Option<RatioEstimate>,
}

/// What a self-test found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Live {
    /// [`SCHEMA`].
    pub schema: String,
    /// The machine and the build.
    pub environment: MachineRecord,
    /// What was tried.
    pub plan: Plan,
    /// The gates' design, but for the seed.
    pub design: Design,
    /// Median seconds of the case.
    pub case_s: f64,
    /// Median peak RSS of the case, in MB.
    pub case_rss_mb: f64,
    /// Units of work that double the case's time.
    pub units_to_double: f64,
    /// What came of each change.
    pub trials: Vec<Trial>,
    /// In short.
    pub resolution: Resolution,
}

/// Hears of gates as they end.
pub trait GateListener {
    /// The pilot begins.
    fn pilot(&mut self, pairs: usize);
    /// A gate has ended: the how-manieth of how many, of what, with which outcome.
    fn ended(&mut self, done: usize, total: usize, change: Change, case: &CaseReport);
}

/// Runs the pilot and all gates, in random order.
///
/// # Errors
/// The program cannot be started, the case fails, or the user interrupts.
pub fn run(plan: &Plan, listener: &mut dyn GateListener) -> Result<Live> {
    listener.pilot(PILOT_PAIRS);
    let pilot = Pilot::run(plan)?;
    let mut changes = vec![Change::None];
    changes.extend(plan.slowdowns.iter().copied().map(Change::Slowdown));
    changes.extend(plan.memory_bytes.iter().copied().map(Change::MemoryBytes));
    changes.extend(plan.memory_shares.iter().copied().map(Change::MemoryShare));
    // In random order, so that a bad minute of the machine is not the fault of one change.
    let mut order: Vec<usize> = Vec::new();
    for (index, change) in changes.iter().enumerate() {
        let gates = match change {
            Change::None => plan.unchanged_gates,
            Change::Slowdown(_) => plan.changed_gates,
            Change::MemoryShare(_) | Change::MemoryBytes(_) => plan.changed_gates.div_ceil(2),
        };
        order.extend(std::iter::repeat_n(index, gates));
    }
    order.shuffle(&mut ChaCha8Rng::seed_from_u64(plan.seed));
    let mut gates: Vec<Vec<Gate>> = vec![Vec::new(); changes.len()];
    for (done, &index) in order.iter().enumerate() {
        let seed = plan.seed.wrapping_add(done as u64 + 1);
        let gate = Gate::run(plan, pilot.head_arguments(changes[index]), seed)?;
        listener.ended(done + 1, order.len(), changes[index], &gate.case);
        gates[index].push(gate);
    }
    let trials: Vec<Trial> = changes.iter().zip(&gates).map(|(change, gates)| Trial::of(*change, gates)).collect();
    let environment = MachineRecord::read();
    let resolution = resolution(&environment, &trials);
    Ok(Live {
        schema: SCHEMA.to_owned(),
        environment,
        plan: plan.clone(),
        design: Design::looks(plan.seed),
        case_s: pilot.seconds,
        case_rss_mb: pilot.rss_mb,
        units_to_double: pilot.units_to_double,
        trials,
        resolution,
    })
}

/// The smallest slowdown of which, and of all larger ones, at least [`POWER`] of the gates caught it.
fn resolution(environment: &MachineRecord, trials: &[Trial]) -> Resolution {
    let mut slowdowns: Vec<(f64, bool)> = trials
        .iter()
        .filter_map(|trial| match trial.change {
            Change::Slowdown(share) => Some((share, trial.regressed as f64 >= POWER * trial.gates as f64)),
            _ => None,
        })
        .collect();
    slowdowns.sort_by(|a, b| b.0.total_cmp(&a.0));
    let caught = slowdowns.iter().take_while(|(_, caught)| *caught);
    let unchanged = trials.iter().find(|trial| trial.change == Change::None);
    Resolution {
        machine: fingerprint::machine(environment),
        date: environment.date.clone(),
        smallest_effect: caught.last().map(|(share, _)| *share),
        trials_without_difference: unchanged.map_or(0, |trial| trial.gates),
        false_alarms: unchanged.map_or(0, |trial| trial.regressed),
    }
}

fn source(plan: &Plan, head_arguments: Vec<String>) -> Result<Programs> {
    let case =
        SuiteCase { name: CASE.to_owned(), task: Task::Train, method: Method::Lazy, args: plan.arguments.clone() };
    let program = |path: &Path, arguments: Vec<String>| Program { path: path.to_path_buf(), arguments };
    let metrics =
        vec![Metric::Wall, Metric::Cpu, Metric::PeakRss, Metric::PeakHeap, Metric::Auroc, Metric::FeatureDigest];
    Programs::new(
        Suite { args: Vec::new(), cases: vec![case] },
        program(&plan.program, Vec::new()),
        program(&plan.program, head_arguments),
        metrics,
        plan.timeout,
    )
}

/// What the case takes, and how much extra work makes how much of a slowdown.
struct Pilot {
    seconds: f64,
    rss_mb: f64,
    units_to_double: f64,
}

impl Pilot {
    fn run(plan: &Plan) -> Result<Self> {
        let mut units = PILOT_UNITS;
        loop {
            let pairs = pilot_pairs(plan, units)?;
            let of = |metric: Metric| -> (Vec<f64>, Vec<f64>) {
                let value = |it: &Observation| it.values.get(&metric).copied().unwrap_or(f64::NAN);
                pairs.iter().map(|(base, head)| (value(base), value(head))).unzip()
            };
            let (base, head) = of(Metric::Wall);
            let slowdown = RatioEstimate::of_pairs(&head, &base, 0.95)?.estimate - 1.0;
            if slowdown >= PILOT_SLOWDOWN {
                let rss_mb = median(&of(Metric::PeakRss).0)?;
                return Ok(Pilot { seconds: median(&base)?, rss_mb, units_to_double: units as f64 / slowdown });
            }
            units *= 4;
            if units > MOST_UNITS {
                return Err(Error::Numeric(
                    "extra work does not slow the case: its times cannot be measured here".to_owned(),
                ));
            }
        }
    }

    fn head_arguments(&self, change: Change) -> Vec<String> {
        let memory = |bytes: u64| vec!["--inject-memory".to_owned(), bytes.to_string()];
        match change {
            Change::None => Vec::new(),
            Change::Slowdown(share) => work((share * self.units_to_double).round() as u64),
            Change::MemoryShare(share) => memory((share * self.rss_mb * MIB).round() as u64),
            Change::MemoryBytes(bytes) => memory(bytes),
        }
    }
}

fn work(units: u64) -> Vec<String> {
    vec!["--inject-work".to_owned(), units.to_string()]
}

/// Pairs of the case without and with so much extra work.
fn pilot_pairs(plan: &Plan, units: u64) -> Result<Vec<(Observation, Observation)>> {
    let mut source = source(plan, work(units))?;
    let mut value = |side: Side| match source.observe(CASE, side)? {
        Observed::Measured(observation) => Ok(observation),
        Observed::Failed(reason) => Err(Error::Numeric(format!("the case does not run: {reason}"))),
    };
    (0..PILOT_PAIRS).map(|_| Ok((value(Side::Base)?, value(Side::Head)?))).collect()
}

/// A gate that was run.
#[derive(Clone)]
struct Gate {
    case: CaseReport,
    /// Wall and peak RSS of base and head, pair by pair.
    pairs: Vec<[(f64, f64); 2]>,
}

impl Gate {
    fn run(plan: &Plan, head_arguments: Vec<String>, seed: u64) -> Result<Self> {
        let mut source = source(plan, head_arguments)?;
        let mut kept = Kept { pairs: Vec::new() };
        let cases = engine::run(&mut source, &Design::looks(seed), &mut kept)?;
        let case = cases.into_iter().next().ok_or_else(|| Error::usage("a gate without a case"))?;
        Ok(Gate { case, pairs: kept.pairs })
    }
}

/// Keeps what the pairs of a gate measured.
struct Kept {
    pairs: Vec<[(f64, f64); 2]>,
}

impl Listener for Kept {
    fn taken(&mut self, pair: &Pair) -> Result<()> {
        if let (Observed::Measured(base), Observed::Measured(head)) = (&pair.base, &pair.head) {
            let both = |metric: Metric| base.values.get(&metric).copied().zip(head.values.get(&metric).copied());
            if let (Some(wall), Some(rss)) = (both(Metric::Wall), both(Metric::PeakRss)) {
                self.pairs.push([wall, rss]);
            }
        }
        Ok(())
    }
}

impl Trial {
    fn of(change: Change, gates: &[Gate]) -> Self {
        let count = |holds: fn(Verdict) -> bool| gates.iter().filter(|gate| holds(gate.case.verdict)).count();
        let place = match change {
            Change::None | Change::Slowdown(_) => 0,
            Change::MemoryShare(_) | Change::MemoryBytes(_) => 1,
        };
        let pairs = gates.iter().flat_map(|gate| &gate.pairs).take(crate::stats::MOST_OBSERVATIONS);
        let (base, head): (Vec<f64>, Vec<f64>) = pairs.map(|pair| pair[place]).unzip();
        Trial {
            change,
            gates: gates.len(),
            regressed: count(|verdict| verdict == Verdict::Regressed),
            passed: count(|verdict| matches!(verdict, Verdict::Pass | Verdict::Improved)),
            inconclusive: count(|verdict| verdict == Verdict::Inconclusive),
            broken: count(|verdict| verdict == Verdict::Broken),
            mean_pairs: gates.iter().map(|gate| gate.case.pairs as f64).sum::<f64>() / gates.len().max(1) as f64,
            realised: RatioEstimate::of_pairs(&head, &base, 0.95).ok(),
        }
    }
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&match self {
            Change::None => "nothing".to_owned(),
            Change::Slowdown(share) => format!("+{:.0} % time", 100.0 * share),
            Change::MemoryShare(share) => format!("+{:.0} % memory", 100.0 * share),
            Change::MemoryBytes(bytes) => format!("+{:.0} MiB memory", *bytes as f64 / MIB),
        })
    }
}

impl Live {
    /// What falls short of what the gate is meant to keep; empty where nothing does.
    pub fn shortcomings(&self) -> Vec<String> {
        let mut short = Vec::new();
        for trial in &self.trials {
            let (caught, gates) = (trial.regressed, trial.gates);
            let wanted = match trial.change {
                Change::None if caught > 0 => format!("{caught} false alarms in {gates} gates"),
                Change::Slowdown(share) if share >= 0.0999 && caught < gates => format!("{caught} of {gates} caught"),
                Change::Slowdown(share) if share >= 0.0499 && (caught as f64) < POWER * gates as f64 => {
                    format!("{caught} of {gates} caught")
                }
                Change::MemoryShare(_) | Change::MemoryBytes(_) if caught < gates => {
                    format!("{caught} of {gates} caught")
                }
                _ if trial.broken > 0 => format!("{} of {gates} gates broken", trial.broken),
                _ => continue,
            };
            short.push(format!("{}: {wanted}", trial.change));
        }
        short
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trial(change: Change, gates: usize, regressed: usize) -> Trial {
        let passed = gates - regressed;
        Trial { change, gates, regressed, passed, inconclusive: 0, broken: 0, mean_pairs: 10.0, realised: None }
    }

    #[test]
    fn the_smallest_effect_is_caught_as_are_all_larger_ones() {
        let environment = MachineRecord::read();
        let of = |caught: [usize; 3]| {
            let slowdowns = [0.02, 0.05, 0.10].into_iter().zip(caught);
            let mut trials = vec![trial(Change::None, 40, 1)];
            trials.extend(slowdowns.map(|(share, caught)| trial(Change::Slowdown(share), 20, caught)));
            resolution(&environment, &trials)
        };
        assert_eq!(of([3, 18, 20]).smallest_effect, Some(0.05));
        assert_eq!(of([20, 20, 20]).smallest_effect, Some(0.02));
        assert_eq!(of([20, 17, 20]).smallest_effect, Some(0.10), "luck at 2 % is none at 5 %");
        assert_eq!(of([20, 20, 17]).smallest_effect, None);
        assert_eq!((of([3, 18, 20]).trials_without_difference, of([3, 18, 20]).false_alarms), (40, 1));
    }
}
