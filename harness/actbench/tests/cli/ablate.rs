//! `actbench run --ablate`: the full plan and the plan without each rule, in one run.

use std::collections::BTreeMap;

use crate::runner_support::{SMALL, Sandbox};
use serde_json::Value;

/// The rows of a run by their disabled rule; `full` for none.
fn rows_by_rule(results: &Value) -> BTreeMap<String, Value> {
    let rows = results["rows"].as_array().unwrap().iter();
    rows.map(|row| (row["extra"]["ablated"].as_str().unwrap_or("full").to_owned(), row.clone())).collect()
}

#[test]
fn each_rule_is_ablated_without_changing_features() {
    let sandbox = Sandbox::new();
    let more = ["--tasks", "train", "--methods", "lazy", "--repetitions", "1", "--ablate", "--json", "-q"];
    let command = sandbox.command(&[&["run"], &SMALL[..], &more].concat());
    let output = assert_cmd::Command::from_std(command).assert().code(0).get_output().clone();
    let results: Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = rows_by_rule(&results);
    let names: Vec<&str> = rows.keys().map(String::as_str).collect();
    assert_eq!(names, ["all", "batch", "depth", "full", "layers", "mask", "packing", "pooling", "prefix", "tail"]);

    let count = |rule: &str, name: &str| rows[rule]["extra"][name].as_u64().unwrap();
    let (tokens, total) = (|rule| count(rule, "tokens_computed"), count("full", "tokens_total"));
    assert!(tokens("full") < total, "prefixes are shared");
    assert_eq!(tokens("prefix"), total);
    assert!(tokens("packing") > total && tokens("all") > total, "rows are padded");
    let flops = |rule| count(rule, "flops");
    assert!(flops("depth") > flops("full") && flops("mask") > flops("full"));
    assert!(rows.keys().all(|rule| rule == "all" || flops(rule) < flops("all")));
    assert_eq!(rows["prefix"]["extra"]["no_opt"], serde_json::json!(["prefix"]));

    let summary = &results["summary"]["train"];
    assert_eq!(summary["digests_agree"], Value::Bool(true));
    assert_eq!(summary["ablation"].as_array().unwrap().len(), 10);
    assert_eq!(summary["n_failed"], 0);
}

#[test]
fn plan_without_depth_rule_runs_all_blocks() {
    let sandbox = Sandbox::new();
    let flops = |more: &[&str]| {
        let fixed = ["--tasks", "train", "--methods", "lazy", "--repetitions", "1", "--json", "-q", "--layer", "0"];
        let arguments = [&["run", "--samples", "20", "--warmup", "0"], &fixed[..], more].concat();
        let output = assert_cmd::Command::from_std(sandbox.command(&arguments)).assert().code(0).get_output().clone();
        let results: Value = serde_json::from_slice(&output.stdout).unwrap();
        results["rows"][0]["extra"]["flops"].as_u64().unwrap() as f64
    };
    let (one_block, all_blocks) = (flops(&["--no-opt", "mask"]), flops(&["--no-opt", "mask", "--no-opt", "depth"]));
    assert_eq!(all_blocks, 8.0 * one_block, "the embedded model has 8 blocks");
}

#[test]
fn ablation_of_eager_alone_is_rejected() {
    let sandbox = Sandbox::new();
    let command = sandbox.command(&["run", "--methods", "eager", "--ablate"]);
    let output = assert_cmd::Command::from_std(command).assert().code(2).stdout("").get_output().clone();
    let error_output = String::from_utf8(output.stderr).unwrap();
    assert_eq!(error_output, "error: --ablate needs a lazy method: eager has no rules to disable\n");
}
