//! The gate on recorded noise: the engine of the gate, with observations drawn from a record instead of processes.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::noise::{NoiseInjection, NoiseRecord, NoiseSource};
use crate::design::GateDesign;
use crate::engine::{self, NoopGateObserver};
use crate::error::Result;
use crate::metric::{Metric, MetricRule};
use crate::report::{CaseReport, Verdict};
use crate::source::{ObservationResult, Side, Source};
use crate::stats::RatioEstimate;

/// Confidence of the intervals whose coverage is counted.
const CONFIDENCE: f64 = 0.95;

/// Cases of a suite.
pub const SUITE_CASES: usize = 40;

/// Pairs at which the coverage of intervals is counted.
pub const COVERAGE_PAIRS: [usize; 3] = [10, 20, 40];

/// Artificial differences of head, with their names.
pub const INJECTIONS: [(&str, NoiseInjection); 6] = [
    ("none", NoiseInjection { time: 0.0, memory_fraction: 0.0, memory_mib: 0.0 }),
    ("+2 % time", NoiseInjection { time: 0.02, memory_fraction: 0.0, memory_mib: 0.0 }),
    ("+5 % time", NoiseInjection { time: 0.05, memory_fraction: 0.0, memory_mib: 0.0 }),
    ("+10 % time", NoiseInjection { time: 0.10, memory_fraction: 0.0, memory_mib: 0.0 }),
    ("+1 MiB memory", NoiseInjection { time: 0.0, memory_fraction: 0.0, memory_mib: 1.0 }),
    ("+2 % memory", NoiseInjection { time: 0.0, memory_fraction: 0.02, memory_mib: 0.0 }),
];

/// The results of replaying one record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReplayReport {
    /// Runs of the record.
    pub runs: usize,
    /// Metrics of the record.
    pub metrics: Vec<Metric>,
    /// Resamples for each injection.
    pub resamples: usize,
    /// Gates of one case, for each injection.
    pub cases: Vec<CaseRates>,
    /// Gates of a suite, without and with one slowed case in it.
    pub suites: Vec<SuiteRates>,
    /// Coverage of intervals, by metric and pairs.
    pub coverage: Vec<IntervalCoverage>,
}

/// How often a case had each verdict.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CaseRates {
    /// The difference of head.
    pub injected: String,
    /// Fraction that regressed: false alarms without a difference, else the power.
    pub regressed: f64,
    /// Fraction that passed.
    pub passed: f64,
    /// Fraction that was inconclusive.
    pub inconclusive: f64,
    /// Mean number of pairs.
    pub mean_pairs: f64,
}

/// How often a suite had each verdict.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SuiteRates {
    /// The difference of the head of one of its cases.
    pub injected: String,
    /// Cases of the suite.
    pub cases: usize,
    /// Fraction of suites in which an unchanged case regressed.
    pub false_alarm: f64,
    /// Fraction of suites in which the slowed case regressed; none without such a case.
    pub caught: Option<f64>,
    /// Fraction of suites with an inconclusive case and without a regressed one.
    pub inconclusive: f64,
    /// Mean number of pairs of a case.
    pub mean_pairs: f64,
}

/// How often an interval covered the true ratio.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IntervalCoverage {
    /// The metric.
    pub metric: Metric,
    /// Pairs; none where pairs are taken until the interval is narrow.
    pub pairs: Option<usize>,
    /// Fraction of the intervals that covered the true ratio.
    #[serde(rename = "share")]
    pub covered: f64,
    /// Mean of the confidence that the intervals state.
    pub nominal: f64,
    /// Mean number of pairs.
    pub mean_pairs: f64,
}

/// How a record is replayed.
#[derive(Clone, Copy, Debug)]
pub struct ReplayOptions {
    /// Resamples for each injection.
    pub resamples: usize,
    /// The seed of all resamples.
    pub seed: u64,
    /// Fresh pairs that confirm a flag; none for the gate's own number.
    pub confirm_pairs: Option<usize>,
    /// The growth of memory that is not a regression, as a fraction; none for the gate's own margin.
    pub memory_margin: Option<f64>,
    /// When pairs are enough for an interval, for the coverage of adaptive runs.
    pub stopping: IntervalStopping,
}

