//! Rows, summaries and the file, on synthetic observations.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::summary::TaskSummary;
use super::*;
use crate::case::Method;
use crate::runner::exit::ExitReason;
use crate::test_support::{drifting, environment, ok_row, out_of_memory, row, small_config};

#[test]
fn drift_cancels_in_ratios_within_blocks() {
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
fn block_with_failed_method_is_excluded_from_ratios() {
    let mut rows = drifting(Task::Train);
    rows[3] = row(Task::Train, Method::Lazy, 1, out_of_memory());
    let summary = TaskSummary::of(Task::Train, &rows);
    assert_eq!(summary.comparison.intervals.speedup_lazy_vs_eager.unwrap().n, 4);
    assert_eq!(summary.n_failed, 1);
    assert_eq!(summary.digests_agree, Some(true));
}

#[test]
fn lazy_disk_next_to_lazy_has_nested_summary() {
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
fn differing_digest_in_any_row_is_detected() {
    for index in 0..10 {
        let mut rows = drifting(Task::Train);
        rows[index].metrics.feature_digest = Some("d2".to_owned());
        assert_eq!(TaskSummary::of(Task::Train, &rows).digests_agree, Some(false), "row {index}");
    }
}

#[test]
fn each_exit_reason_has_status_and_message() {
    let exits = [
        (out_of_memory(), Status::Oom, "out of memory: activations would take 99 bytes"),
        (
            ExitReason::TimedOut(std::time::Duration::from_millis(1500)),
            Status::Timeout,
            "exceeded the time limit of 1.5 s (--timeout)",
        ),
        (
            ExitReason::Killed(9),
            Status::Killed,
            "terminated by signal 9 (SIGKILL); the kernel does this when memory runs out; its standard error is empty",
        ),
        (
            ExitReason::NoResult(Some(3)),
            Status::Error,
            "exited without a result, exit status 3; its standard error is empty",
        ),
        (ExitReason::InvalidOutput("hello".to_owned()), Status::Error, "wrote invalid protocol output: hello"),
    ];
    for (reason, status, message) in exits {
        let row = row(Task::Sweep, Method::Eager, 0, reason);
        assert_eq!(row.status, status);
        assert_eq!(row.reason.as_deref(), Some(message));
        assert_eq!(row.metric_name, "mean_auroc");
    }
}

#[test]
fn non_finite_result_is_error_row_with_nulls() {
    let row = ok_row(Task::Train, Method::Eager, 0, f64::NAN, f64::INFINITY);
    assert_eq!(row.status, Status::Error);
    let value = serde_json::to_value(&row).unwrap();
    for name in ["elapsed_s", "extract_s", "cpu_peak_rss_mb", "cpu_peak_heap_mb"] {
        assert_eq!(value[name], Value::Null, "{name}");
    }
    assert!(value["reason"].as_str().unwrap().contains("not a finite number"));
}

#[test]
fn result_file_keeps_keys_and_round_trips() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("results.json");
    let mut results = ResultFile::new(small_config(), environment());
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
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "a temporary file was left behind");
}

#[test]
fn failed_write_leaves_no_temporary_file() {
    let directory = tempfile::tempdir().unwrap();
    // A directory with the name of the result file: the rename fails after the temporary file was written.
    let path = directory.path().join("results.json");
    fs::create_dir(&path).unwrap();
    let error = ResultFile::new(small_config(), environment()).write(&path).unwrap_err().to_string();
    assert!(error.contains("results.json"), "{error}");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn unwritable_output_is_rejected_in_advance() {
    let directory = tempfile::tempdir().unwrap();
    check_output(&directory.path().join("results.json")).unwrap();
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    for bad in [directory.path().to_path_buf(), directory.path().join("absent/results.json")] {
        let error = check_output(&bad).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("--output"), "{error}");
    }
}

/// Result files of version 0.1.0 at commit 765933c, written by `actbench run --ablate`, once with injected failures.
#[test]
fn stored_result_files_are_rewritten_byte_for_byte() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/results");
    let names: Vec<_> = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(names.len() >= 2, "{names:?}");
    let temporary = tempfile::tempdir().unwrap();
    for path in names {
        let text = fs::read_to_string(&path).unwrap();
        let results: ResultFile = serde_json::from_str(&text).unwrap();
        assert!(results.rows.iter().all(|row| row.metrics.unknown.is_empty()), "{}", path.display());
        let rewritten = temporary.path().join("results.json");
        results.write(&rewritten).unwrap();
        assert!(fs::read_to_string(&rewritten).unwrap() == text, "{} changed", path.display());
        // The summary is computed from the rows again when a row is added: the stored one must be reproducible.
        for (task, stored) in &results.summary {
            let task = if task == "train" { Task::Train } else { Task::Sweep };
            assert_eq!(&serde_json::to_value(results.task_summary(task)).unwrap(), stored, "{}", path.display());
        }
    }
}
