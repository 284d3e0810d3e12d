//! Result files as runs of a history, and a gate report for the tests of exports.

use std::fs;

use pairgate::design::GateDesign;
use pairgate::history::{AddedFile, FigureSeries};
use pairgate::report::ProgramIdentity;
use pairgate::{CaseReport, GateReport, Metric, MetricReport, Verdict};

use super::figures::{TaskMethod, different_inputs, run_record, series_key};
use super::{HistoryEntry, history};
use crate::case::{Method, RunConfig, Task};
use crate::results::ResultFile;
use crate::results::identity::RunIdentity;
use crate::test_support::{environment, file_of, ok_row, out_of_memory, row, small_config};

/// A run of `train` in hour `hour` of a month, lazy taking about `seconds`.
fn run(hour: usize, seconds: f64) -> ResultFile {
    let config = RunConfig { tasks: vec![Task::Train], methods: vec![Method::Eager, Method::Lazy], ..small_config() };
    let rows = (0..5).flat_map(|block| {
        let drift = 1.0 + 0.001 * block as f64;
        [
            ok_row(Task::Train, Method::Eager, block, 4.0 * drift, 1000.0),
            ok_row(Task::Train, Method::Lazy, block, seconds * drift, 800.0),
        ]
    });
    let mut results = file_of(config, rows);
    results.environment.date = format!("2024-05-{:02}T{:02}:00:00Z", 1 + hour / 24, hour % 24);
    results.environment.commit = Some(format!("{hour:040x}"));
    results.environment.dirty = Some(false);
    results
}

/// A gate report with a regressed case.
pub(crate) fn gate_report() -> GateReport {
    let wall = MetricReport {
        verdict: Verdict::Regressed,
        estimate: Some(1.062),
        low: Some(1.052),
        high: Some(1.072),
        confidence: Some(0.951),
        n_pairs: 20,
        p: Some(0.0012),
        base_median: Some(0.5),
        head_median: Some(0.531),
        ..MetricReport::unmeasured(Metric::Wall)
    };
    let cases = vec![CaseReport {
        name: "train/lazy".to_owned(),
        verdict: Verdict::Regressed,
        reason: None,
        pairs: 20,
        metrics: vec![wall],
    }];
    let program =
        || ProgramIdentity { path: "actbench".into(), build: "0123456789abcdef".to_owned(), ..Default::default() };
    GateReport {
        schema: super::GATE_SCHEMA.to_owned(),
        outcome: Verdict::of_cases(&cases),
        design: GateDesign::screen_confirm(7),
        base: program(),
        head: program(),
        environment: serde_json::to_value(environment()).unwrap(),
        machine: "fedcba9876543210".to_owned(),
        resolution: None,
        warnings: Vec::new(),
        cases,
    }
}

#[test]
fn record_has_figures_of_all_cases_and_metrics() {
    let record = run_record("a.json", &run(3, 2.0));
    assert_eq!((record.name.as_str(), record.label.as_str()), ("a.json", "0000000"));
    let lazy = TaskMethod { task: Task::Train, method: Method::Lazy };
    let figure =
        |metric: Metric| record.figures.iter().find(|figure| figure.case == lazy && figure.metric == metric).unwrap();
    assert!((figure(Metric::Wall).median().unwrap() - 2.004).abs() < 1e-9);
    assert_eq!(figure(Metric::ResultDigest).digests, ["d1"]);
    assert_eq!(figure(Metric::PeakRss).values, [800.0; 5]);
    assert_eq!(figure(Metric::PeakAnonymous).values, [798.0; 5]);
    assert_eq!(lazy.to_string(), "train lazy");
}

#[test]
fn failed_case_has_a_figure_without_values() {
    let mut results = run(3, 2.0);
    results.rows.retain(|row| row.method == Method::Eager);
    results.rows.push(row(Task::Train, Method::Lazy, 0, out_of_memory()));
    let record = run_record("a.json", &results);
    let lazy: Vec<_> = record.figures.iter().filter(|figure| figure.case.method == Method::Lazy).collect();
    assert_eq!(lazy.len(), 1);
    assert_eq!((lazy[0].metric, lazy[0].failed, lazy[0].median()), (Metric::Wall, 1, None));
}

#[test]
fn key_depends_on_work_machine_and_build_alone() {
    let base = run(3, 2.0);
    let key = series_key(&base);
    let mut other = base.clone();
    other.config.repetitions = Some(77);
    other.environment.date = "2030-01-01T00:00:00Z".to_owned();
    assert_eq!(series_key(&other), key);
    other.config.samples += 1;
    assert_ne!(series_key(&other).work, key.work);
    let mut other = base.clone();
    other.environment.cores_logical += 1;
    assert_ne!(series_key(&other).machine, key.machine);
    let mut other = base;
    other.environment.rustc = Some("another".to_owned());
    assert_ne!(series_key(&other).build, key.build);
}

