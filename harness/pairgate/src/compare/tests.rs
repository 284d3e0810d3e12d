//! Comparisons of synthetic runs, with and without a history.

use super::*;
use crate::history::RunRecord;
use crate::test_support::{FAST, STEADY, figure, run, runs};

const MARGINS: ComparisonMargins =
    ComparisonMargins { delta: 0.01, effect: 0.05, memory_fraction: 0.005, memory_mb: 0.25, auroc: 1e-6 };

type TestRun = RunRecord<&'static str>;
type TestComparison = RunComparison<&'static str>;

fn compared(base: &TestRun, head: &TestRun, history: &[TestRun]) -> TestComparison {
    compare("test/1", base, head, history, MARGINS).unwrap()
}

fn fast(comparison: &TestComparison, metric: Metric) -> &FigureComparison<&'static str> {
    comparison.figures.iter().find(|compared| compared.case == FAST && compared.metric == metric).unwrap()
}

#[test]
fn without_history_only_results_are_judged() {
    let comparison = compared(&run(1, 2.0), &run(2, 3.0), &[]);
    assert_eq!(comparison.outcome, Verdict::Inconclusive);
    assert!(comparison.not_judged[0].contains("no history"), "{:?}", comparison.not_judged);
    let time = fast(&comparison, Metric::Wall);
    assert!((time.ratio.unwrap() - 1.5).abs() < 0.01);
    let interval = time.interval.unwrap();
    assert!(interval.low < 1.5 && 1.5 < interval.high, "{interval:?}");
    assert_eq!(time.verdict, Verdict::Inconclusive);
    assert_eq!((comparison.exit_code(false), comparison.exit_code(true)), (0, 3));
    assert_eq!(comparison.n_judged(), 4, "AUROC and digest of both cases");
    assert_eq!(fast(&comparison, Metric::Auroc).verdict, Verdict::Pass);
    assert_eq!(fast(&comparison, Metric::ResultDigest).verdict, Verdict::Pass);
}

#[test]
fn history_separates_slow_runs_from_usual_ones() {
    let history = runs(&[(20, 2.0)]);
    let judge = |seconds: f64| compared(&run(1, 2.0), &run(40, seconds), &history);
    let same = judge(2.005);
    assert_eq!((same.outcome, same.n_history), (Verdict::Pass, 20), "{same:?}");
    assert!(same.not_judged.is_empty());
    assert_eq!(judge(2.1).outcome, Verdict::Regressed);
    let faster = judge(1.8);
    assert_eq!((faster.outcome, fast(&faster, Metric::Wall).verdict), (Verdict::Pass, Verdict::Improved));
    // The runs have exactly the same memory: only a growth beyond the margin counts.
    let grown = |mib: f64| {
        let mut head = run(40, 2.0);
        for case in [FAST, STEADY] {
            figure(&mut head, case, Metric::PeakRss).values.iter_mut().for_each(|peak| *peak += mib);
        }
        compared(&run(1, 2.0), &head, &history).outcome
    };
    assert_eq!((grown(3.0), grown(20.0)), (Verdict::Pass, Verdict::Regressed));
}

#[test]
fn scattered_history_is_inconclusive() {
    let mut history = runs(&[(12, 2.0)]);
    for (index, past) in history.iter_mut().enumerate() {
        *past = run(index, 2.0 + 0.4 * (index % 2) as f64);
    }
    let comparison = compared(&run(1, 2.0), &run(40, 2.3), &history);
    assert_eq!(comparison.outcome, Verdict::Inconclusive);
    assert!(fast(&comparison, Metric::Wall).note.as_deref().unwrap().contains("scatter"));
    assert_eq!((comparison.n_undecided(), comparison.lacks_runs(), comparison.exit_code(false)), (1, false, 3));
    assert_eq!(compared(&run(1, 2.0), &run(40, 4.0), &history).outcome, Verdict::Regressed);
}

#[test]
fn short_history_is_not_judged_by() {
    let comparison = compared(&run(1, 2.0), &run(40, 4.0), &runs(&[(9, 2.0)]));
    assert_eq!(comparison.outcome, Verdict::Inconclusive);
    assert!(comparison.not_judged[0].contains("9 runs") && comparison.not_judged[0].contains("10"), "{comparison:?}");
    assert_eq!((comparison.exit_code(false), comparison.exit_code(true)), (0, 3));
    let one = compared(&run(1, 2.0), &run(40, 4.0), &runs(&[(1, 2.0)]));
    assert!(one.not_judged[0].contains("has 1 run to judge by"), "{:?}", one.not_judged);
}

#[test]
fn history_before_a_change_is_ignored() {
    let comparison = compared(&run(1, 2.0), &run(60, 2.5), &runs(&[(20, 2.0), (15, 2.5)]));
    let time = fast(&comparison, Metric::Wall);
    assert_eq!((time.verdict, time.history.as_ref().unwrap().n), (Verdict::Pass, 15), "{time:?}");
    assert_eq!(time.history.as_ref().unwrap().since.as_deref(), Some("020.json"));
    let comparison = compared(&run(1, 2.0), &run(60, 2.5), &runs(&[(20, 2.0), (8, 2.5)]));
    assert_eq!(fast(&comparison, Metric::Wall).verdict, Verdict::Inconclusive);
    assert!(comparison.not_judged[0].contains("first measured or last changed"), "{:?}", comparison.not_judged);
    assert_eq!((comparison.exit_code(false), comparison.exit_code(true)), (0, 3));
}

