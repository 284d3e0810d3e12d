//! The peak memory of lazy grows with the samples only by the pooled features, and with a cache file not even by those.

use crate::runner_support::Sandbox;
use serde_json::Value;

const FEW: usize = 200;
const MANY: usize = 4000;
/// Bytes of the pooled features of a sample: 8 layers of 192 columns in bf16.
const POOLED_BYTES: usize = 8 * 192 * 2;
/// Allowance for tokens, masks and the probe matrices of one layer, in MiB. It is below the pooled features of `MANY`, so that
/// keeping these in addition to the cache file, or twice in memory, fails.
const SLACK_MIB: f64 = 10.0;

/// Peak resident memory of a sweep of the embedded model, in MiB.
fn peak_mib(method: &str, samples: usize) -> f64 {
    let sandbox = Sandbox::new();
    let samples = samples.to_string();
    let arguments = ["run", "--tasks", "sweep", "--methods", method, "--samples", &samples, "--repetitions", "1"];
    let more = ["--warmup", "0", "--threads", "1", "--sweep-cs", "1.0", "--json", "-q"];
    let command = sandbox.command(&[&arguments[..], &more].concat());
    let output = assert_cmd::Command::from_std(command).assert().code(0).get_output().clone();
    let results: Value = serde_json::from_slice(&output.stdout).unwrap();
    let row = &results["rows"][0];
    assert_eq!(row["extra"]["n_train"].as_u64().unwrap() * 10, samples.parse::<u64>().unwrap() * 8);
    row["cpu_peak_rss_mb"].as_f64().unwrap()
}

#[test]
#[cfg(target_os = "linux")]
fn peak_grows_only_by_pooled_features() {
    let pooled_mib = ((MANY - FEW) * POOLED_BYTES) as f64 / f64::from(1 << 20);
    assert!(pooled_mib > SLACK_MIB);
    for (method, allowed) in [("lazy", pooled_mib + SLACK_MIB), ("lazy-disk", SLACK_MIB)] {
        let (few, many) = (peak_mib(method, FEW), peak_mib(method, MANY));
        let growth = many - few;
        assert!(
            growth <= allowed,
            "{method}: {few} MiB at {FEW} samples, {many} MiB at {MANY}, allowed growth {allowed} MiB"
        );
    }
}
