//! Commands replace files of their own, and refuse to replace files of other content before any work.

use std::fs;

use crate::runner_support::{SMALL, Sandbox, stderr, stdout};

const NOTES: &str = "notes of mine\n";

/// The arguments of a command whose output is the file `notes`, with the flag that names it.
fn commands() -> Vec<(Vec<&'static str>, &'static str)> {
    vec![
        (vec!["run", "--quiet", "--output", "notes"], "--output"),
        (vec!["features", "--out", "notes"], "--out"),
        (vec!["cache", "--out", "notes"], "safetensors"),
        (vec!["profile", "--trace", "notes"], "--trace"),
        (vec!["check", "--device-map", "cpu", "--json", "notes"], "--json"),
        (vec!["selftest", "--output", "notes"], "--output"),
        (vec!["gate", "--base-bin", "a", "--head-bin", "b", "--output", "notes"], "--output"),
        (vec!["gate", "--base-bin", "a", "--head-bin", "b", "--export", "junit=notes"], "--export"),
    ]
}

#[test]
fn file_of_other_content_is_never_replaced() {
    let sandbox = Sandbox::new();
    fs::write(sandbox.path("notes"), NOTES).unwrap();
    for (arguments, flag) in commands() {
        let output = sandbox.output(&arguments);
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {message}");
        let error = message.lines().last().unwrap();
        assert!(error.starts_with("error: notes: ") && error.contains(flag), "{arguments:?}: {message}");
        assert!(error.contains("another path"), "{arguments:?}: {message}");
        assert_eq!(fs::read_to_string(sandbox.path("notes")).unwrap(), NOTES, "{arguments:?}");
    }
    assert_eq!(sandbox.leftovers(), ["notes"]);
}

#[test]
fn journal_of_a_gate_replaces_no_other_file() {
    let sandbox = Sandbox::new();
    fs::write(sandbox.path("gate.journal.jsonl"), NOTES).unwrap();
    let output = sandbox.output(&["gate", "--base-bin", "a", "--head-bin", "b"]);
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert!(message.contains("gate.journal.jsonl: exists and is not a journal of a gate"), "{message}");
    assert_eq!(fs::read_to_string(sandbox.path("gate.journal.jsonl")).unwrap(), NOTES);
}

#[test]
fn own_files_are_replaced_and_named() {
    let sandbox = Sandbox::new();
    let run = [&["run", "--tasks", "train", "--methods", "lazy", "--repetitions", "1"], &SMALL[..]].concat();
    let features = ["features", "--samples", "20", "--layer", "1", "--threads", "1", "--out", "f"];
    for _ in 0..2 {
        let output = sandbox.output(&run);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        assert!(stderr(&output).ends_with("wrote results.json\n"), "{}", stderr(&output));
        let output = sandbox.output(&features);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    }
    let output = sandbox.output(&[&run[..], &["--quiet"]].concat());
    assert_eq!(stderr(&output), "", "quiet");
    // The file of one command is not one of another.
    let output = sandbox.output(&[&run[..], &["--output", "f"]].concat());
    assert_eq!(output.status.code(), Some(2), "{}", stdout(&output));
    assert!(stderr(&output).contains("is not a result file of actbench"), "{}", stderr(&output));
}

#[test]
fn report_replaces_a_report_and_no_other_file() {
    let sandbox = Sandbox::new();
    let run = [&["run", "--methods", "eager,lazy", "--repetitions", "1", "--quiet"], &SMALL[..]].concat();
    assert_eq!(sandbox.output(&run).status.code(), Some(0));
    let report = ["report", "results.json", "--out", "report"];
    for _ in 0..2 {
        let output = sandbox.output(&report);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    }
    let charts = fs::read_dir(sandbox.path("report/charts")).unwrap();
    let chart = charts.map(|entry| entry.unwrap().file_name().into_string().unwrap()).next().unwrap();
    let chart = format!("charts/{chart}");
    for name in ["REPORT.md", "report.html", "summary.csv", "crossover.csv", "observations.csv", chart.as_str()] {
        let path = sandbox.path("report").join(name);
        let own = fs::read(&path).unwrap();
        fs::write(&path, NOTES).unwrap();
        let page = fs::read(sandbox.path("report/report.html")).unwrap();
        let output = sandbox.output(&report);
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{name}: {message}");
        assert!(message.contains(name) && message.contains("(--out); use another path"), "{name}: {message}");
        assert_eq!(fs::read_to_string(&path).unwrap(), NOTES, "{name}");
        assert!(
            fs::read(sandbox.path("report/report.html")).unwrap() == page,
            "{name}: nothing else is replaced either"
        );
        fs::write(&path, own).unwrap();
    }
}
