//! The changes that a self-test injects into head, the gates of each, and their outcomes.

use serde::{Deserialize, Serialize};

use crate::design::GateDesign;
use crate::engine::{self, GateObserver, GateRound};
use crate::error::{Error, Result};
use crate::metric::Metric;
use crate::pair::{GatePair, GateStage};
use crate::report::{CaseReport, Verdict};
use crate::source::{ObservationResult, Source};
use crate::stats::{MAX_OBSERVATIONS, RatioEstimate};

/// Confidence of the intervals.
pub const CONFIDENCE: f64 = 0.95;

/// Bytes of a mebibyte.
pub const MEBIBYTE: f64 = 1024.0 * 1024.0;

/// A difference of head.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InjectedChange {
    /// No difference.
    None,
    /// Work that takes this fraction of the case's time.
    Slowdown(f64),
    /// Memory of this fraction of the memory that the case allocates.
    #[serde(rename = "memory-share")]
    MemoryFraction(f64),
    /// So many bytes of memory.
    MemoryBytes(u64),
    /// No difference: a fresh copy of the program, whose file is in this state.
    FreshCopy(CopiedFile),
}

impl InjectedChange {
    /// Whether head is the same program as base, so that every alarm is a false one.
    pub fn is_none(self) -> bool {
        matches!(self, InjectedChange::None | InjectedChange::FreshCopy(_))
    }
}

/// The state of a copied file when a gate begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CopiedFile {
    /// As it was written: in the page cache.
    Cached,
    /// Evicted from the page cache, as a file that was restored earlier.
    Evicted,
}

/// What a testbed adds to each run of head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadLoad {
    /// Nothing.
    Unchanged,
    /// So many units of work. A unit always takes the same instructions; the pilot measures the time of them.
    WorkUnits(u64),
    /// So many bytes of memory.
    MemoryBytes(u64),
    /// A fresh copy of the program in place of the program.
    FreshCopy(CopiedFile),
}

/// Makes sources of a short case for the self-test.
pub trait Testbed {
    /// A source with one case, whose base is unchanged and whose head has `load`. Its observations have [`Metric::Wall`] and
    /// [`Metric::PeakAnonymous`].
    ///
    /// # Errors
    /// The program does not exist, or there is no directory for temporary files.
    fn source(&self, load: HeadLoad) -> Result<Box<dyn Source>>;
}

/// The results of all gates of a change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChangeTrials {
    /// The change.
    pub change: InjectedChange,
    /// Number of gates.
    pub gates: usize,
    /// Gates that regressed: false alarms if nothing was changed.
    pub regressed: usize,
    /// Gates that passed.
    pub passed: usize,
    /// Gates that were inconclusive.
    pub inconclusive: usize,
    /// Gates that were broken.
    pub broken: usize,
    /// Mean number of pairs of a gate.
    pub mean_pairs: f64,
    /// The measured ratio of the metric that the change affects (wall, or allocated memory), over the pairs of all gates.
    #[serde(rename = "realised")]
    pub measured: Option<RatioEstimate>,
    /// The verdicts of the gates on each metric.
    pub metrics: Vec<MetricOutcomes>,
}

/// The verdicts of all gates of a change on a metric.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetricOutcomes {
    /// The metric.
    pub metric: Metric,
    /// Gates in which it regressed.
    pub regressed: usize,
    /// Gates in which it passed.
    pub passed: usize,
    /// Gates in which it improved.
    pub improved: usize,
    /// Gates in which it was inconclusive.
    pub inconclusive: usize,
    /// Gates in which it was broken.
    pub broken: usize,
}

impl MetricOutcomes {
    /// The outcomes of `metric` in `cases`; none if no case has it.
    fn of(metric: Metric, cases: &[&CaseReport]) -> Option<Self> {
        let reports = cases.iter().flat_map(|case| &case.metrics).filter(|report| report.metric == metric);
        let verdicts: Vec<Verdict> = reports.map(|report| report.verdict).collect();
        let count = |wanted: Verdict| verdicts.iter().filter(|verdict| **verdict == wanted).count();
        (!verdicts.is_empty()).then(|| MetricOutcomes {
            metric,
            regressed: count(Verdict::Regressed),
            passed: count(Verdict::Pass),
            improved: count(Verdict::Improved),
            inconclusive: count(Verdict::Inconclusive),
            broken: count(Verdict::Broken),
        })
    }
}

/// A gate that was run.
#[derive(Clone)]
pub struct TrialGate {
    /// The report of its case.
    pub case: CaseReport,
    /// Wall time and allocated memory of base and head, pair by pair.
    pairs: Vec<[(f64, f64); 2]>,
}

