//! Lazy's peak memory grows with the samples by its pooled features and little else, and with a cache file not by those.

use crate::runner_support::Sandbox;
use serde_json::Value;

const FEW: usize = 200;
const MANY: usize = 4000;
/// Pooled features of a sample: 8 layers of 192 columns in bf16.
const POOLED_BYTES: usize = 8 * 192 * 2;
/// What tokens, masks and one layer's probe matrices may add, in MB of 2^20 bytes: below the pooled features of `MANY`, so
/// that holding these beside the cache file, or twice in memory, fails.
const SLACK_MB: f64 = 10.0;

/// The resident peak of a sweep of the embedded model.
fn peak_mb(method: &str, samples: usize) -> f64 {
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
fn twenty_times_the_samples_cost_their_pooled_features_or_nothing() {
    let pooled_mb = ((MANY - FEW) * POOLED_BYTES) as f64 / f64::from(1 << 20);
    assert!(pooled_mb > SLACK_MB);
    for (method, allowed) in [("lazy", pooled_mb + SLACK_MB), ("lazy-disk", SLACK_MB)] {
        let (few, many) = (peak_mb(method, FEW), peak_mb(method, MANY));
        let growth = many - few;
        assert!(
            growth <= allowed,
            "{method}: {few} MB at {FEW} samples, {many} MB at {MANY}, allowed {allowed} MB more"
        );
    }
}
