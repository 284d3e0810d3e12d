//! `actbench profile` and `actbench check` on emulated GPUs.

use crate::runner_support::Sandbox;
use assert_cmd::Command;
use serde_json::Value;

const SMALL: [&str; 8] = ["--samples", "8", "--layer", "0", "--batch-size", "4", "--dataset", "embedded:short"];

fn emulated(sandbox: &Sandbox, arguments: &[&str]) -> Command {
    let mut command = Command::from_std(sandbox.command(arguments));
    command.env("ACTBENCH_CUDA", "emulator:1");
    command
}

#[test]
fn profile_has_kernels_gaps_and_copies() {
    let sandbox = Sandbox::new();
    let mut arguments =
        vec!["profile", "--device-map", "cuda", "--tasks", "train", "--json", "-q", "--trace", "t.json"];
    arguments.extend(SMALL);
    let output = emulated(&sandbox, &arguments).assert().code(0).get_output().clone();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(report["device"].as_str().unwrap().contains("emulated cuda"), "{report}");
    assert!(report["ceiling_flops_per_s"].as_f64() > Some(0.0) && report["ceiling_bytes_per_s"].as_f64() > Some(0.0));
    assert_eq!(report["ceilings_sustained"], true);
    for case in report["cases"].as_array().unwrap() {
        assert!(case["phases"]["release_s"].as_f64() > Some(0.0), "{}", case["phases"]);
        let device = &case["devices"][0];
        assert!(device["busy_s"].as_f64() > Some(0.0) && device["busy_s"].as_f64() <= device["span_s"].as_f64());
        assert!(device["loaded"]["bytes"].as_u64() > Some(1_000_000), "{device}");
        // Eager downloads all tokens and lazy pooled vectors, so both copy; the emulator overlaps copies with nothing.
        assert!(device["from_device"]["bytes"].as_u64() > Some(0), "{device}");
        assert_eq!(device["from_device"]["overlapped_s"].as_f64(), Some(0.0));
        let operations = case["operations"].as_array().unwrap();
        let linear = operations.iter().find(|operation| operation["op"] == "linear + swiglu").unwrap();
        assert_eq!(linear["kernels"], serde_json::json!(["linear_gated_wgmma_bf16"]), "{linear}");
        let launches: u64 = device["launches"].as_u64().unwrap();
        let calls: u64 = operations.iter().map(|operation| operation["calls"].as_u64().unwrap()).sum();
        assert!(launches > 0 && launches <= 2 * calls, "{launches} launches of {calls} calls");
    }
    let trace: Value = serde_json::from_slice(&std::fs::read(sandbox.path("t.json")).unwrap()).unwrap();
    let events = trace["traceEvents"].as_array().unwrap();
    let operations: Vec<&Value> = events.iter().filter(|event| event["cat"] == "operation").collect();
    // Weights are converted outside of operations.
    let in_operations = |event: &&Value| event["cat"] == "kernel" && event["args"]["call"].is_u64();
    let kernels: Vec<&Value> = events.iter().filter(in_operations).collect();
    assert!(!kernels.is_empty());
    let (mut tracks, mut last) = (std::collections::BTreeMap::new(), 0);
    for kernel in kernels {
        // The emulator runs a kernel while the host waits, so its span lies within the operation that launched it.
        let time = |event: &Value, name: &str| event[name].as_f64().unwrap();
        let call = kernel["args"]["call"].as_u64().unwrap();
        let launcher = operations.iter().find(|operation| operation["args"]["call"].as_u64() == Some(call)).unwrap();
        let (start, end) = (time(kernel, "ts"), time(kernel, "ts") + time(kernel, "dur"));
        let slack = 200.0;
        assert!(
            start + slack >= time(launcher, "ts") && end <= time(launcher, "ts") + time(launcher, "dur") + slack,
            "{kernel} {launcher}"
        );
        let track = tracks.entry(kernel["pid"].as_u64()).or_insert(0.0);
        assert!(start + 0.002 >= *track, "kernels of one stream overlap: {kernel}");
        *track = end;
        last += 1;
    }
    assert!(last > 10);
}

// On an emulated device an unoptimized build needs minutes for this command; the dry run of `scripts/gpu_check.sh` covers it.
#[test]
fn check_compares_goldens_and_feature_bits() {
    let sandbox = Sandbox::new();
    let arguments = ["check", "--device-map", "cpu", "--quick", "--json", "check.json"];
    let output = emulated(&sandbox, &arguments).assert().code(0).get_output().clone();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("cpu") && text.trim_end().ends_with("checks passed"), "{text}");
    let found: Value = serde_json::from_slice(&std::fs::read(sandbox.path("check.json")).unwrap()).unwrap();
    let findings = found["findings"].as_array().unwrap();
    let count = |name: &str| findings.iter().filter(|finding| finding["what"].as_str().unwrap().contains(name)).count();
    assert!(count("golden") >= 18 && count("features") >= 6 && count("compared with the CPU") == 1, "{text}");
    assert_eq!(found["passed"], true);
}