impl TrialGate {
    /// Runs a gate of the testbed's case with `load` in head.
    ///
    /// # Errors
    /// The program cannot be started, or the user interrupts.
    pub fn run(testbed: &dyn Testbed, load: HeadLoad, seed: u64) -> Result<Self> {
        let mut source = testbed.source(load)?;
        let mut collector = PairCollector { pairs: Vec::new() };
        let cases = engine::run(source.as_mut(), &GateDesign::looks(seed), &mut collector)?;
        let case = cases.into_iter().next().ok_or_else(|| Error::internal("a gate without a case"))?;
        Ok(TrialGate { case, pairs: collector.pairs })
    }
}

/// Collects wall time and allocated memory of the pairs of a gate.
struct PairCollector {
    pairs: Vec<[(f64, f64); 2]>,
}

impl GateObserver for PairCollector {
    fn recorded_pair(&mut self, _stage: GateStage, _case: &str, _index: usize) -> Option<GatePair> {
        None
    }

    fn on_pair(&mut self, pair: &GatePair) -> Result<()> {
        if let (ObservationResult::Measured(base), ObservationResult::Measured(head)) = (&pair.base, &pair.head) {
            let both = |metric: Metric| base.values.get(&metric).copied().zip(head.values.get(&metric).copied());
            if let (Some(wall), Some(memory)) = (both(Metric::Wall), both(Metric::PeakAnonymous)) {
                self.pairs.push([wall, memory]);
            }
        }
        Ok(())
    }

    fn on_round(&mut self, _round: &GateRound) {}
}

impl ChangeTrials {
    /// The results of the `gates` of `change`.
    pub fn of(change: InjectedChange, gates: &[TrialGate]) -> Self {
        let count = |matches: fn(Verdict) -> bool| gates.iter().filter(|gate| matches(gate.case.verdict)).count();
        // The position in the pairs of the metric that the change affects.
        let metric = match change {
            InjectedChange::None | InjectedChange::FreshCopy(_) | InjectedChange::Slowdown(_) => 0,
            InjectedChange::MemoryFraction(_) | InjectedChange::MemoryBytes(_) => 1,
        };
        let pairs = gates.iter().flat_map(|gate| &gate.pairs).take(MAX_OBSERVATIONS);
        let (base, head): (Vec<f64>, Vec<f64>) = pairs.map(|pair| pair[metric]).unzip();
        let cases: Vec<&CaseReport> = gates.iter().map(|gate| &gate.case).collect();
        ChangeTrials {
            change,
            gates: gates.len(),
            regressed: count(|verdict| verdict == Verdict::Regressed),
            passed: count(|verdict| matches!(verdict, Verdict::Pass | Verdict::Improved)),
            inconclusive: count(|verdict| verdict == Verdict::Inconclusive),
            broken: count(|verdict| verdict == Verdict::Broken),
            mean_pairs: gates.iter().map(|gate| gate.case.pairs as f64).sum::<f64>() / gates.len().max(1) as f64,
            measured: RatioEstimate::of_pairs(&head, &base, CONFIDENCE).ok(),
            metrics: Metric::ALL.into_iter().filter_map(|metric| MetricOutcomes::of(metric, &cases)).collect(),
        }
    }
}

impl std::fmt::Display for InjectedChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&match self {
            InjectedChange::None => "nothing".to_owned(),
            InjectedChange::Slowdown(fraction) => format!("+{:.0} % time", 100.0 * fraction),
            InjectedChange::MemoryFraction(fraction) => format!("+{:.0} % memory", 100.0 * fraction),
            InjectedChange::MemoryBytes(bytes) => format!("+{:.0} MiB memory", *bytes as f64 / MEBIBYTE),
            InjectedChange::FreshCopy(CopiedFile::Cached) => "fresh copy".to_owned(),
            InjectedChange::FreshCopy(CopiedFile::Evicted) => "evicted copy".to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::MetricReport;

    #[test]
    fn outcomes_are_counted_by_metric() {
        let gate = |wall: Verdict, memory: Verdict| {
            let metric = |metric, verdict| MetricReport { verdict, ..MetricReport::unmeasured(metric) };
            let metrics = vec![metric(Metric::Wall, wall), metric(Metric::PeakAnonymous, memory)];
            let case = CaseReport { verdict: wall.max(memory), metrics, ..CaseReport::unmeasured("a", "") };
            TrialGate { case, pairs: Vec::new() }
        };
        let gates = [
            gate(Verdict::Pass, Verdict::Improved),
            gate(Verdict::Inconclusive, Verdict::Pass),
            gate(Verdict::Regressed, Verdict::Pass),
        ];
        let trials = ChangeTrials::of(InjectedChange::FreshCopy(CopiedFile::Evicted), &gates);
        assert_eq!((trials.regressed, trials.passed, trials.inconclusive, trials.metrics.len()), (1, 1, 1, 2));
        let wall = &trials.metrics[0];
        assert_eq!((wall.metric, wall.regressed, wall.passed, wall.inconclusive), (Metric::Wall, 1, 1, 1));
        let memory = &trials.metrics[1];
        assert_eq!((memory.metric, memory.regressed, memory.passed, memory.improved), (Metric::PeakAnonymous, 0, 2, 1));
    }
}
