//! Rows, summaries and the file, on made-up observations.

use std::fs;

use serde_json::{Map, Value, json};

use super::summary::TaskSummary;
use super::*;
use crate::measure::environment::Environment;
use crate::measure::memory::Peaks;
use crate::runner::ending::{Ended, Ending};
use crate::runner::protocol::Failure;
use crate::runner::schedule::Slot;
use crate::runner::schedule::tests::config;
use crate::workload::case::{CaseOutcome, Method};

/// An environment that is the same everywhere.
pub(crate) fn environment() -> MachineRecord {
    let environment = Environment {
        date: "2024-05-06T07:08:09Z".to_owned(),
        cpu_model: Some("A processor".to_owned()),
        cores_logical: 2,
        cores_physical: Some(2),
        ram_mb: Some(1024.0),
        governor: None,
        kernel: Some("Linux 6.1".to_owned()),
        instruction_set: None,
        huge_pages: None,
        gpus: Vec::new(),
        driver: None,
        cuda: None,
        version: "0.1.0".to_owned(),
        rustc: None,
        profile: "release".to_owned(),
        target: None,
        features: Vec::new(),
        rustflags: None,
        commit: None,
        dirty: None,
        command_line: vec!["actbench".to_owned(), "run".to_owned()],
    };
    MachineRecord { environment, fingerprint: None, warnings: Vec::new(), resolution: None }
}

pub(crate) fn peaks(rss_mb: f64) -> Peaks {
    Peaks {
        rss_mb: Some(rss_mb),
        heap_mb: rss_mb / 2.0,
        rss_anonymous_mb: Some(1.0),
        rss_file_mb: Some(2.0),
        load_rss_mb: Some(3.0),
        includes_loading: false,
    }
}

/// A row that came through in `seconds` with a peak of `rss_mb`.
pub(crate) fn ok_row(task: Task, method: Method, block: usize, seconds: f64, rss_mb: f64) -> Row {
    let outcome = CaseOutcome {
        elapsed_s: seconds,
        extract_s: 0.75 * seconds,
        train_eval_s: 0.25 * seconds,
        metric_name: "auroc".to_owned(),
        metric_value: 0.975,
        gpu: None,
        extra: Map::from_iter([("feature_digest".to_owned(), json!("d1"))]),
    };
    row(task, method, block, Ending::Done(outcome, peaks(rss_mb)))
}

pub(crate) fn row(task: Task, method: Method, block: usize, ending: Ending) -> Row {
    Row::new(Slot { task, method, ablation: None, block: Some(block) }, Ended { ending, stderr: String::new() })
}

pub(crate) fn out_of_memory() -> Ending {
    Ending::Failed(Failure {
        message: "out of memory: activations would take 99 bytes".to_owned(),
        bad_input: false,
        out_of_memory_bytes: Some(99),
        predicted: true,
    })
}

/// The file of a run that made the observations `rows`.
pub(crate) fn file_of(config: RunConfig, rows: impl IntoIterator<Item = Row>) -> ResultFile {
    let mut results = ResultFile::new(config, environment());
    for row in rows {
        results.push(row);
    }
    results
}

/// Five blocks under a drift that hits both methods alike, in which lazy is about twice as fast and takes 4/5 of the
/// memory.
pub(crate) fn drifting(task: Task) -> Vec<Row> {
    let drift = [1.0, 3.0, 0.5, 2.0, 1.5];
    let noise = [1.0, 1.02, 0.99, 1.01, 0.98];
    let blocks = drift.iter().zip(noise).enumerate();
    blocks
        .flat_map(|(block, (drift, noise))| {
            [
                ok_row(task, Method::Eager, block, 4.0 * drift * noise, 1000.0 + block as f64),
                ok_row(task, Method::Lazy, block, 2.0 * drift, 800.0),
            ]
        })
        .collect()
}

#[test]
fn ratios_are_taken_within_blocks_so_that_drift_cancels() {
    let summary = TaskSummary::of(Task::Train, &drifting(Task::Train));
    let speedup = summary.comparison.speedup_lazy_vs_eager.unwrap();
    assert!((speedup - 2.0).abs() < 0.02, "{speedup}");
    let interval = summary.comparison.intervals.speedup_lazy_vs_eager.unwrap();
    assert!(1.95 < interval.low && interval.low < 2.0 && 2.0 < interval.high && interval.high < 2.05, "{interval:?}");
    assert_eq!(interval.n, 5);
    let memory = summary.comparison.cpu_mem_reduction_x.unwrap();
    assert!((memory - 1.2525).abs() < 1e-3, "{memory}");
    assert_eq!(summary.comparison.gpu_alloc_reduction_x, None);
    assert_eq!(summary.comparison.metric_delta, Some(0.0));
    assert_eq!(summary.digests_agree, Some(true));
    assert_eq!(TaskSummary::of(Task::Sweep, &drifting(Task::Train)).comparison.speedup_lazy_vs_eager, None);
}

#[test]
fn a_block_in_which_one_method_failed_is_left_out_of_the_ratios() {
    let mut rows = drifting(Task::Train);
    rows[3] = row(Task::Train, Method::Lazy, 1, out_of_memory());
    let summary = TaskSummary::of(Task::Train, &rows);
    assert_eq!(summary.comparison.intervals.speedup_lazy_vs_eager.unwrap().n, 4);
    assert_eq!(summary.n_failed, 1);
    assert_eq!(summary.digests_agree, Some(true));
}