/// The rule by which an adaptive run stops taking pairs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct IntervalStopping {
    /// The relative half-width of an interval that is narrow enough.
    pub half_width: f64,
    /// The smallest number of pairs.
    pub min_pairs: usize,
    /// The largest number of pairs.
    pub max_pairs: usize,
}

impl IntervalStopping {
    /// Whether the pairs so far are enough.
    fn has_enough(&self, base: &[f64], head: &[f64]) -> Result<bool> {
        if base.len() >= self.max_pairs {
            return Ok(true);
        }
        if base.len() < self.min_pairs {
            return Ok(false);
        }
        let half_width = RatioEstimate::of_pairs(head, base, CONFIDENCE)?.relative_half_width();
        Ok(half_width.is_some_and(|half_width| half_width <= self.half_width))
    }
}

impl ReplayOptions {
    /// `design` with the pairs and the margin that replace the gate's own.
    fn apply_to(&self, design: GateDesign) -> GateDesign {
        // A design without confirmation keeps being one.
        let confirm_pairs = self.confirm_pairs.filter(|_| design.confirm_pairs > 0).unwrap_or(design.confirm_pairs);
        let memory_margin_fraction = self.memory_margin.unwrap_or(design.memory_margin_fraction);
        GateDesign { confirm_pairs, memory_margin_fraction, ..design }
    }
}

/// Replays `noise`.
///
/// # Errors
/// None for a valid record: any error of the engine.
pub fn replay(noise: &NoiseRecord, options: &ReplayOptions) -> Result<ReplayReport> {
    let has_memory = noise.metrics.iter().any(|metric| metric.rule() == MetricRule::Memory);
    let is_memory = |injection: &NoiseInjection| injection.memory_fraction > 0.0 || injection.memory_mib > 0.0;
    let injections = || INJECTIONS.into_iter().filter(|(_, injection)| has_memory || !is_memory(injection));
    let cases =
        injections().map(|(name, injection)| case_rates(noise, name, injection, options)).collect::<Result<_>>()?;
    let suites = injections()
        .filter(|(_, injection)| !is_memory(injection))
        .map(|(name, injection)| suite_rates(noise, name, injection, options))
        .collect::<Result<_>>()?;
    let times = noise.metrics.iter().filter(|metric| metric.rule() == MetricRule::Time);
    let coverage = times
        .flat_map(|metric| COVERAGE_PAIRS.into_iter().map(Some).chain([None]).map(move |pairs| (*metric, pairs)))
        .map(|(metric, pairs)| coverage(noise, metric, pairs, options))
        .collect::<Result<_>>()?;
    Ok(ReplayReport {
        runs: noise.runs.len(),
        metrics: noise.metrics.clone(),
        resamples: options.resamples,
        cases,
        suites,
        coverage,
    })
}

fn fraction<T>(items: &[T], is_counted: impl Fn(&T) -> bool) -> f64 {
    items.iter().filter(|item| is_counted(item)).count() as f64 / items.len() as f64
}

fn case_rates(
    noise: &NoiseRecord,
    name: &str,
    injection: NoiseInjection,
    options: &ReplayOptions,
) -> Result<CaseRates> {
    let cases: Vec<CaseReport> = (0..options.resamples)
        .into_par_iter()
        .map(|index| {
            let seed = resample_seed(options.seed, index);
            let mut source = NoiseSource::new(noise, vec![injection], seed);
            engine::run(&mut source, &options.apply_to(GateDesign::looks(seed)), &mut NoopGateObserver)
        })
        .collect::<Result<Vec<_>>>()?
        .into_iter()
        .flatten()
        .collect();
    Ok(CaseRates {
        injected: name.to_owned(),
        regressed: fraction(&cases, |case| case.verdict == Verdict::Regressed),
        passed: fraction(&cases, |case| matches!(case.verdict, Verdict::Pass | Verdict::Improved)),
        inconclusive: fraction(&cases, |case| case.verdict == Verdict::Inconclusive),
        mean_pairs: cases.iter().map(|case| case.pairs as f64).sum::<f64>() / cases.len() as f64,
    })
}

