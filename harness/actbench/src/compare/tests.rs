//! Comparisons of made-up runs, with and without a history.

use super::*;
use crate::case::{Method, Task};
use crate::history::tests::{run, runs};
use crate::test_support::{file_of, out_of_memory, row, small_config};

const MARGINS: Margins = Margins { delta: 0.01, effect: 0.05, memory_share: 0.005, memory_mb: 0.25, auroc: 1e-6 };

fn compared(base: &ResultFile, head: &ResultFile, history: &[Entry]) -> Comparison {
    compare(base, head, history, MARGINS).unwrap()
}

fn lazy(comparison: &Comparison, metric: Metric) -> &FigureComparison {
    comparison.figures.iter().find(|it| it.case.method == Method::Lazy && it.metric == metric).unwrap()
}

#[test]
fn without_a_history_ratios_are_shown_and_nothing_is_concluded() {
    let comparison = compared(&run(1, 2.0), &run(2, 3.0), &[]);
    assert_eq!(comparison.outcome, Outcome::Inconclusive);
    assert!(comparison.not_judged[0].contains("no history"), "{:?}", comparison.not_judged);
    let time = lazy(&comparison, Metric::Wall);
    assert!((time.ratio.unwrap() - 1.5).abs() < 0.01);
    let interval = time.interval.unwrap();
    assert!(interval.low < 1.5 && 1.5 < interval.high, "{interval:?}");
    assert_eq!(time.verdict, Verdict::Inconclusive);
    // Results must agree whatever the history is.
    assert_eq!(lazy(&comparison, Metric::Auroc).verdict, Verdict::Pass);
    assert_eq!(lazy(&comparison, Metric::FeatureDigest).verdict, Verdict::Pass);
}

#[test]
fn with_a_history_a_slow_run_is_an_alarm_and_one_like_the_others_is_not() {
    let history = runs(&[(20, 2.0)]);
    let judge = |seconds: f64| compared(&run(1, 2.0), &run(40, seconds), &history);
    let same = judge(2.005);
    assert_eq!((same.outcome, same.n_history), (Outcome::Pass, 20), "{same:?}");
    assert!(same.not_judged.is_empty());
    assert_eq!(judge(2.1).outcome, Outcome::Regressed);
    let fast = judge(1.8);
    assert_eq!((fast.outcome, lazy(&fast, Metric::Wall).verdict), (Outcome::Pass, Verdict::Improved));
    // The runs have the same memory to the bit: only what exceeds the margin counts.
    let hungry = |more: f64| {
        let mut head = run(40, 2.0);
        head.rows.iter_mut().for_each(|row| row.cpu_peak_rss_mb = row.cpu_peak_rss_mb.map(|peak| peak + more));
        compared(&run(1, 2.0), &head, &history).outcome
    };
    assert_eq!((hungry(3.0), hungry(20.0)), (Outcome::Pass, Outcome::Regressed));
}

#[test]
fn a_scattered_history_does_not_pass_what_it_could_not_have_seen() {
    let mut history = runs(&[(12, 2.0)]);
    for (index, entry) in history.iter_mut().enumerate() {
        entry.results = run(index, 2.0 + 0.4 * (index % 2) as f64);
    }
    let comparison = compared(&run(1, 2.0), &run(40, 2.3), &history);
    assert_eq!(comparison.outcome, Outcome::Inconclusive);
    assert!(lazy(&comparison, Metric::Wall).note.as_deref().unwrap().contains("scatter"));
    assert_eq!(compared(&run(1, 2.0), &run(40, 4.0), &history).outcome, Outcome::Regressed);
}

#[test]
fn too_short_a_history_says_so() {
    let comparison = compared(&run(1, 2.0), &run(40, 4.0), &runs(&[(9, 2.0)]));
    assert_eq!(comparison.outcome, Outcome::Inconclusive);
    assert!(comparison.not_judged[0].contains("9 runs") && comparison.not_judged[0].contains("10"), "{comparison:?}");
}

