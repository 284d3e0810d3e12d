//! The engine on synthetic observations: no process, no clock.

use std::collections::BTreeMap;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::design::GateDesign;
use crate::engine::{GateObserver, GateRound, NoopGateObserver, run};
use crate::error::{Error, Result};
use crate::metric::Metric;
use crate::pair::{GatePair, GateStage};
use crate::report::{CaseReport, MetricReport, Verdict};
use crate::source::{Observation, ObservationResult, Side, Source};

type Change = fn(usize, Side, &mut Observation) -> Option<String>;

/// Cases with 2 % of noise. Each has a function that changes its observations, given the number of its runs.
struct SyntheticSource {
    cases: Vec<(&'static str, Change)>,
    runs: BTreeMap<String, usize>,
    rng: ChaCha8Rng,
    interrupt_after: usize,
}

impl SyntheticSource {
    fn new(cases: &[(&'static str, Change)]) -> Self {
        let rng = ChaCha8Rng::seed_from_u64(5);
        SyntheticSource { cases: cases.to_vec(), runs: BTreeMap::new(), rng, interrupt_after: usize::MAX }
    }
}

impl Source for SyntheticSource {
    fn cases(&self) -> Vec<String> {
        self.cases.iter().map(|(name, _)| (*name).to_owned()).collect()
    }

    fn metrics(&self, _case: &str) -> Vec<Metric> {
        vec![Metric::Wall, Metric::PeakRss, Metric::Auroc, Metric::ResultDigest]
    }

    fn observe(&mut self, case: &str, side: Side) -> Result<ObservationResult> {
        if self.runs.values().sum::<usize>() >= self.interrupt_after {
            return Err(Error::Interrupted);
        }
        let run = self.runs.entry(case.to_owned()).or_default();
        *run += 1;
        let noise = 1.0 + 0.02 * (self.rng.random::<f64>() - 0.5);
        let values = [(Metric::Wall, 0.5 * noise), (Metric::PeakRss, 40.0 + 0.1 * noise), (Metric::Auroc, 0.9)];
        let mut observation = Observation { values: values.into(), digest: Some("ab".to_owned()), auroc_step: None };
        let change = self.cases.iter().find(|(name, _)| *name == case).unwrap().1;
        Ok(match change(*run, side, &mut observation) {
            Some(reason) => ObservationResult::Failed(reason),
            None => ObservationResult::Measured(observation),
        })
    }
}

fn unchanged(_: usize, _: Side, _: &mut Observation) -> Option<String> {
    None
}

fn times(observation: &mut Observation, side: Side, factor: f64) {
    if side == Side::Head {
        *observation.values.get_mut(&Metric::Wall).unwrap() *= factor;
    }
}

fn slower(_: usize, side: Side, observation: &mut Observation) -> Option<String> {
    times(observation, side, 1.1);
    None
}

fn faster(_: usize, side: Side, observation: &mut Observation) -> Option<String> {
    times(observation, side, 0.9);
    None
}

fn larger(_: usize, side: Side, observation: &mut Observation) -> Option<String> {
    if side == Side::Head {
        *observation.values.get_mut(&Metric::PeakRss).unwrap() += 1.0;
    }
    None
}

/// From a seventh to seven times as long: nothing can be shown.
fn noisy(run: usize, side: Side, observation: &mut Observation) -> Option<String> {
    let spread = (run as f64 * 0.618_034).fract() - 0.5;
    times(observation, side, (4.0 * spread).exp());
    None
}

fn other_digest(_: usize, side: Side, observation: &mut Observation) -> Option<String> {
    observation.digest = Some(side.to_string());
    None
}

fn dies_late(run: usize, side: Side, _: &mut Observation) -> Option<String> {
    (run > 15 && side == Side::Head).then(|| "ended by signal 9".to_owned())
}

fn loses_a_metric(run: usize, side: Side, observation: &mut Observation) -> Option<String> {
    if run > 4 && side == Side::Base {
        observation.values.remove(&Metric::PeakRss);
    }
    None
}

fn not_a_number(_: usize, _: Side, observation: &mut Observation) -> Option<String> {
    observation.values.insert(Metric::Wall, f64::NAN);
    None
}

fn adds_a_metric_once(run: usize, _: Side, observation: &mut Observation) -> Option<String> {
    if run == 7 {
        observation.values.insert(Metric::GpuUsed, 1.0);
    }
    None
}

fn adds_a_metric_late(run: usize, _: Side, observation: &mut Observation) -> Option<String> {
    if run > 6 {
        observation.values.insert(Metric::GpuUsed, 1.0);
    }
    None
}

fn gate(cases: &[(&'static str, Change)], design: &GateDesign) -> Vec<CaseReport> {
    run(&mut SyntheticSource::new(cases), design, &mut NoopGateObserver).unwrap()
}

fn metric(case: &CaseReport, metric: Metric) -> &MetricReport {
    case.metrics.iter().find(|report| report.metric == metric).unwrap()
}

#[test]
fn suite_reports_the_verdict_of_each_case() {
    let cases: [(&str, Change); 6] = [
        ("same", unchanged),
        ("slower", slower),
        ("faster", faster),
        ("larger", larger),
        ("other digest", other_digest),
        ("noisy", noisy),
    ];
    let reports = gate(&cases, &GateDesign::screen_confirm(1));
    let verdicts: Vec<Verdict> = reports.iter().map(|case| case.verdict).collect();
    use Verdict::{Improved, Inconclusive, Pass, Regressed};
    assert_eq!(verdicts, [Pass, Regressed, Improved, Regressed, Regressed, Inconclusive]);
    let slower = metric(&reports[1], Metric::Wall);
    assert_eq!((slower.verdict, slower.n_pairs, reports[1].pairs), (Regressed, 40, 50));
    assert!((slower.estimate.unwrap() - 1.1).abs() < 0.01 && slower.low.unwrap() > 1.05, "{slower:?}");
    assert!(slower.p.unwrap() < 1e-6);
    assert_eq!(metric(&reports[1], Metric::PeakRss).verdict, Pass);
    assert_eq!(metric(&reports[3], Metric::PeakRss).verdict, Regressed);
    assert_eq!(metric(&reports[4], Metric::ResultDigest).verdict, Regressed);
    assert_eq!(reports[2].pairs, 10, "a case that passed takes no more pairs");
    assert_eq!(reports[5].pairs, 60);
    assert_eq!(Verdict::of_cases(&reports), Verdict::Regressed);
}

#[test]
fn single_case_is_judged_at_looks_alone() {
    let gate_one = |change: Change| gate(&[("case", change)], &GateDesign::looks(1)).remove(0);
    assert_eq!((gate_one(unchanged).verdict, gate_one(unchanged).pairs), (Verdict::Pass, 10));
    assert_eq!((gate_one(slower).verdict, gate_one(slower).pairs), (Verdict::Regressed, 10));
    assert_eq!((gate_one(noisy).verdict, gate_one(noisy).pairs), (Verdict::Inconclusive, 40));
}

#[test]
fn unmeasured_case_is_broken() {
    let broken: [(&str, Change, &str); 5] = [
        ("dies late", dies_late, "head failed: ended by signal 9"),
        ("loses a metric", loses_a_metric, "base did not measure peak-rss"),
        ("not a number", not_a_number, "did not measure wall"),
        ("adds a metric once", adds_a_metric_once, "gpu-used was not measured in the pairs before"),
        ("adds a metric late", adds_a_metric_late, "gpu-used was not measured in the pairs before"),
    ];
    for (name, change, reason) in broken {
        for design in [GateDesign::looks(1), GateDesign::screen_confirm(1)] {
            let reports = gate(&[(name, change), ("same", unchanged)], &design);
            assert_eq!(reports[0].verdict, Verdict::Broken, "{name}");
            assert!(reports[0].reason.as_deref().unwrap().contains(reason), "{name}: {reports:?}");
            assert_eq!(reports[1].verdict, Verdict::Pass, "{name}");
            assert_eq!(Verdict::of_cases(&reports).exit_code(), 2);
        }
    }
    assert_eq!(Verdict::of_cases(&gate(&[], &GateDesign::screen_confirm(1))), Verdict::Broken);
}

/// Records pairs like a journal.
#[derive(Default)]
struct PairRecorder {
    pairs: BTreeMap<(GateStage, String, usize), GatePair>,
}

impl GateObserver for PairRecorder {
    fn recorded_pair(&mut self, stage: GateStage, case: &str, index: usize) -> Option<GatePair> {
        self.pairs.get(&(stage, case.to_owned(), index)).cloned()
    }

    fn on_pair(&mut self, pair: &GatePair) -> Result<()> {
        let before = self.pairs.insert((pair.stage, pair.case.clone(), pair.index), pair.clone());
        assert_eq!(before, None, "a pair was taken twice");
        Ok(())
    }

    fn on_round(&mut self, _round: &GateRound) {}
}

#[test]
fn resumed_gate_takes_the_same_pairs() {
    let cases: [(&str, Change); 3] = [("same", unchanged), ("slower", slower), ("noisy", noisy)];
    let design = GateDesign::screen_confirm(3);
    let mut recorder = PairRecorder::default();
    let mut source = SyntheticSource { interrupt_after: 33, ..SyntheticSource::new(&cases) };
    assert!(matches!(run(&mut source, &design, &mut recorder), Err(Error::Interrupted)));
    // The pair that was being taken is lost; the pairs before it are not taken again.
    assert_eq!(recorder.pairs.len(), 16);
    let first: BTreeMap<_, _> = recorder.pairs.clone();
    source.interrupt_after = usize::MAX;
    let reports = run(&mut source, &design, &mut recorder).unwrap();
    for (position, pair) in first {
        assert_eq!(recorder.pairs[&position], pair);
    }
    // The third time no pair is taken, and the report is the same.
    source.interrupt_after = 0;
    assert_eq!(run(&mut source, &design, &mut recorder).unwrap(), reports);
}

#[test]
fn order_depends_on_the_seed_alone() {
    let order = |seed: u64| {
        let mut recorder = PairRecorder::default();
        run(&mut SyntheticSource::new(&[("noisy", noisy)]), &GateDesign::looks(seed), &mut recorder).unwrap();
        recorder.pairs.into_values().map(|pair| pair.first == Side::Base).collect::<Vec<bool>>()
    };
    assert_eq!(order(1), order(1));
    assert_ne!(order(1), order(2));
    let first = order(1).into_iter().filter(|base| *base).count();
    assert!((8..=32).contains(&first), "{first} of 40");
}
