//! The engine on made-up observations: no process, no clock.

use std::collections::BTreeMap;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::design::Design;
use super::engine::{Listener, Pair, Silent, Stage, run};
use super::source::{Observation, Observed, Side, Source};
use super::{CaseReport, Metric, Outcome, Verdict};
use crate::error::{Error, Result};

type Change = fn(usize, Side, &mut Observation) -> Option<String>;

/// Cases with 2 % of noise; each changes its observations as it likes, by the number of its runs.
struct Made {
    cases: Vec<(&'static str, Change)>,
    runs: BTreeMap<String, usize>,
    rng: ChaCha8Rng,
    interrupt_after: usize,
}

impl Made {
    fn new(cases: &[(&'static str, Change)]) -> Self {
        let rng = ChaCha8Rng::seed_from_u64(5);
        Made { cases: cases.to_vec(), runs: BTreeMap::new(), rng, interrupt_after: usize::MAX }
    }
}

impl Source for Made {
    fn cases(&self) -> Vec<String> {
        self.cases.iter().map(|(name, _)| (*name).to_owned()).collect()
    }

    fn metrics(&self, _case: &str) -> Vec<Metric> {
        vec![Metric::Wall, Metric::PeakRss, Metric::Auroc, Metric::FeatureDigest]
    }

    fn observe(&mut self, case: &str, side: Side) -> Result<Observed> {
        if self.runs.values().sum::<usize>() >= self.interrupt_after {
            return Err(Error::Interrupted);
        }
        let run = self.runs.entry(case.to_owned()).or_default();
        *run += 1;
        let noise = 1.0 + 0.02 * (self.rng.random::<f64>() - 0.5);
        let values = [(Metric::Wall, 0.5 * noise), (Metric::PeakRss, 40.0 + 0.1 * noise), (Metric::Auroc, 0.9)];
        let mut observation = Observation { values: values.into(), digest: Some("ab".to_owned()) };
        let change = self.cases.iter().find(|(name, _)| *name == case).unwrap().1;
        Ok(match change(*run, side, &mut observation) {
            Some(reason) => Observed::Failed(reason),
            None => Observed::Measured(observation),
        })
    }
}

fn same(_: usize, _: Side, _: &mut Observation) -> Option<String> {
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

fn hungrier(_: usize, side: Side, observation: &mut Observation) -> Option<String> {
    if side == Side::Head {
        *observation.values.get_mut(&Metric::PeakRss).unwrap() += 1.0;
    }
    None
}

/// Anything from a seventh to seven times as long: nothing can be said.
fn wild(run: usize, side: Side, observation: &mut Observation) -> Option<String> {
    let spread = (run as f64 * 0.618_034).fract() - 0.5;
    times(observation, side, (4.0 * spread).exp());
    None
}

fn other_features(_: usize, side: Side, observation: &mut Observation) -> Option<String> {
    observation.digest = Some(side.to_string());
    None
}

fn dies_late(run: usize, side: Side, _: &mut Observation) -> Option<String> {
    (run > 15 && side == Side::Head).then(|| "ended by signal 9".to_owned())
}

fn forgets(run: usize, side: Side, observation: &mut Observation) -> Option<String> {
    if run > 4 && side == Side::Base {
        observation.values.remove(&Metric::PeakRss);
    }
    None
}

fn not_a_number(_: usize, _: Side, observation: &mut Observation) -> Option<String> {
    observation.values.insert(Metric::Wall, f64::NAN);
    None
}

fn grows_a_metric(run: usize, _: Side, observation: &mut Observation) -> Option<String> {
    if run == 7 {
        observation.values.insert(Metric::GpuUsed, 1.0);
    }
    None
}

fn learns_a_metric(run: usize, _: Side, observation: &mut Observation) -> Option<String> {
    if run > 6 {
        observation.values.insert(Metric::GpuUsed, 1.0);
    }
    None
}

fn gate(cases: &[(&'static str, Change)], design: &Design) -> Vec<CaseReport> {
    run(&mut Made::new(cases), design, &mut Silent).unwrap()
}

fn metric(case: &CaseReport, metric: Metric) -> &super::MetricReport {
    case.metrics.iter().find(|it| it.metric == metric).unwrap()
}

#[test]
fn a_suite_names_what_regressed_and_why() {
    let cases: [(&str, Change); 6] = [
        ("same", same),
        ("slower", slower),
        ("faster", faster),
        ("hungrier", hungrier),
        ("other features", other_features),
        ("wild", wild),
    ];
    let reports = gate(&cases, &Design::screen_confirm(1));
    let verdicts: Vec<Verdict> = reports.iter().map(|case| case.verdict).collect();
    use Verdict::{Improved, Inconclusive, Pass, Regressed};
    assert_eq!(verdicts, [Pass, Regressed, Improved, Regressed, Regressed, Inconclusive]);
    let slower = metric(&reports[1], Metric::Wall);
    assert_eq!((slower.verdict, slower.n_pairs, reports[1].pairs), (Regressed, 40, 50));
    assert!((slower.estimate.unwrap() - 1.1).abs() < 0.01 && slower.low.unwrap() > 1.05, "{slower:?}");
    assert!(slower.p.unwrap() < 1e-6);
    assert_eq!(metric(&reports[1], Metric::PeakRss).verdict, Pass);
    assert_eq!(metric(&reports[3], Metric::PeakRss).verdict, Regressed);
    assert_eq!(metric(&reports[4], Metric::FeatureDigest).verdict, Regressed);
    assert_eq!(reports[2].pairs, 10, "what passes takes no more pairs");
    assert_eq!(reports[5].pairs, 60);
    assert_eq!(Outcome::of(&reports), Outcome::Regressed);
}

#[test]
fn one_case_is_looked_at_and_needs_no_confirmation() {
    let of = |change: Change| gate(&[("case", change)], &Design::looks(1)).remove(0);
    assert_eq!((of(same).verdict, of(same).pairs), (Verdict::Pass, 10));
    assert_eq!((of(slower).verdict, of(slower).pairs), (Verdict::Regressed, 10));
    assert_eq!((of(wild).verdict, of(wild).pairs), (Verdict::Inconclusive, 40));
}

#[test]
fn what_was_not_measured_never_passes() {
    let broken: [(&str, Change, &str); 5] = [
        ("dies late", dies_late, "head failed: ended by signal 9"),
        ("forgets", forgets, "base did not measure peak-rss"),
        ("not a number", not_a_number, "did not measure wall"),
        ("grows a metric", grows_a_metric, "gpu-used was not measured in the pairs before"),
        ("learns a metric", learns_a_metric, "gpu-used was not measured in the pairs before"),
    ];
    for (name, change, reason) in broken {
        for design in [Design::looks(1), Design::screen_confirm(1)] {
            let reports = gate(&[(name, change), ("same", same)], &design);
            assert_eq!(reports[0].verdict, Verdict::Broken, "{name}");
            assert!(reports[0].reason.as_deref().unwrap().contains(reason), "{name}: {reports:?}");
            assert_eq!(reports[1].verdict, Verdict::Pass, "{name}");
            assert_eq!(Outcome::of(&reports).exit_code(), 2);
        }
    }
    assert_eq!(Outcome::of(&gate(&[], &Design::screen_confirm(1))), Outcome::Broken);
}

/// Remembers pairs like a journal.
#[derive(Default)]
struct Memory {
    pairs: BTreeMap<(Stage, String, usize), Pair>,
}

impl Listener for Memory {
    fn recorded(&mut self, stage: Stage, case: &str, index: usize) -> Option<Pair> {
        self.pairs.get(&(stage, case.to_owned(), index)).cloned()
    }

    fn taken(&mut self, pair: &Pair) -> Result<()> {
        let before = self.pairs.insert((pair.stage, pair.case.clone(), pair.index), pair.clone());
        assert_eq!(before, None, "a pair was taken twice");
        Ok(())
    }
}

#[test]
fn an_interrupted_gate_goes_on_with_the_same_pairs_and_comes_to_the_same() {
    let cases: [(&str, Change); 3] = [("same", same), ("slower", slower), ("wild", wild)];
    let design = Design::screen_confirm(3);
    let mut memory = Memory::default();
    let mut source = Made { interrupt_after: 33, ..Made::new(&cases) };
    assert!(matches!(run(&mut source, &design, &mut memory), Err(Error::Interrupted)));
    // The run of the pair that was being taken is lost; everything before it is not taken again.
    assert_eq!(memory.pairs.len(), 16);
    let first: BTreeMap<_, _> = memory.pairs.clone();
    source.interrupt_after = usize::MAX;
    let reports = run(&mut source, &design, &mut memory).unwrap();
    for (place, pair) in first {
        assert_eq!(memory.pairs[&place], pair);
    }
    // A third time nothing is taken at all, and the pairs come to the same.
    source.interrupt_after = 0;
    assert_eq!(run(&mut source, &design, &mut memory).unwrap(), reports);
}

#[test]
fn the_order_follows_the_seed_and_is_not_always_the_same() {
    let order = |seed: u64| {
        let mut memory = Memory::default();
        run(&mut Made::new(&[("wild", wild)]), &Design::looks(seed), &mut memory).unwrap();
        memory.pairs.into_values().map(|pair| pair.first == Side::Base).collect::<Vec<bool>>()
    };
    assert_eq!(order(1), order(1));
    assert_ne!(order(1), order(2));
    let first = order(1).into_iter().filter(|base| *base).count();
    assert!((8..=32).contains(&first), "{first} of 40");
}
