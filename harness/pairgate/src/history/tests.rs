//! Series of synthetic runs.

use super::*;
use crate::metric::Metric;
use crate::test_support::{FAST, STEADY, runs};

fn find<'a>(series: &'a [FigureSeries<&'static str>], case: &str, metric: Metric) -> &'a FigureSeries<&'static str> {
    series.iter().find(|series| series.case == case && series.metric == metric).unwrap()
}

#[test]
fn step_is_found_and_starts_the_series_over() {
    let series = all_series(&runs(&[(15, 2.0), (15, 2.1)])).unwrap();
    let fast = find(&series, FAST, Metric::Wall);
    assert_eq!(fast.changes.len(), 1, "{:?}", fast.changes);
    assert!(fast.changes[0].index.abs_diff(15) <= 1);
    assert_eq!(fast.current().len(), 30 - fast.changes[0].index);
    let (before, after) = fast.levels(fast.changes[0].index);
    assert!((after / before - 1.05).abs() < 0.01, "{before} {after}");
    assert!(find(&series, STEADY, Metric::Wall).changes.is_empty());
    assert_eq!(find(&series, FAST, Metric::Auroc).points.len(), 30);
    assert!(find(&series, FAST, Metric::Auroc).larger_is_better());
}

#[test]
fn incomparable_runs_are_separate_series() {
    let mut runs = runs(&[(6, 2.0)]);
    runs[1].key.work = "other".to_owned();
    runs[2].key.machine = "other".to_owned();
    runs[3].key.build = "other".to_owned();
    let series = all_series(&runs).unwrap();
    let is_fast_wall = |series: &&FigureSeries<&'static str>| series.metric == Metric::Wall && series.case == FAST;
    let mut lengths: Vec<usize> = series.iter().filter(is_fast_wall).map(|series| series.points.len()).collect();
    lengths.sort_unstable();
    assert_eq!(lengths, [1, 1, 1, 3]);
}
