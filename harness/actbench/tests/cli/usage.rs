//! Bad usage and bad input are one clear line on standard error and exit status 2, before any case is run.

use std::fs;

use crate::runner_support::{Sandbox, stderr, stdout};

/// Runs `actbench` with `arguments` and checks that it prints one line of error that contains all of `words`.
#[track_caller]
fn assert_refused(sandbox: &Sandbox, arguments: &[&str], words: &[&str]) {
    let output = sandbox.output(arguments);
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {message}");
    assert_eq!(message.lines().count(), 1, "{arguments:?}: {message}");
    assert!(message.starts_with("error: "), "{arguments:?}: {message}");
    for word in words {
        assert!(message.contains(word), "{arguments:?}: `{word}` is not in: {message}");
    }
    assert_eq!(stdout(&output), "", "{arguments:?}");
    assert!(!sandbox.path("results.json").exists(), "{arguments:?}");
    assert_eq!(sandbox.leftovers(), [""; 0], "{arguments:?}");
}

#[test]
fn invalid_value_names_flag_and_valid_values() {
    let sandbox = Sandbox::new();
    let cases: [(&[&str], &[&str]); 27] = [
        (&["--tasks", "trian"], &["--tasks", "train", "sweep"]),
        (&["--tasks", ""], &["--tasks"]),
        (&["--methods", "eager,greedy"], &["greedy", "lazy-disk"]),
        (&["--samples", "0"], &["--samples", "at least 1"]),
        (&["--samples", "-5"], &["--samples"]),
        (&["--samples", "many"], &["--samples", "many"]),
        (&["--train-frac", "0"], &["--train-frac", "between 0 and 1"]),
        (&["--train-frac", "1"], &["--train-frac"]),
        (&["--train-frac", "nan"], &["--train-frac"]),
        (&["--batch-size", "0"], &["--batch-size", "at least 1"]),
        (&["--pool", "median"], &["median", "mean, max, last"]),
        (&["--sweep-layers", "0"], &["--sweep-layers", "at least 1"]),
        (&["--sweep-cs", "1.0,nan"], &["--sweep-cs", "positive"]),
        (&["--sweep-cs", "-1"], &["--sweep-cs", "positive"]),
        (&["--sweep-cs", "inf"], &["--sweep-cs"]),
        (&["--train-c", "0"], &["--train-c", "positive"]),
        (&["--train-max-iter", "0"], &["--train-max-iter"]),
        (&["--sweep-max-iter", "0"], &["--sweep-max-iter"]),
        (&["--dtype", "int8"], &["int8", "fp32", "bf16"]),
        (&["--device-map", "tpu"], &["tpu", "cuda:N"]),
        (&["--threads", "0"], &["--threads", "at least 1"]),
        (&["--repetitions", "0"], &["--repetitions", "at least 1"]),
        (&["--no-opt", "everything"], &["everything", "prefix"]),
        (&["--timeout", "10 parsecs"], &["--timeout"]),
        (&["--layer", "99"], &["99", "layers"]),
        (&["--sweep-layers", "99"], &["98", "8 layers"]),
        (&["--methods", "lazy,lazy-disk", "--lazy-cache-disk"], &["--lazy-cache-disk", "remove one"]),
    ];
    for (arguments, words) in cases {
        assert_refused(&sandbox, &[&["run", "--quiet"], arguments].concat(), words);
    }
}

#[test]
fn unknown_flag_or_command_suggests_nearest() {
    let sandbox = Sandbox::new();
    assert_refused(&sandbox, &["run", "--sampels", "3"], &["--sampels", "--samples"]);
    assert_refused(&sandbox, &["rum"], &["rum", "run"]);
    for (typed, command) in [("rnu", "run"), ("paln", "plan"), ("gaet", "gate")] {
        assert_refused(&sandbox, &[typed], &[typed, &format!("a similar subcommand exists: '{command}'")]);
    }
    assert_refused(&sandbox, &["run", "extra"], &["extra"]);
    assert_refused(&sandbox, &["explain", "--json"], &["--json"]);
    assert_refused(&sandbox, &["matrix"], &["FILE.toml", "--preset small"]);
    assert_refused(&sandbox, &["run", "--samples"], &["--samples"]);
}

#[test]
fn missing_model_or_dataset_is_named() {
    let sandbox = Sandbox::new();
    assert_refused(&sandbox, &["run", "--model", "./absent"], &["absent"]);
    assert_refused(&sandbox, &["run", "--model", "synthetic:absent"], &["absent"]);
    assert_refused(&sandbox, &["run", "--dataset", "./absent.jsonl"], &["absent.jsonl"]);
    assert_refused(&sandbox, &["run", "--dataset", "absent"], &["absent"]);
}

/// Dialogues whose labels are all 1.
fn one_class() -> String {
    let user = "{\"role\":\"user\",\"content\":\"Why?\"}";
    (0..20)
        .map(|row| format!("{{\"role\":\"assistant\",\"content\":\"Answer {row}.\"}}"))
        .map(|answer| format!("{{\"messages\":[{user},{answer}],\"label\":1}}\n"))
        .collect()
}

#[test]
fn data_of_one_class_is_refused() {
    let sandbox = Sandbox::new();
    fs::write(sandbox.path("temporary/rows.jsonl"), one_class()).unwrap();
    let output = sandbox.output(&["run", "--quiet", "--dataset", "temporary/rows.jsonl", "--samples", "10"]);
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert_eq!(message.lines().count(), 1, "{message}");
    assert!(message.contains("rows.jsonl") && message.contains("class"), "{message}");
}

#[test]
fn unwritable_output_is_refused_before_work() {
    let sandbox = Sandbox::new();
    assert_refused(&sandbox, &["run", "--output", "absent/results.json"], &["absent", "--output"]);
    assert_refused(&sandbox, &["run", "--output", "temporary"], &["temporary", "directory"]);
}

#[test]
fn dash_is_refused_as_an_output() {
    let sandbox = Sandbox::new();
    for arguments in [
        &["run", "--output", "-"][..],
        &["features", "--out", "-"],
        &["cache", "--out", "-"],
        &["matrix", "--preset", "small", "--out", "-"],
        &["report", "results.json", "--out", "-"],
    ] {
        assert_refused(&sandbox, arguments, &[" -: write /dev/stdout for standard output"]);
    }
    assert!(!sandbox.path("-").exists());
}

#[test]
#[cfg(unix)]
fn arguments_that_are_not_utf8_are_refused() {
    use std::os::unix::ffi::OsStrExt;
    let sandbox = Sandbox::new();
    let mut command = sandbox.command(&["run", "--model"]);
    let output = command.arg(std::ffi::OsStr::from_bytes(b"m\xff")).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    let output = sandbox.command(&["env"]).arg(std::ffi::OsStr::from_bytes(b"m\xff")).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
}

#[test]
fn worker_without_request_sends_failed_message() {
    let sandbox = Sandbox::new();
    let output = sandbox.output(&["worker"]);
    assert_eq!(output.status.code(), Some(2));
    let message: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(message["event"], "failed");
    assert_eq!(message["bad_input"], true);
}

#[test]
fn help_begins_with_examples_on_stdout() {
    let sandbox = Sandbox::new();
    for arguments in [&["--help"][..], &["run", "--help"]] {
        let output = sandbox.output(arguments);
        assert_eq!(output.status.code(), Some(0));
        assert!(stdout(&output).starts_with("Examples:\n"), "{}", stdout(&output));
        assert_eq!(stderr(&output), "");
    }
}