#[test]
fn different_model_or_data_is_named() {
    let with = |model: Option<&str>, weights: Option<&str>, data: Option<&str>| {
        let mut results = run(1, 2.0);
        results.config.model = model.map(str::to_owned);
        results.identity =
            Some(RunIdentity { weights: weights.map(|it| it.repeat(64)), data: data.map(|it| it.repeat(64)) });
        results
    };
    let base = with(None, Some("a"), Some("c"));
    assert_eq!(different_inputs(&base, &with(Some("a/copy"), Some("a"), Some("c"))), [""; 0], "one model of two names");
    assert_eq!(
        different_inputs(&base, &with(Some("smollm2"), Some("b"), Some("d"))),
        ["model embedded against smollm2", "data set embedded with the digest cccccccc against dddddddd"]
    );
    // Without digests the names count.
    assert_eq!(different_inputs(&base, &run(1, 2.0)), [""; 0]);
    assert_eq!(different_inputs(&base, &with(Some("smollm2"), None, None)), ["model embedded against smollm2"]);
}

#[test]
fn series_are_ordered_by_task_and_method() {
    let entries: Vec<HistoryEntry> =
        (0..3).map(|hour| HistoryEntry { name: format!("{hour}.json"), results: run(hour, 2.0) }).collect();
    let series: Vec<FigureSeries<TaskMethod>> = history::series(&entries).unwrap();
    let wall: Vec<String> =
        series.iter().filter(|series| series.metric == Metric::Wall).map(|series| series.case.to_string()).collect();
    assert_eq!(wall, ["train eager", "train lazy"]);
    let json = serde_json::to_value(&series[0]).unwrap();
    assert_eq!(json["case"], serde_json::json!({ "task": "train", "method": "eager" }));
}

#[test]
fn result_file_is_added_once_under_its_date() {
    let parent = tempfile::tempdir().unwrap();
    let (directory, file) = (parent.path().join("history"), parent.path().join("results.json"));
    run(3, 2.0).write(&file).unwrap();
    let AddedFile::New(first) = history::add(&directory, &file).unwrap() else { panic!("it did not exist") };
    let name = first.file_name().unwrap().to_string_lossy().into_owned();
    assert!(name.starts_with("20240501T030000Z-000000000000-"), "{name}");
    assert_eq!(history::add(&directory, &file).unwrap(), AddedFile::Existing(first.clone()));
    run(3, 9.0).write(&file).unwrap();
    let AddedFile::New(second) = history::add(&directory, &file).unwrap() else { panic!("it is another run") };
    assert_ne!(first, second);
    assert_eq!(history::read(&directory).unwrap().len(), 2);
}

#[test]
fn runs_of_one_second_are_ordered_by_milliseconds() {
    let parent = tempfile::tempdir().unwrap();
    let (directory, file) = (parent.path().join("history"), parent.path().join("results.json"));
    let add = |date: &str, seconds: f64| {
        let mut results = run(0, seconds);
        results.environment.date = date.to_owned();
        results.write(&file).unwrap();
        assert!(matches!(history::add(&directory, &file).unwrap(), AddedFile::New(_)));
    };
    // Two files of an older version, whose dates have seconds, and two of one second later.
    add("2024-05-01T03:00:00Z", 1.0);
    add("2024-05-01T03:00:00Z", 2.0);
    add("2024-05-01T03:00:01.020Z", 4.0);
    add("2024-05-01T03:00:01.003Z", 3.0);
    let entries = history::read(&directory).unwrap();
    let lazy =
        |entry: &HistoryEntry| entry.results.rows.iter().find(|row| row.method == Method::Lazy).unwrap().elapsed_s;
    assert_eq!(entries.iter().map(lazy).collect::<Vec<_>>(), [Some(1.0), Some(2.0), Some(3.0), Some(4.0)]);
    assert!(entries[1].name.ends_with("-2.json") && entries[2].name.starts_with("20240501T030001003Z-"), "{entries:?}");
    let records = history::run_records(&entries);
    assert!(records[2].date < records[3].date && records[1].date < records[2].date, "{records:?}");
}

#[test]
fn invalid_result_files_are_refused_by_name() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("other.json");
    for text in ["", "{}", "{\"schema\": \"actbench/1\"}", "[1]"] {
        fs::write(&path, text).unwrap();
        for error in [history::add(parent.path(), &path).unwrap_err(), history::read(parent.path()).unwrap_err()] {
            assert!(error.to_string().contains("other.json"), "{error}");
            assert_eq!(error.exit_code(), 2);
        }
    }
    let mut empty = run(0, 1.0);
    empty.rows.clear();
    empty.environment.date = "../../../etc".to_owned();
    empty.write(&path).unwrap();
    assert!(history::add(parent.path(), &path).unwrap_err().to_string().contains("no observation"));
    let mut odd = run(0, 1.0);
    odd.environment.commit = Some("../../x".to_owned());
    odd.write(&path).unwrap();
    let AddedFile::New(target) = history::add(&parent.path().join("inner"), &path).unwrap() else {
        panic!("it is new")
    };
    assert_eq!(target.parent().unwrap(), parent.path().join("inner"));
}
