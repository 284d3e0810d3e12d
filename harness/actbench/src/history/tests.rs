//! Histories of made-up runs.

use std::fs;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::folder::{self, Added};
use super::*;
use crate::case::{Method, RunConfig, Task};
use crate::gate::Metric;
use crate::results::ResultFile;
use crate::test_support::{file_of, ok_row, small_config};

/// A run of `train` on day `day` of a month, lazy taking about `seconds`.
pub(crate) fn run(day: usize, seconds: f64) -> ResultFile {
    let config = RunConfig { tasks: vec![Task::Train], methods: vec![Method::Eager, Method::Lazy], ..small_config() };
    let rows = (0..5).flat_map(|block| {
        let wobble = 1.0 + 0.001 * block as f64;
        [
            ok_row(Task::Train, Method::Eager, block, 4.0 * wobble, 1000.0),
            ok_row(Task::Train, Method::Lazy, block, seconds * wobble, 800.0),
        ]
    });
    let mut results = file_of(config, rows);
    results.environment.date = format!("2024-05-{:02}T{:02}:00:00Z", 1 + day / 24, day % 24);
    results.environment.commit = Some(format!("{day:040x}"));
    results.environment.dirty = Some(false);
    results
}

/// Runs whose times scatter by about 1 per cent around each of `levels`.
pub(crate) fn runs(levels: &[(usize, f64)]) -> Vec<Entry> {
    let mut random = ChaCha8Rng::seed_from_u64(7);
    let times: Vec<f64> = levels.iter().flat_map(|(n, level)| vec![*level; *n]).collect();
    let times = times.into_iter().map(|level| level * (1.0 + random.random_range(-0.017..0.017)));
    times
        .enumerate()
        .map(|(day, seconds)| Entry { name: format!("{day:03}.json"), results: run(day, seconds) })
        .collect()
}

fn of(series: &[Series], method: Method, metric: Metric) -> &Series {
    series.iter().find(|it| it.case.method == method && it.metric == metric).unwrap()
}

#[test]
fn a_step_is_found_and_the_series_begins_anew_there() {
    let series = all_series(&runs(&[(15, 2.0), (15, 2.1)])).unwrap();
    let lazy = of(&series, Method::Lazy, Metric::Wall);
    assert_eq!(lazy.changes.len(), 1, "{:?}", lazy.changes);
    assert!(lazy.changes[0].index.abs_diff(15) <= 1);
    assert_eq!(lazy.current().len(), 30 - lazy.changes[0].index);
    let (before, after) = lazy.levels(lazy.changes[0].index);
    assert!((after / before - 1.05).abs() < 0.01, "{before} {after}");
    assert!(of(&series, Method::Eager, Metric::Wall).changes.is_empty());
    assert_eq!(of(&series, Method::Lazy, Metric::Auroc).points.len(), 30);
}

#[test]
fn runs_of_other_work_or_other_machines_are_series_of_their_own() {
    let mut entries = runs(&[(6, 2.0)]);
    entries[1].results.config.samples += 1;
    entries[2].results.environment.cores_logical += 1;
    entries[3].results.environment.rustc = Some("another".to_owned());
    entries[4].results.config.repetitions = Some(77);
    let series = all_series(&entries).unwrap();
    let mut lengths: Vec<usize> = series
        .iter()
        .filter(|it| it.metric == Metric::Wall && it.case.method == Method::Lazy)
        .map(|it| it.points.len())
        .collect();
    lengths.sort_unstable();
    assert_eq!(lengths, [1, 1, 1, 3]);
}

#[test]
fn a_run_is_added_once_and_nothing_is_ever_overwritten() {
    let place = tempfile::tempdir().unwrap();
    let (folder, file) = (place.path().join("history"), place.path().join("results.json"));
    run(3, 2.0).write(&file).unwrap();
    let Added::As(first) = folder::add(&folder, &file).unwrap() else { panic!("it was not there") };
    let name = first.file_name().unwrap().to_string_lossy().into_owned();
    assert!(name.starts_with("20240501T030000Z-000000000000-"), "{name}");
    assert_eq!(folder::add(&folder, &file).unwrap(), Added::Already(first.clone()));
    let before = fs::read(&first).unwrap();
    run(3, 9.0).write(&file).unwrap();
    let Added::As(second) = folder::add(&folder, &file).unwrap() else { panic!("it is another run") };
    assert_ne!(first, second);
    assert_eq!(fs::read(&first).unwrap(), before);
    assert_eq!(folder::read(&folder).unwrap().len(), 2);
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 2, "a temporary file was left behind");
}

#[test]
fn what_is_no_run_is_refused_by_name() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("other.json");
    for text in ["", "{}", "{\"schema\": \"actbench/1\"}", "[1]"] {
        fs::write(&path, text).unwrap();
        for error in [folder::add(place.path(), &path).unwrap_err(), folder::read(place.path()).unwrap_err()] {
            assert!(error.to_string().contains("other.json"), "{error}");
            assert_eq!(error.exit_code(), 2);
        }
    }
    let mut empty = run(0, 1.0);
    empty.rows.clear();
    empty.environment.date = "../../../etc".to_owned();
    empty.write(&path).unwrap();
    assert!(folder::add(place.path(), &path).unwrap_err().to_string().contains("no observation"));
    let mut odd = run(0, 1.0);
    odd.environment.commit = Some("../../x".to_owned());
    odd.write(&path).unwrap();
    let Added::As(target) = folder::add(&place.path().join("inner"), &path).unwrap() else { panic!("it is new") };
    assert_eq!(target.parent().unwrap(), place.path().join("inner"));
}
