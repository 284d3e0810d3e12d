//! `actbench selftest`: the gate on recorded noise, and a short self-test with real processes.

use crate::runner_support::{Sandbox, stderr, stdout};
use serde_json::Value;

fn record(name: &str) -> String {
    format!("{}/../pairgate/tests/data/noise/{name}.jsonl", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn replay_depends_on_its_seed_and_catches_slowdowns() {
    let sandbox = Sandbox::new();
    let file = record("quiet_cpu");
    let replay = |seed: &str, output: &str| -> (String, Value) {
        let arguments = ["selftest", "--replay", &file, "--resamples", "10", "--seed", seed, "--output", output];
        let replayed = sandbox.output(&arguments);
        assert_eq!(replayed.status.code(), Some(0), "{}", stderr(&replayed));
        let text = std::fs::read_to_string(sandbox.path(output)).unwrap();
        (stdout(&replayed), serde_json::from_str(&text).unwrap())
    };
    let (text, found) = replay("1", "a.json");
    assert_eq!(replay("1", "b.json"), (text.clone(), found.clone()));
    assert_ne!(replay("2", "c.json").1, found);
    let replayed = &found["records"][0]["replay"];
    let rate = |kind: &str, injected: &str, name: &str| {
        let all = replayed[kind].as_array().unwrap();
        all.iter().find(|it| it["injected"] == injected).unwrap()[name].as_f64().unwrap()
    };
    assert!(rate("cases", "none", "regressed") <= 0.11, "{text}");
    assert_eq!(rate("cases", "+10 % time", "regressed"), 1.0, "{text}");
    assert!(rate("suites", "none", "false_alarm") <= 0.11, "{text}");
    assert!(rate("suites", "+10 % time", "caught") >= 0.9, "{text}");
    assert!(text.contains("quiet_cpu: 480 runs, 10 resamples a line, wall and cpu"), "{text}");
}

#[test]
fn replay_accepts_another_design() {
    let sandbox = Sandbox::new();
    let file = record("quiet_mem");
    let grown = |design: &[&str]| {
        let arguments = ["selftest", "--replay", &file, "--resamples", "10", "--output", "found.json"];
        let replayed = sandbox.output(&[&arguments[..], design].concat());
        assert_eq!(replayed.status.code(), Some(0), "{}", stderr(&replayed));
        let found: Value = serde_json::from_slice(&std::fs::read(sandbox.path("found.json")).unwrap()).unwrap();
        let cases = found["records"][0]["replay"]["cases"].as_array().unwrap();
        cases.iter().find(|it| it["injected"] == "+1 MiB memory").unwrap()["regressed"].as_f64().unwrap()
    };
    // 1 MiB is 0.4 % of the memory of these runs.
    assert_eq!(grown(&[]), 1.0);
    assert_eq!(grown(&["--memory-margin", "0.005"]), 0.0);
    for bad in [["--memory-margin", "2"], ["--memory-margin", "nan"], ["--confirm-pairs", "4"]] {
        let output = sandbox.output(&[&["selftest", "--replay", &file], &bad[..]].concat());
        assert_eq!(output.status.code(), Some(2), "{bad:?}");
        assert!(stderr(&output).contains(bad[0]), "{}", stderr(&output));
    }
}

#[test]
fn invalid_record_is_refused_with_its_line() {
    let sandbox = Sandbox::new();
    std::fs::write(sandbox.path("noise.jsonl"), "0.5\n").unwrap();
    let output = sandbox.output(&["selftest", "--replay", "noise.jsonl"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("noise.jsonl: line 1"), "{}", stderr(&output));
}

#[test]
fn short_selftest_is_stored_for_later_reports() {
    let sandbox = Sandbox::new();
    let short = ["selftest", "--unchanged", "1", "--changed", "1", "--slowdowns", "0.9", "--samples", "20", "-q"];
    let mut command = sandbox.command(&[&short[..], &["--output", "found.json"]].concat());
    let output = command.env("ACTBENCH_CACHE", sandbox.path("cache")).output().unwrap();
    // Timings are not asserted: on a busy machine the self-test may fail with exit status 1.
    assert!(matches!(output.status.code(), Some(0 | 1)), "{}{}", stdout(&output), stderr(&output));
    let found: Value = serde_json::from_str(&std::fs::read_to_string(sandbox.path("found.json")).unwrap()).unwrap();
    assert_eq!(found["trials"].as_array().unwrap().len(), 6);
    let memory = found["trials"].as_array().unwrap().iter().find(|it| it["change"]["memory-bytes"] == 1 << 20).unwrap();
    assert_eq!(memory["broken"], 0, "{memory}");
    // A fresh copy is the same program: no metric but time, which is noise on a busy machine, may differ.
    for state in ["cached", "evicted"] {
        let trials = found["trials"].as_array().unwrap();
        let copy = trials.iter().find(|it| it["change"]["fresh-copy"] == state).unwrap();
        let metrics = copy["metrics"].as_array().unwrap();
        assert_eq!(metrics.len(), 6, "{state}: {copy}");
        for metric in metrics.iter().filter(|it| it["metric"] != "wall" && it["metric"] != "cpu") {
            assert_eq!(metric["passed"], 1, "{state}: {metric}");
        }
    }
    assert!(stdout(&output).contains("the same program on both sides, by metric"), "{}", stdout(&output));
    assert_eq!(found["resolution"]["trials_without_difference"], 3);
    let mut command = sandbox.command(&["env", "--json"]);
    let output = command.env("ACTBENCH_CACHE", sandbox.path("cache")).output().unwrap();
    let environment: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(environment["resolution"], found["resolution"]);
}