#[test]
fn a_history_begins_anew_where_it_changed() {
    let comparison = compared(&run(1, 2.0), &run(60, 2.5), &runs(&[(20, 2.0), (15, 2.5)]));
    let time = lazy(&comparison, Metric::Wall);
    assert_eq!((time.verdict, time.history.as_ref().unwrap().n), (Verdict::Pass, 15), "{time:?}");
    assert_eq!(time.history.as_ref().unwrap().since.as_deref(), Some("020.json"));
    let comparison = compared(&run(1, 2.0), &run(60, 2.5), &runs(&[(20, 2.0), (8, 2.5)]));
    assert_eq!(lazy(&comparison, Metric::Wall).verdict, Verdict::Inconclusive);
    assert!(comparison.not_judged[0].contains("since they last changed"), "{:?}", comparison.not_judged);
}

#[test]
fn later_runs_and_runs_of_other_machines_are_no_history() {
    let mut history = runs(&[(20, 2.0)]);
    history.iter_mut().for_each(|entry| entry.results.environment.cores_logical = 64);
    let comparison = compared(&run(1, 2.0), &run(40, 2.0), &history);
    assert_eq!((comparison.outcome, comparison.n_history), (Outcome::Inconclusive, 0));
    assert!(comparison.not_judged[0].contains("0 its machine"), "{:?}", comparison.not_judged);
    assert_eq!(compared(&run(1, 2.0), &run(12, 2.0), &runs(&[(20, 2.0)])).n_history, 12);
}

#[test]
fn what_two_files_do_not_have_in_common_is_named() {
    let (mut base, head) = (run(1, 2.0), run(2, 2.0));
    base.environment.kernel = Some("Linux 5.4".to_owned());
    base.environment.profile = "debug".to_owned();
    base.config.samples = 7;
    base.rows.iter_mut().for_each(|row| row.metric_value = Some(0.5));
    let comparison = compared(&base, &head, &[]);
    let told = comparison.not_judged.join("\n");
    for part in ["samples 7 against", "kernel Linux 5.4 against Linux 6.1", "profile debug against release"] {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert_eq!(lazy(&comparison, Metric::Auroc).verdict, Verdict::Inconclusive, "other work has another AUROC");
}

#[test]
fn results_that_changed_are_a_regression() {
    let mut head = run(2, 2.0);
    head.rows.iter_mut().for_each(|row| {
        row.metrics.feature_digest = Some("d2".to_owned());
    });
    let comparison = compared(&run(1, 2.0), &head, &[]);
    assert_eq!(
        (comparison.outcome, lazy(&comparison, Metric::FeatureDigest).verdict),
        (Outcome::Regressed, Verdict::Regressed)
    );
    let mut head = run(2, 2.0);
    head.rows.iter_mut().for_each(|row| row.metric_value = Some(0.9));
    assert_eq!(compared(&run(1, 2.0), &head, &[]).outcome, Outcome::Regressed);
}

#[test]
fn failures_missing_figures_and_nothing_at_all_are_broken() {
    let history = runs(&[(20, 2.0)]);
    let mut head = run(40, 2.0);
    head.rows[1] = row(Task::Train, Method::Lazy, 0, out_of_memory());
    assert_eq!(compared(&run(1, 2.0), &head, &history).outcome, Outcome::Broken);
    let mut head = run(40, 2.0);
    head.rows.iter_mut().for_each(|row| row.cpu_peak_rss_mb = None);
    let comparison = compared(&run(1, 2.0), &head, &history);
    assert_eq!(comparison.outcome, Outcome::Broken);
    assert_eq!(lazy(&comparison, Metric::PeakRss).note.as_deref(), Some("head has no such figure"));
    let mut head = run(40, 2.0);
    head.rows.retain(|row| row.method == Method::Eager);
    assert_eq!(compared(&run(1, 2.0), &head, &history).outcome, Outcome::Broken);
    assert_eq!(compared(&run(1, 2.0), &file_of(small_config(), []), &[]).outcome, Outcome::Broken);
}
