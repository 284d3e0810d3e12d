//! A machine with fewer instructions computes other bits in bf16 and comes to the same conclusion.

use std::collections::BTreeMap;

use crate::runner_support::Sandbox;
use serde_json::Value;

/// The metric of each task on the embedded model, at the settings that users meet.
fn metrics(isa: Option<&str>, dtype: &str) -> BTreeMap<String, f64> {
    let sandbox = Sandbox::new();
    let arguments =
        ["run", "--methods", "lazy", "--repetitions", "1", "--warmup", "0", "--json", "-q", "--dtype", dtype];
    let mut command = sandbox.command(&arguments);
    match isa {
        Some(isa) => command.env("ACTBENCH_CPU_ISA", isa),
        None => command.env_remove("ACTBENCH_CPU_ISA"),
    };
    let output = assert_cmd::Command::from_std(command).assert().code(0).get_output().clone();
    let results: Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = results["rows"].as_array().unwrap().iter();
    rows.map(|row| (row["task"].as_str().unwrap().to_owned(), row["metric_value"].as_f64().unwrap())).collect()
}

#[test]
fn a_lower_instruction_set_gives_the_same_auroc_to_a_thousandth() {
    for dtype in ["bf16", "fp32"] {
        let (best, avx2) = (metrics(None, dtype), metrics(Some("avx2"), dtype));
        assert_eq!(best.len(), 2);
        for (task, metric) in &best {
            let difference = (metric - avx2[task]).abs();
            assert!(difference <= 1e-3, "{task} {dtype}: {metric} and {}", avx2[task]);
        }
    }
}

#[test]
fn an_instruction_set_that_does_not_exist_is_refused_by_name() {
    let sandbox = Sandbox::new();
    let mut command = sandbox.command(&["run", "--methods", "lazy", "--repetitions", "1", "--warmup", "0"]);
    command.env("ACTBENCH_CPU_ISA", "avx-512");
    let assert = assert_cmd::Command::from_std(command).assert().code(1);
    let message = String::from_utf8_lossy(&assert.get_output().stderr).into_owned();
    assert!(message.contains("ACTBENCH_CPU_ISA=avx-512: use one of portable, avx2"), "{message}");
}
