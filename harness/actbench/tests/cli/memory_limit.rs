//! A case predicted to exceed its memory limit is an `oom` row with its predicted bytes, and the other cases run.

use crate::runner_support::{Sandbox, rows, stderr};
use serde_json::Value;

/// Enough samples that the full activations are far larger than the variation of resident sizes.
const SWEEP: [&str; 18] = [
    "run",
    "--tasks",
    "sweep",
    "--samples",
    "400",
    "--sweep-cs",
    "1.0",
    "--sweep-max-iter",
    "5",
    "--repetitions",
    "1",
    "--warmup",
    "0",
    "--threads",
    "2",
    "--quiet",
    "--methods",
    "eager,lazy,lazy-disk",
];

fn oom_bytes(results: &Value, method: &str) -> u64 {
    let row = rows(results, "sweep", method)[0];
    assert_eq!(row["status"], "oom", "{row}");
    let reason = row["reason"].as_str().unwrap();
    assert!(reason.contains("--memory-limit") && reason.contains("in use already"), "{row}");
    // Eager has one on each of the two threads.
    let batch = if method == "eager" { " for a batch of each thread; " } else { " for a batch; " };
    assert!(reason.contains(batch) && !reason.contains("bytes"), "{row}");
    row["extra"]["oom_bytes"].as_u64().unwrap()
}

#[test]
fn limit_between_both_stops_only_eager() {
    let sandbox = Sandbox::new();
    // A limit below every prediction yields all predictions.
    let output = sandbox.output(&[&SWEEP[..], &["--memory-limit", "1"]].concat());
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let results = sandbox.results();
    let (eager, lazy) = (oom_bytes(&results, "eager"), oom_bytes(&results, "lazy"));
    assert!(eager > lazy + (20 << 20), "{eager} and {lazy} are too close for the rest of this test");
    assert!(lazy >= oom_bytes(&results, "lazy-disk"));

    let limit = ((eager + lazy) / 2).to_string();
    let output = sandbox.output(&[&SWEEP[..], &["--memory-limit", &limit]].concat());
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let results = sandbox.results();
    assert_eq!(results["config"]["memory_limit"], limit.as_str());
    assert!(oom_bytes(&results, "eager") > limit.parse().unwrap());
    for method in ["lazy", "lazy-disk"] {
        let row = rows(&results, "sweep", method)[0];
        assert_eq!(row["status"], "ok", "{row}");
    }
}

#[test]
fn unlimited_run_completes() {
    let sandbox = Sandbox::new();
    let output = sandbox.run(&["--repetitions", "1", "--quiet", "--memory-limit", "none"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(sandbox.results()["config"]["memory_limit"], "none");
}

#[test]
fn invalid_memory_limit_is_rejected_in_one_line() {
    let sandbox = Sandbox::new();
    for bad in ["", "0", "-1", "much", "8 parsecs", "101%"] {
        let output = sandbox.output(&["run", "--memory-limit", bad]);
        let error_output = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{bad}: {error_output}");
        assert_eq!(error_output.lines().count(), 1, "{bad}: {error_output}");
        assert!(
            error_output.starts_with("error: ") && error_output.contains("--memory-limit"),
            "{bad}: {error_output}"
        );
        assert!(!sandbox.path("results.json").exists());
    }
}