#[test]
fn the_disk_method_beside_lazy_has_the_same_names_one_level_down() {
    let mut rows = drifting(Task::Train);
    rows.extend((0..5).map(|block| ok_row(Task::Train, Method::LazyDisk, block, 1.0, 500.0)));
    let summary = serde_json::to_value(TaskSummary::of(Task::Train, &rows)).unwrap();
    assert_eq!(summary["lazy_method"], "lazy");
    for name in ["speedup_lazy_vs_eager", "cpu_mem_reduction_x"] {
        assert!(summary["lazy_disk"][name].as_f64().unwrap() > summary[name].as_f64().unwrap(), "{summary}");
        assert!(summary["lazy_disk"]["intervals"][name]["low"].is_f64(), "{summary}");
    }
    let alone: Vec<Row> = rows.into_iter().filter(|row| row.method != Method::Lazy).collect();
    let summary = serde_json::to_value(TaskSummary::of(Task::Train, &alone)).unwrap();
    assert_eq!(summary["lazy_method"], "lazy-disk");
    assert!(summary["speedup_lazy_vs_eager"].is_f64());
    assert_eq!(summary.get("lazy_disk"), None);
}

#[test]
fn one_digest_that_differs_is_seen_whichever_row_it_is_in() {
    for index in 0..10 {
        let mut rows = drifting(Task::Train);
        rows[index].extra.insert("feature_digest".to_owned(), json!("d2"));
        assert_eq!(TaskSummary::of(Task::Train, &rows).digests_agree, Some(false), "row {index}");
    }
}

#[test]
fn each_ending_has_its_status_and_a_reason() {
    let endings = [
        (out_of_memory(), Status::Oom, "out of memory: activations would take 99 bytes"),
        (
            Ending::TimedOut(std::time::Duration::from_millis(1500)),
            Status::Timeout,
            "took longer than 1.5 s (--timeout)",
        ),
        (
            Ending::Killed(9),
            Status::Killed,
            "ended by signal 9 (SIGKILL), as the kernel does when memory runs out; nothing on its standard error",
        ),
        (
            Ending::Silent(Some(3)),
            Status::Error,
            "ended without a result, exit status 3; nothing on its standard error",
        ),
        (Ending::Garbled("hello".to_owned()), Status::Error, "said something that is no message: hello"),
    ];
    for (ending, status, reason) in endings {
        let row = row(Task::Sweep, Method::Eager, 0, ending);
        assert_eq!(row.status, status);
        assert_eq!(row.reason.as_deref(), Some(reason));
        assert_eq!(row.metric_name, "mean_auroc");
    }
}

#[test]
fn a_result_that_is_no_number_is_a_failure_and_null_in_the_file() {
    let row = ok_row(Task::Train, Method::Eager, 0, f64::NAN, f64::INFINITY);
    assert_eq!(row.status, Status::Error);
    let value = serde_json::to_value(&row).unwrap();
    for name in ["elapsed_s", "extract_s", "cpu_peak_rss_mb", "cpu_peak_heap_mb"] {
        assert_eq!(value[name], Value::Null, "{name}");
    }
    assert!(value["reason"].as_str().unwrap().contains("not a finite number"));
}

#[test]
fn the_file_has_the_names_that_readers_know_and_comes_back_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("results.json");
    let mut results = ResultFile::new(config(), environment());
    for row in drifting(Task::Train) {
        results.push(row);
        results.write(&path).unwrap();
    }
    let text = fs::read_to_string(&path).unwrap();
    let value: Value = serde_json::from_str(&text).unwrap();
    let names: Vec<&String> = value.as_object().unwrap().keys().collect();
    assert_eq!(names, ["schema", "config", "environment", "rows", "summary"]);
    let row: Vec<&String> = value["rows"][0].as_object().unwrap().keys().collect();
    assert_eq!(
        row,
        [
            "task",
            "method",
            "repetition",
            "status",
            "reason",
            "elapsed_s",
            "extract_s",
            "train_eval_s",
            "cpu_peak_rss_mb",
            "cpu_peak_heap_mb",
            "gpu_peak_alloc_mb",
            "gpu_peak_reserved_mb",
            "metric_name",
            "metric_value",
            "extra"
        ]
    );
    for name in ["speedup_lazy_vs_eager", "cpu_mem_reduction_x", "gpu_alloc_reduction_x", "gpu_reserved_reduction_x"] {
        assert!(value["summary"]["train"].get(name).is_some(), "{name}");
        assert!(value["summary"]["train"]["intervals"].get(name).is_some(), "{name}");
    }
    assert!(value["summary"]["train"].get("metric_delta").is_some());
    let back: ResultFile = serde_json::from_str(&text).unwrap();
    assert_eq!(back.rows, results.rows);
    assert_eq!(back.summary, results.summary);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "a temporary file was left behind");
}

#[test]
fn a_file_that_cannot_be_written_leaves_the_old_one_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    // A folder of the result file's name: the rename is refused after the temporary file was written.
    let path = folder.path().join("results.json");
    fs::create_dir(&path).unwrap();
    let error = ResultFile::new(config(), environment()).write(&path).unwrap_err().to_string();
    assert!(error.contains("results.json"), "{error}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn outputs_that_cannot_be_written_are_refused_beforehand() {
    let folder = tempfile::tempdir().unwrap();
    check_output(&folder.path().join("results.json")).unwrap();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    for bad in [folder.path().to_path_buf(), folder.path().join("absent/results.json")] {
        let error = check_output(&bad).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("--output"), "{error}");
    }
}
