//! The gate on recorded noise: the very engine, fed with runs drawn from the record instead of processes.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::noise::{Injection, Noise, NoiseSource};
use crate::error::Result;
use crate::gate::design::Design;
use crate::gate::engine::{self, Silent};
use crate::gate::source::{Observed, Side, Source};
use crate::gate::{CaseReport, Metric, Rule, Verdict};
use crate::results::adaptive::StoppingRule;
use crate::stats::RatioEstimate;

/// Cases of a suite.
pub const SUITE_CASES: usize = 40;

/// Pairs at which the coverage of intervals is counted.
pub const COVERAGE_PAIRS: [usize; 3] = [10, 20, 40];

/// What is done to head, with a name.
pub const INJECTIONS: [(&str, Injection); 6] = [
    ("none", Injection { time: 0.0, memory_share: 0.0, memory_mb: 0.0 }),
    ("+2 % time", Injection { time: 0.02, memory_share: 0.0, memory_mb: 0.0 }),
    ("+5 % time", Injection { time: 0.05, memory_share: 0.0, memory_mb: 0.0 }),
    ("+10 % time", Injection { time: 0.10, memory_share: 0.0, memory_mb: 0.0 }),
    ("+1 MiB memory", Injection { time: 0.0, memory_share: 0.0, memory_mb: 1.0 }),
    ("+2 % memory", Injection { time: 0.0, memory_share: 0.02, memory_mb: 0.0 }),
];

/// What came of replaying one record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Replay {
    /// Runs of the record.
    pub runs: usize,
    /// Metrics of the record.
    pub metrics: Vec<Metric>,
    /// Resamples of each line.
    pub resamples: usize,
    /// One case, for each injection.
    pub cases: Vec<Rates>,
    /// A suite, without and with one slowed case in it.
    pub suites: Vec<SuiteRates>,
    /// Share of intervals that hold the true ratio, by metric and pairs.
    pub coverage: Vec<Coverage>,
}

/// How often a case came to what.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    /// What was done to head.
    pub injected: String,
    /// Share that regressed: false alarms where nothing was done, else the power.
    pub regressed: f64,
    /// Share that passed.
    pub passed: f64,
    /// Share that stayed open.
    pub inconclusive: f64,
    /// Pairs taken on average.
    pub mean_pairs: f64,
}

/// How often a suite came to what.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SuiteRates {
    /// What was done to the head of one of its cases.
    pub injected: String,
    /// Cases.
    pub cases: usize,
    /// Share of suites in which a case regressed that nothing was done to.
    pub false_alarm: f64,
    /// Share of suites in which the slowed case regressed; none where there is none.
    pub caught: Option<f64>,
    /// Share of suites with a case that stayed open, and none that regressed.
    pub inconclusive: f64,
    /// Pairs taken on average, a case.
    pub mean_pairs: f64,
}

/// How often an interval held the truth.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Coverage {
    /// The metric.
    pub metric: Metric,
    /// Pairs; none where a run stops by itself, once its interval is narrow.
    pub pairs: Option<usize>,
    /// Share of the intervals that held it.
    pub share: f64,
    /// What the interval's own confidence is, on average.
    pub nominal: f64,
    /// Pairs on average.
    pub mean_pairs: f64,
}

/// How a record is replayed.
#[derive(Clone, Copy, Debug)]
pub struct Resampling {
    /// Of each kind.
    pub resamples: usize,
    /// What all of them are drawn from.
    pub seed: u64,
    /// Fresh pairs that confirm a flag, where they are not those of the gate.
    pub confirm_pairs: Option<usize>,
    /// The growth of memory that is none, as a share, where it is not that of the gate.
    pub memory_margin_share: Option<f64>,
}

impl Resampling {
    /// `design` with what is to be tried in place of the gate's own.
    fn of(&self, design: Design) -> Design {
        // Where nothing is confirmed there are no pairs to take another number of.
        let confirm_pairs = self.confirm_pairs.filter(|_| design.confirm_pairs > 0).unwrap_or(design.confirm_pairs);
        let memory_margin_share = self.memory_margin_share.unwrap_or(design.memory_margin_share);
        Design { confirm_pairs, memory_margin_share, ..design }
    }
}

/// Replays `noise`.
///
/// # Errors
/// Whatever the engine fails with, which a record that was read cannot bring about.
pub fn replay(noise: &Noise, how: &Resampling) -> Result<Replay> {
    let Resampling { resamples, seed, .. } = *how;
    let has_memory = noise.metrics.iter().any(|metric| metric.rule() == Rule::Memory);
    let of_memory = |injection: &Injection| injection.memory_share > 0.0 || injection.memory_mb > 0.0;
    let injections = || INJECTIONS.into_iter().filter(|(_, it)| has_memory || !of_memory(it));
    let cases = injections().map(|(name, it)| case_rates(noise, name, it, how)).collect::<Result<_>>()?;
    let suites = injections()
        .filter(|(_, it)| !of_memory(it))
        .map(|(name, it)| suite_rates(noise, name, it, how))
        .collect::<Result<_>>()?;
    let times = noise.metrics.iter().filter(|metric| metric.rule() == Rule::Time);
    let coverage = times
        .flat_map(|metric| COVERAGE_PAIRS.into_iter().map(Some).chain([None]).map(move |pairs| (*metric, pairs)))
        .map(|(metric, pairs)| coverage(noise, metric, pairs, resamples, seed))
        .collect::<Result<_>>()?;
    Ok(Replay { runs: noise.runs.len(), metrics: noise.metrics.clone(), resamples, cases, suites, coverage })
}