fn suite_rates(
    noise: &NoiseRecord,
    name: &str,
    injection: NoiseInjection,
    options: &ReplayOptions,
) -> Result<SuiteRates> {
    // The slowed case is the first: the engine treats all cases alike.
    let mut injections = vec![NoiseInjection::default(); SUITE_CASES];
    injections[0] = injection;
    let has_slowed_case = injection != NoiseInjection::default();
    let suites: Vec<Vec<CaseReport>> = (0..options.resamples)
        .into_par_iter()
        .map(|index| {
            let seed = resample_seed(options.seed, index);
            let mut source = NoiseSource::new(noise, injections.clone(), seed);
            engine::run(&mut source, &options.apply_to(GateDesign::screen_confirm(seed)), &mut NoopGateObserver)
        })
        .collect::<Result<_>>()?;
    let is_regressed = |case: &CaseReport| case.verdict == Verdict::Regressed;
    let has_false_alarm = |suite: &[CaseReport]| suite[usize::from(has_slowed_case)..].iter().any(is_regressed);
    let pairs: usize = suites.iter().flatten().map(|case| case.pairs).sum();
    Ok(SuiteRates {
        injected: name.to_owned(),
        cases: SUITE_CASES,
        false_alarm: fraction(&suites, |suite| has_false_alarm(suite)),
        caught: has_slowed_case.then(|| fraction(&suites, |suite| is_regressed(&suite[0]))),
        inconclusive: fraction(&suites, |suite| {
            suite.iter().any(|case| case.verdict == Verdict::Inconclusive) && !suite.iter().any(is_regressed)
        }),
        mean_pairs: pairs as f64 / (options.resamples * SUITE_CASES) as f64,
    })
}

fn coverage(
    noise: &NoiseRecord,
    metric: Metric,
    pairs: Option<usize>,
    options: &ReplayOptions,
) -> Result<IntervalCoverage> {
    let ratios: Vec<RatioEstimate> = (0..options.resamples)
        .into_par_iter()
        .map(|index| estimate(noise, metric, pairs, resample_seed(options.seed, index), &options.stopping))
        .collect::<Result<_>>()?;
    let covers_one =
        |ratio: &RatioEstimate| ratio.low.zip(ratio.high).is_some_and(|(low, high)| low <= 1.0 && 1.0 <= high);
    let mean = |value: fn(&RatioEstimate) -> f64| ratios.iter().map(value).sum::<f64>() / ratios.len() as f64;
    Ok(IntervalCoverage {
        metric,
        pairs,
        covered: fraction(&ratios, covers_one),
        nominal: mean(|ratio| ratio.confidence.unwrap_or(0.0)),
        mean_pairs: mean(|ratio| ratio.n as f64),
    })
}

/// The ratio of `pairs` pairs of one program, or of pairs until `stopping` has enough.
fn estimate(
    noise: &NoiseRecord,
    metric: Metric,
    pairs: Option<usize>,
    seed: u64,
    stopping: &IntervalStopping,
) -> Result<RatioEstimate> {
    let mut source = NoiseSource::new(noise, vec![NoiseInjection::default()], seed);
    let mut value = |side: Side| -> Result<f64> {
        Ok(match source.observe("0", side)? {
            ObservationResult::Measured(observation) => observation.values.get(&metric).copied().unwrap_or(f64::NAN),
            ObservationResult::Failed(_) => f64::NAN,
        })
    };
    let (mut base, mut head) = (Vec::new(), Vec::new());
    loop {
        // A bit of the seed decides which of two consecutive runs is base, as the gate's random order does.
        let (first, second) = (value(Side::Base)?, value(Side::Head)?);
        let is_swapped = (seed >> (base.len() % 64)) & 1 == 1;
        base.push(if is_swapped { second } else { first });
        head.push(if is_swapped { first } else { second });
        let enough = match pairs {
            Some(pairs) => base.len() >= pairs,
            None => stopping.has_enough(&base, &head)?,
        };
        if enough {
            return RatioEstimate::of_pairs(&head, &base, CONFIDENCE);
        }
    }
}

/// The seed of a resample, hashed so that the seeds of neighbors are unrelated.
fn resample_seed(seed: u64, index: usize) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes()).update(&(index as u64).to_le_bytes());
    let bytes = hasher.finalize();
    bytes.as_bytes().iter().take(8).fold(0, |sum, byte| (sum << 8) | u64::from(*byte))
}
