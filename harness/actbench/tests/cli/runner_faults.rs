//! A failed case is a row and does not end the run: real workers that hang, crash, and write invalid output.

use crate::runner_support::{Sandbox, rows, stderr};
use serde_json::Value;

/// Runs the task train with eager and lazy, injects `fault` into lazy, and returns the rows of lazy and the standard error.
///
/// For every fault both blocks run to their end, eager completes, the exit status is 1, and no file is left behind.
#[track_caller]
fn run_with(fault: &str) -> (Vec<Value>, String) {
    let sandbox = Sandbox::new();
    let injected = format!("train/lazy={fault}");
    let output = sandbox.run(&["--tasks", "train", "--repetitions", "2", "--inject-fault", &injected]);
    let error_output = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{error_output}");
    let results = sandbox.results();
    let eager = rows(&results, "train", "eager");
    assert_eq!(eager.len(), 2);
    for row in eager {
        assert_eq!(row["status"], "ok", "{row}");
        assert!(row["elapsed_s"].as_f64().unwrap() > 0.0, "{row}");
    }
    assert_eq!(sandbox.leftovers(), [""; 0]);
    let lazy: Vec<Value> = rows(&results, "train", "lazy").into_iter().cloned().collect();
    assert_eq!(lazy.len(), 2);
    (lazy, error_output)
}

#[track_caller]
fn assert_failed(rows: &[Value], status: &str, reason: &[&str]) {
    for row in rows {
        assert_eq!(row["status"], status, "{row}");
        let given = row["reason"].as_str().unwrap();
        for part in reason {
            assert!(given.contains(part), "`{part}` is not in `{given}`");
        }
        for figure in ["elapsed_s", "extract_s", "train_eval_s", "cpu_peak_rss_mb", "cpu_peak_heap_mb", "metric_value"]
        {
            assert_eq!(row[figure], Value::Null, "{figure} of {row}");
        }
    }
}

#[test]
fn killed_worker_becomes_killed_row_that_names_memory() {
    let (rows, error_output) = run_with("kill");
    assert_failed(&rows, "killed", &["SIGKILL", "memory"]);
    assert!(error_output.contains("train lazy"), "{error_output}");
}

#[test]
fn impossible_allocation_becomes_oom_row_with_bytes() {
    let (rows, _) = run_with("allocate");
    assert_failed(&rows, "oom", &["9223372036854775807 bytes"]);
    for row in &rows {
        assert_eq!(row["extra"]["oom_bytes"].as_u64(), Some(isize::MAX as u64));
    }
}

#[test]
fn error_of_case_becomes_error_row_with_message() {
    assert_failed(&run_with("error").0, "error", &["injected error"]);
}

#[test]
fn exit_without_result_becomes_error_row_with_stderr() {
    assert_failed(&run_with("exit").0, "error", &["exit status 3", "exiting without a result"]);
}

#[test]
fn abort_becomes_killed_row_with_stderr() {
    assert_failed(&run_with("abort").0, "killed", &["SIGABRT", "aborting"]);
}

#[test]
fn invalid_protocol_output_becomes_error_row() {
    assert_failed(&run_with("garbage").0, "error", &["this is not a message"]);
}

#[test]
fn endless_line_stops_worker_with_error_row() {
    assert_failed(&run_with("flood").0, "error", &["invalid protocol output", "xxxx"]);
}

#[test]
fn worker_that_does_not_exit_becomes_error_row() {
    assert_failed(&run_with("linger").0, "error", &["did not exit"]);
}

#[test]
fn hanging_worker_becomes_timeout_row() {
    let sandbox = Sandbox::new();
    let faults = ["--inject-fault", "train/lazy=sleep", "--timeout", "0.5s"];
    let output = sandbox.run(&[&["--tasks", "train", "--methods", "lazy", "--repetitions", "2"], &faults[..]].concat());
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let results = sandbox.results();
    let rows: Vec<Value> = rows(&results, "train", "lazy").into_iter().cloned().collect();
    assert_eq!(rows.len(), 2);
    assert_failed(&rows, "timeout", &["0.5 s", "--timeout"]);
    assert_eq!(sandbox.leftovers(), [""; 0]);
}

#[test]
fn differing_features_fail_run_and_name_rows() {
    let (rows, error_output) = run_with("disagree");
    for row in &rows {
        assert_eq!(row["status"], "ok", "{row}");
    }
    assert!(error_output.contains("error: train: "), "{error_output}");
    assert!(
        error_output.contains("lazy, repetition 1") && error_output.contains("eager, repetition 2"),
        "{error_output}"
    );
}

#[test]
fn differing_features_affect_summary_of_their_task_only() {
    let sandbox = Sandbox::new();
    let output = sandbox.run(&["--repetitions", "1", "--inject-fault", "sweep/lazy=disagree"]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let summary = &sandbox.results()["summary"];
    assert_eq!(summary["train"]["digests_agree"], true);
    assert_eq!(summary["sweep"]["digests_agree"], false);
}

#[test]
fn summary_uses_blocks_in_which_both_methods_completed() {
    let sandbox = Sandbox::new();
    let output = sandbox.run(&["--tasks", "train", "--repetitions", "2", "--inject-fault", "train/lazy=kill"]);
    assert_eq!(output.status.code(), Some(1));
    let summary = &sandbox.results()["summary"]["train"];
    for name in ["speedup_lazy_vs_eager", "cpu_mem_reduction_x", "metric_delta"] {
        assert_eq!(summary[name], Value::Null, "{name}");
    }
    assert_eq!(summary["n_failed"], 2);
}

#[test]
fn bad_input_found_by_worker_stops_run() {
    for warmup in ["0", "1"] {
        let sandbox = Sandbox::new();
        let faults =
            ["--warmup", warmup, "--methods", "lazy", "--tasks", "train", "--inject-fault", "train/lazy=input"];
        let mut arguments = vec!["run", "--quiet", "--samples", "20", "--layer", "1"];
        arguments.extend(faults);
        let output = sandbox.output(&arguments);
        assert_eq!(output.status.code(), Some(2));
        assert_eq!(stderr(&output), "error: injected input: bad input\n");
        assert_eq!(sandbox.n_rows(), usize::from(warmup == "0"));
        assert_eq!(sandbox.leftovers(), [""; 0]);
    }
}