#[test]
fn later_and_incomparable_runs_are_ignored() {
    let mut history = runs(&[(20, 2.0)]);
    history.iter_mut().for_each(|run| run.key.machine = "other".to_owned());
    let comparison = compared(&run(1, 2.0), &run(40, 2.0), &history);
    assert_eq!((comparison.outcome, comparison.n_history), (Verdict::Inconclusive, 0));
    assert!(comparison.not_judged[0].contains("0 its machine"), "{:?}", comparison.not_judged);
    assert_eq!(compared(&run(1, 2.0), &run(12, 2.0), &runs(&[(20, 2.0)])).n_history, 12);
}

#[test]
fn differing_facts_are_named() {
    let (mut base, head) = (run(1, 2.0), run(2, 2.0));
    base.facts.machine[0].1 = "Linux 5.4".to_owned();
    base.facts.build[0].1 = "debug".to_owned();
    base.facts.work[0].1 = "7".to_owned();
    figure(&mut base, FAST, Metric::Auroc).values.fill(0.5);
    let comparison = compared(&base, &head, &[]);
    let reasons = comparison.not_judged.join("\n");
    for part in ["samples 7 against 10", "kernel Linux 5.4 against Linux 6.1", "profile debug against release"] {
        assert!(reasons.contains(part), "{part}: {reasons}");
    }
    assert_eq!(fast(&comparison, Metric::Auroc).verdict, Verdict::Inconclusive, "other work has another AUROC");
}

#[test]
fn figure_that_past_runs_lack_is_not_judged() {
    let history = runs(&[(20, 2.0)]);
    let mut head = run(40, 2.0);
    let added = RunFigure { metric: Metric::PeakAnonymous, ..figure(&mut head, FAST, Metric::PeakRss).clone() };
    head.figures.push(added);
    let comparison = compared(&run(1, 2.0), &head, &history);
    assert!(!fast(&comparison, Metric::PeakAnonymous).judged);
    assert_eq!((comparison.n_judged(), comparison.lacks_runs()), (8, true));
    assert!(comparison.not_judged[0].starts_with("1 of 5 figures have fewer"), "{:?}", comparison.not_judged);
    head.figures.iter_mut().filter(|figure| figure.metric == Metric::Wall).for_each(|wall| {
        wall.values.iter_mut().for_each(|seconds| *seconds *= 1.2);
    });
    assert_eq!(compared(&run(1, 2.0), &head, &history).exit_code(false), 1, "a short history hides no regression");
}

#[test]
fn changed_results_are_a_regression() {
    let mut head = run(2, 2.0);
    figure(&mut head, FAST, Metric::ResultDigest).digests = vec!["d2".to_owned()];
    let comparison = compared(&run(1, 2.0), &head, &[]);
    assert_eq!(
        (comparison.outcome, fast(&comparison, Metric::ResultDigest).verdict),
        (Verdict::Regressed, Verdict::Regressed)
    );
    let mut head = run(2, 2.0);
    figure(&mut head, FAST, Metric::Auroc).values.fill(0.9);
    assert_eq!(compared(&run(1, 2.0), &head, &[]).outcome, Verdict::Regressed);
}

#[test]
fn failed_or_missing_figures_are_broken() {
    let history = runs(&[(20, 2.0)]);
    let mut head = run(40, 2.0);
    figure(&mut head, FAST, Metric::Wall).failed = 1;
    assert_eq!(compared(&run(1, 2.0), &head, &history).outcome, Verdict::Broken);
    let mut head = run(40, 2.0);
    head.figures.retain(|figure| figure.metric != Metric::PeakRss);
    let comparison = compared(&run(1, 2.0), &head, &history);
    assert_eq!(comparison.outcome, Verdict::Broken);
    assert_eq!(fast(&comparison, Metric::PeakRss).note.as_deref(), Some("head lacks this figure"));
    let mut head = run(40, 2.0);
    for lost in head.figures.iter_mut().filter(|figure| figure.case == FAST) {
        lost.values.clear();
        lost.digests.clear();
    }
    assert_eq!(compared(&run(1, 2.0), &head, &history).outcome, Verdict::Broken);
    let empty = RunRecord { figures: Vec::new(), ..run(40, 2.0) };
    assert_eq!(compared(&run(1, 2.0), &empty, &[]).outcome, Verdict::Broken);
}

#[test]
fn case_that_head_did_not_run_is_named() {
    let mut head = run(40, 2.0);
    head.figures.retain(|figure| figure.case == STEADY);
    let comparison = compared(&run(1, 2.0), &head, &runs(&[(20, 2.0)]));
    assert_eq!(comparison.outcome, Verdict::Pass);
    assert_eq!(comparison.not_judged, ["head was run without fast, which base has"]);
}
