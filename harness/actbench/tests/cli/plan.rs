//! `actbench plan --calibrate`: rates from result files instead of measured ones.

use std::fs;

use crate::runner_support::{Sandbox, stderr, stdout};
use serde_json::Value;

/// Predicted seconds of extraction for the task train by `method`.
fn predicted(sandbox: &Sandbox, results: &str, method: &str) -> f64 {
    let output = sandbox.output(&["plan", "--samples", "5000", "--layers", "2", "--calibrate", results, "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let plan: Value = serde_json::from_str(&stdout(&output)).unwrap();
    let predictions = plan["predictions"].as_array().unwrap();
    let wanted = |case: &&Value| case["task"] == "train" && case["method"] == method;
    predictions.iter().find(wanted).unwrap()["extract_s"].as_f64().unwrap()
}

#[test]
fn rates_come_from_named_results() {
    let sandbox = Sandbox::new();
    let run =
        ["run", "--samples", "40", "--tasks", "train", "--methods", "eager,lazy", "--repetitions", "1", "--warmup"];
    let output = sandbox.output(&[&run[..], &["0", "--output", "here.json"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    // The same results with a hundred times the seconds, so that rates still measured here do not matter.
    let mut results: Value = serde_json::from_slice(&fs::read(sandbox.path("here.json")).unwrap()).unwrap();
    for row in results["rows"].as_array_mut().unwrap() {
        row["extract_s"] = (100.0 * row["extract_s"].as_f64().unwrap()).into();
    }
    fs::write(sandbox.path("there.json"), results.to_string()).unwrap();
    for method in ["eager", "lazy"] {
        let ratio = predicted(&sandbox, "there.json", method) / predicted(&sandbox, "here.json", method);
        assert!((30.0..=101.0).contains(&ratio), "{method}: {ratio}");
    }
}

#[test]
fn results_of_another_model_are_refused() {
    let sandbox = Sandbox::new();
    let run =
        ["run", "--samples", "40", "--tasks", "train", "--methods", "lazy", "--repetitions", "1", "--warmup", "0"];
    let output = sandbox.output(&run);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    for other in [["--dtype", "fp32"], ["--model", "synthetic:tiny"]] {
        let plan = ["plan", "--samples", "100", "--layers", "2", "--calibrate", "results.json"];
        let output = sandbox.output(&[&plan[..], &other[..]].concat());
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        assert!(stderr(&output).contains("--calibrate: no case of the model"), "{}", stderr(&output));
        assert!(stderr(&output).contains("which are of embedded in bf16"), "{}", stderr(&output));
        // Nothing was measured before.
        assert!(!stderr(&output).contains("measuring"), "{}", stderr(&output));
    }
    fs::write(sandbox.path("two.toml"), "[[grid]]\nmodels = [\"embedded\", \"synthetic:tiny\"]\nsamples = [40]\n")
        .unwrap();
    let output = sandbox.output(&["matrix", "two.toml", "--dry-run", "--calibrate", "results.json"]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("no case of the model synthetic:tiny"), "{}", stderr(&output));
    assert!(!stderr(&output).contains("planning cell"), "{}", stderr(&output));
}

#[test]
fn predictions_of_any_number_of_samples_are_made() {
    let sandbox = Sandbox::new();
    fs::write(sandbox.path("huge.toml"), "[[grid]]\nmodels = [\"embedded\"]\nsamples = [4294967296]\n").unwrap();
    for command in [
        &["plan", "--samples", "1000000000"][..],
        &["explain", "--samples", "1000000000"],
        &["matrix", "huge.toml", "--dry-run"],
    ] {
        let output = sandbox.output(command);
        assert_eq!(output.status.code(), Some(0), "{command:?}: {}", stderr(&output));
        let text = stdout(&output) + &stderr(&output);
        assert!(text.contains("samples were counted, and their counts scaled up"), "{command:?}: {text}");
    }
    let output = sandbox.output(&["run", "--samples", "10000000"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("use fewer"), "{}", stderr(&output));
}

/// The measured rows and the predictions of a run of the embedded model with `settings`.
fn measured_and_predicted(sandbox: &Sandbox, settings: &[&str]) -> (Value, Value) {
    let run = ["run", "--methods", "eager,lazy,lazy-disk", "--repetitions", "1", "--warmup", "0"];
    let output = sandbox.output(&[&run[..], settings].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let mut results: Value = serde_json::from_slice(&fs::read(sandbox.path("results.json")).unwrap()).unwrap();
    let output = sandbox.output(&[&["plan", "--json"][..], settings].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let mut plan: Value = serde_json::from_str(&stdout(&output)).unwrap();
    (results["rows"].take(), plan["predictions"].take())
}

/// The value `key` of the case of `task` and `method`.
fn value_of(cases: &Value, task: &str, method: &str, key: &str) -> f64 {
    let wanted = |case: &&Value| case["task"] == task && case["method"] == method;
    cases.as_array().unwrap().iter().find(wanted).unwrap()[key].as_f64().unwrap()
}

#[test]
fn predicted_heap_is_near_the_measured_one() {
    let sandbox = Sandbox::new();
    let settings = ["--samples", "300", "--layer", "1", "--sweep-layers", "8"];
    let (measured, predictions) = measured_and_predicted(&sandbox, &settings);
    let measured = |task, method| value_of(&measured, task, method, "cpu_peak_heap_mb");
    let predicted = |task, method| value_of(&predictions, task, method, "heap_bytes") / f64::from(1 << 20);
    for task in ["train", "sweep"] {
        for method in ["eager", "lazy", "lazy-disk"] {
            let (measured, predicted) = (measured(task, method), predicted(task, method));
            let ratio = predicted / measured;
            assert!((0.9..1.1).contains(&ratio), "{task} {method}: {predicted} MiB predicted, {measured} measured");
        }
    }
    // 300 samples of 8 layers, 192 numbers of two bytes, and the longest sample's positions.
    let tensors = measured("sweep", "eager") - measured("sweep", "lazy");
    assert!(tensors > 300.0 * 8.0 * 192.0 * 2.0 * 64.0 / f64::from(1 << 20), "{tensors} MiB");
    let ratio = tensors / (predicted("sweep", "eager") - predicted("sweep", "lazy"));
    assert!((0.9..1.1).contains(&ratio), "{tensors} MiB of full tensors, {ratio} of the prediction");
}

/// The lines of progress on standard error.
fn progress(text: &str) -> Vec<&str> {
    text.lines().filter(|line| line.starts_with("measuring the rates of this machine: ")).collect()
}

#[test]
fn measured_steps_are_lines_unless_quiet() {
    let sandbox = Sandbox::new();
    let plan = ["plan", "--samples", "100", "--layers", "2"];
    let output = sandbox.output(&plan);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = stderr(&output);
    let lines = progress(&text);
    assert_eq!(lines.len(), 7, "{text}");
    for (index, line) in lines.iter().enumerate() {
        assert!(line.contains(&format!(": {} of 7, ", index + 1)), "{text}");
    }
    for silent in ["--quiet", "--json"] {
        let output = sandbox.output(&[&plan[..], &[silent]].concat());
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        assert_eq!(progress(&stderr(&output)), [""; 0], "{silent}");
        assert!(silent == "--json" || stderr(&output).is_empty(), "{}", stderr(&output));
    }
}

#[test]
fn rates_of_results_are_not_measured() {
    let sandbox = Sandbox::new();
    let run = ["run", "--samples", "40", "--sweep-layers", "2", "--repetitions", "1", "--warmup", "0", "--methods"];
    let plan = ["plan", "--samples", "100", "--layers", "2", "--calibrate", "results.json"];
    for (methods, skipped) in [("eager,lazy", &["batches", "probes"][..]), ("lazy", &["probes"])] {
        let output = sandbox.output(&[&run[..], &[methods]].concat());
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let output = sandbox.output(&plan);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let text = stderr(&output);
        let lines = progress(&text);
        let total = 7 - skipped.len() - usize::from(skipped.contains(&"batches"));
        assert_eq!(lines.len(), total, "{text}");
        for name in ["batches", "probes"] {
            let measured = lines.iter().any(|line| line.ends_with(name));
            assert_eq!(measured, !skipped.contains(&name), "{methods}: {text}");
        }
        assert!(lines[0].contains(&format!(": 1 of {total}, ")), "{text}");
    }
}

#[test]
fn conditions_that_disturb_are_warned_about() {
    let sandbox = Sandbox::new();
    let plan = ["plan", "--samples", "100", "--layers", "2"];
    let warned = |arguments: &[&str]| {
        let output = sandbox.output(&[&plan[..], arguments].concat());
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        stderr(&output).contains("warning: the machine disturbs measurements: ")
    };
    // Tests run a debug build, which disturbs measurements wherever it runs.
    assert!(cfg!(not(debug_assertions)) || warned(&[]));
    assert!(!warned(&["--quiet"]));
}

#[test]
fn large_predictions_have_large_units() {
    let sandbox = Sandbox::new();
    let plan = ["plan", "--seq-len", "64", "--samples", "100000000", "--layers", "all", "--tasks", "sweep", "--quiet"];
    let output = sandbox.output(&plan);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = stdout(&output);
    let eager = text.lines().find(|line| line.contains("eager")).unwrap();
    // 100 million samples, 64 positions, 8 layers, 192 numbers of 2 bytes.
    assert!(eager.contains(" TiB") && (eager.contains(" d ") || eager.contains(" min")), "{text}");
    let output = sandbox.output(&[&plan[..], &["--json"]].concat());
    let json: Value = serde_json::from_str(&stdout(&output)).unwrap();
    let case = &json["predictions"][0];
    assert!(case["rss_bytes"].as_f64().unwrap() > 1e13 && case["elapsed_s"].as_f64().unwrap() > 3600.0, "{case}");
}