fn share<T>(items: &[T], holds: impl Fn(&T) -> bool) -> f64 {
    items.iter().filter(|item| holds(item)).count() as f64 / items.len() as f64
}

fn case_rates(noise: &Noise, name: &str, injection: Injection, how: &Resampling) -> Result<Rates> {
    let cases: Vec<CaseReport> = (0..how.resamples)
        .into_par_iter()
        .map(|index| {
            let seed = seed_of(how.seed, index);
            let mut source = NoiseSource::new(noise, vec![injection], seed);
            engine::run(&mut source, &how.of(Design::looks(seed)), &mut Silent)
        })
        .collect::<Result<Vec<_>>>()?
        .into_iter()
        .flatten()
        .collect();
    Ok(Rates {
        injected: name.to_owned(),
        regressed: share(&cases, |case| case.verdict == Verdict::Regressed),
        passed: share(&cases, |case| matches!(case.verdict, Verdict::Pass | Verdict::Improved)),
        inconclusive: share(&cases, |case| case.verdict == Verdict::Inconclusive),
        mean_pairs: cases.iter().map(|case| case.pairs as f64).sum::<f64>() / cases.len() as f64,
    })
}

fn suite_rates(noise: &Noise, name: &str, injection: Injection, how: &Resampling) -> Result<SuiteRates> {
    // The slowed case is the first; which one it is makes no difference to the engine.
    let mut injections = vec![Injection::default(); SUITE_CASES];
    injections[0] = injection;
    let slowed = injection != Injection::default();
    let suites: Vec<Vec<CaseReport>> = (0..how.resamples)
        .into_par_iter()
        .map(|index| {
            let seed = seed_of(how.seed, index);
            let mut source = NoiseSource::new(noise, injections.clone(), seed);
            engine::run(&mut source, &how.of(Design::screen_confirm(seed)), &mut Silent)
        })
        .collect::<Result<_>>()?;
    let regressed = |case: &CaseReport| case.verdict == Verdict::Regressed;
    let innocent = |suite: &[CaseReport]| suite[usize::from(slowed)..].iter().any(regressed);
    let pairs: usize = suites.iter().flatten().map(|case| case.pairs).sum();
    Ok(SuiteRates {
        injected: name.to_owned(),
        cases: SUITE_CASES,
        false_alarm: share(&suites, |suite| innocent(suite)),
        caught: slowed.then(|| share(&suites, |suite| regressed(&suite[0]))),
        inconclusive: share(&suites, |suite| {
            suite.iter().any(|case| case.verdict == Verdict::Inconclusive) && !suite.iter().any(regressed)
        }),
        mean_pairs: pairs as f64 / (how.resamples * SUITE_CASES) as f64,
    })
}

fn coverage(noise: &Noise, metric: Metric, pairs: Option<usize>, resamples: usize, seed: u64) -> Result<Coverage> {
    let found: Vec<RatioEstimate> = (0..resamples)
        .into_par_iter()
        .map(|index| interval(noise, metric, pairs, seed_of(seed, index)))
        .collect::<Result<_>>()?;
    let holds = |ratio: &RatioEstimate| ratio.low.zip(ratio.high).is_some_and(|(low, high)| low <= 1.0 && 1.0 <= high);
    let mean = |of: fn(&RatioEstimate) -> f64| found.iter().map(of).sum::<f64>() / found.len() as f64;
    Ok(Coverage {
        metric,
        pairs,
        share: share(&found, holds),
        nominal: mean(|ratio| ratio.confidence.unwrap_or(0.0)),
        mean_pairs: mean(|ratio| ratio.n as f64),
    })
}

/// The interval of so many pairs, or of a run that stops once it is narrow enough.
fn interval(noise: &Noise, metric: Metric, pairs: Option<usize>, seed: u64) -> Result<RatioEstimate> {
    let mut source = NoiseSource::new(noise, vec![Injection::default()], seed);
    let mut value = |side: Side| -> Result<f64> {
        Ok(match source.observe("0", side)? {
            Observed::Measured(observation) => observation.values.get(&metric).copied().unwrap_or(f64::NAN),
            Observed::Failed(_) => f64::NAN,
        })
    };
    let (mut base, mut head) = (Vec::new(), Vec::new());
    let stopping = StoppingRule::default();
    loop {
        // Both sides of a pair are runs of one program, in the order of the record half of the time.
        let (one, other) = (value(Side::Base)?, value(Side::Head)?);
        let turned = (seed >> (base.len() % 64)) & 1 == 1;
        base.push(if turned { other } else { one });
        head.push(if turned { one } else { other });
        let enough = match pairs {
            Some(pairs) => base.len() >= pairs,
            None => {
                base.len() >= stopping.max_blocks
                    || (base.len() >= stopping.min_blocks
                        && RatioEstimate::of_pairs(&head, &base, 0.95)?
                            .relative_half_width()
                            .is_some_and(|half| half <= stopping.half_width))
            }
        };
        if enough {
            return RatioEstimate::of_pairs(&head, &base, 0.95);
        }
    }
}

/// Seeds of resamples that share no bits with their neighbours'.
fn seed_of(seed: u64, index: usize) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes()).update(&(index as u64).to_le_bytes());
    let bytes = hasher.finalize();
    bytes.as_bytes().iter().take(8).fold(0, |sum, byte| (sum << 8) | u64::from(*byte))
}
