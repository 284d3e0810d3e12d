//! A case that fails is a row and never the end of the run: real children that sleep, die, lie and fall silent.

use crate::runner_support::{Sandbox, rows, stderr};
use serde_json::Value;

/// Runs the task train with eager and lazy, where lazy acts out `fault`, and gives the rows of lazy.
///
/// Whatever the fault: both blocks are run to their end, eager comes through, the exit status is 1, and nothing is
/// left behind.
#[track_caller]
fn run_with(fault: &str) -> (Vec<Value>, String) {
    let sandbox = Sandbox::new();
    let injected = format!("train/lazy={fault}");
    let output = sandbox.run(&["--tasks", "train", "--repetitions", "2", "--inject-fault", &injected]);
    let told = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{told}");
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
    (lazy, told)
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
fn a_child_killed_from_outside_is_a_killed_row_that_names_memory_as_the_likely_cause() {
    let (rows, told) = run_with("kill");
    assert_failed(&rows, "killed", &["SIGKILL", "memory"]);
    assert!(told.contains("train lazy"), "{told}");
}

#[test]
fn an_allocation_that_cannot_be_is_an_oom_row_with_its_bytes() {
    let (rows, _) = run_with("allocate");
    assert_failed(&rows, "oom", &["9223372036854775807 bytes"]);
    for row in &rows {
        assert_eq!(row["extra"]["oom_bytes"].as_u64(), Some(isize::MAX as u64));
    }
}

#[test]
fn an_error_of_the_work_is_an_error_row_with_its_message() {
    assert_failed(&run_with("error").0, "error", &["acted out"]);
}

#[test]
fn a_child_that_leaves_without_a_word_is_an_error_row_with_its_last_words_on_stderr() {
    assert_failed(&run_with("exit").0, "error", &["exit status 3", "leaving without a result"]);
}

#[test]
fn a_child_that_aborts_is_a_killed_row_with_its_last_words_on_stderr() {
    assert_failed(&run_with("abort").0, "killed", &["SIGABRT", "leaving by abort"]);
}

#[test]
fn a_child_that_says_what_is_no_message_is_an_error_row_that_quotes_it() {
    assert_failed(&run_with("garbage").0, "error", &["this is no message"]);
}

#[test]
fn a_child_that_never_ends_its_line_is_stopped_before_it_fills_the_memory() {
    assert_failed(&run_with("flood").0, "error", &["no message", "xxxx"]);
}

#[test]
fn a_child_that_reports_and_does_not_leave_is_an_error_row() {
    assert_failed(&run_with("linger").0, "error", &["did not end"]);
}

#[test]
fn a_child_that_never_ends_is_a_timeout_row() {
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
fn features_that_differ_between_methods_fail_the_run_and_name_the_rows() {
    let (rows, told) = run_with("disagree");
    for row in &rows {
        assert_eq!(row["status"], "ok", "{row}");
    }
    assert!(told.contains("error: train: "), "{told}");
    assert!(told.contains("lazy, repetition 1") && told.contains("eager, repetition 2"), "{told}");
}

#[test]
fn a_disagreement_is_marked_in_the_summary_of_its_task_alone() {
    let sandbox = Sandbox::new();
    let output = sandbox.run(&["--repetitions", "1", "--inject-fault", "sweep/lazy=disagree"]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let summary = &sandbox.results()["summary"];
    assert_eq!(summary["train"]["digests_agree"], true);
    assert_eq!(summary["sweep"]["digests_agree"], false);
}

#[test]
fn the_summary_rests_on_blocks_in_which_both_methods_came_through() {
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
fn input_that_a_child_finds_bad_ends_the_run_in_one_line() {
    for warmup in ["0", "1"] {
        let sandbox = Sandbox::new();
        let faults =
            ["--warmup", warmup, "--methods", "lazy", "--tasks", "train", "--inject-fault", "train/lazy=input"];
        let mut arguments = vec!["run", "--quiet", "--samples", "20", "--layer", "1"];
        arguments.extend(faults);
        let output = sandbox.output(&arguments);
        assert_eq!(output.status.code(), Some(2));
        assert_eq!(stderr(&output), "error: acted out: bad input\n");
        assert_eq!(sandbox.n_rows(), usize::from(warmup == "0"));
        assert_eq!(sandbox.leftovers(), [""; 0]);
    }
}
