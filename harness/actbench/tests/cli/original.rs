//! The command lines of the original Python benchmark, unchanged after `actbench run`, and the keys that readers of its
//! result files rely on: each present, of the right type, finite or null.

use std::process::Output;

use crate::common_cli::{ModelDirectory, lines, valid_rows};
use crate::runner_support::{Sandbox, rows, stderr, stdout};
use serde_json::Value;

/// The command line of the original after the tasks, with a local model and data set.
const LINE: &str = "--methods eager,lazy --model model --dataset temporary/rows.jsonl --samples 20 --train-frac 0.8 \
                    --batch-size 8 --pool mean --layer 2 --sweep-layers 3 --sweep-cs 0.1,1.0,10.0 --train-c 1.0 \
                    --train-max-iter 100 --sweep-max-iter 60 --dtype bfloat16 --device-map auto --lazy-cache-disk \
                    --output results.json --seed 0";

/// A sandbox with the model and the data set that [`LINE`] names.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    ModelDirectory::with_layers(3).write(&sandbox);
    std::fs::write(sandbox.path("temporary/rows.jsonl"), lines(&valid_rows())).unwrap();
    sandbox
}

/// The arguments of `actbench run` for these tasks. The repetitions, which the original does not have, keep it short.
fn arguments<'a>(tasks: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let line = LINE.split_whitespace();
    ["run", "--tasks", tasks]
        .into_iter()
        .chain(line)
        .chain(["--repetitions", "1"])
        .chain(more.iter().copied())
        .collect()
}

/// Fails unless `value` is a finite number and not text or null.
#[track_caller]
fn assert_number(value: &Value, name: &str) {
    assert!(value.as_f64().is_some_and(f64::is_finite), "{name} is {value}");
}

/// Fails unless each of `names` is present and a finite number or null.
#[track_caller]
fn assert_numbers_or_null(object: &Value, names: &[&str]) {
    for name in names {
        match object.get(name) {
            None => panic!("{name} is missing in {object}"),
            Some(Value::Null) => {}
            Some(value) => assert_number(value, name),
        }
    }
}

#[track_caller]
fn assert_row(row: &Value) {
    let task = row["task"].as_str().unwrap();
    assert_eq!(row["status"], "ok", "{row}");
    assert_eq!(row["metric_name"], if task == "train" { "auroc" } else { "mean_auroc" });
    for name in ["elapsed_s", "extract_s", "train_eval_s", "cpu_peak_heap_mb", "metric_value"] {
        assert_number(&row[name], name);
    }
    assert_numbers_or_null(row, &["cpu_peak_rss_mb", "gpu_peak_alloc_mb", "gpu_peak_reserved_mb"]);
    let extra = &row["extra"];
    assert_eq!((&extra["n_train"], &extra["n_test"]), (&Value::from(16), &Value::from(4)));
    assert_eq!(extra["pool"], "mean");
    assert_eq!(extra["lazy_cache_disk"], row["method"] == "lazy", "{row}");
    for name in ["tokens_total", "tokens_computed"] {
        assert!(extra[name].as_u64().is_some_and(|tokens| tokens > 0), "{name} of {row}");
    }
    assert_eq!(extra["feature_digest"].as_str().map(str::len), Some(64), "{row}");
    if task == "train" {
        assert_eq!(extra["layer"], 2);
        assert!(extra.get("n_trials").is_none(), "{row}");
    } else {
        assert_eq!((&extra["n_layers"], &extra["n_trials"]), (&Value::from(3), &Value::from(9)));
        assert_eq!(extra["cs"], serde_json::json!([0.1, 1.0, 10.0]));
        assert!(extra["best_layer"].as_u64().is_some_and(|layer| layer < 3), "{row}");
        assert_number(&extra["best_c"], "best_c");
        assert!(extra["best_auroc"].as_f64() >= row["metric_value"].as_f64(), "{row}");
        assert!(extra.get("layer").is_none(), "{row}");
    }
}

#[track_caller]
fn assert_summary(summary: &Value) {
    let ratios = ["speedup_lazy_vs_eager", "cpu_mem_reduction_x", "gpu_alloc_reduction_x", "gpu_reserved_reduction_x"];
    assert_number(&summary["speedup_lazy_vs_eager"], "speedup_lazy_vs_eager");
    assert_numbers_or_null(summary, &ratios);
    for ratio in ratios {
        assert!(summary["intervals"].as_object().unwrap().contains_key(ratio), "{ratio}: {summary}");
    }
    assert_eq!(summary["metric_delta"], 0.0, "the same features give the same metric");
}

/// Runs the command line for `tasks` and checks the whole result file, which must have exactly these tasks.
#[track_caller]
fn assert_line_works(tasks: &str) {
    let sandbox = sandbox();
    let output = sandbox.output(&arguments(tasks, &["--quiet"]));
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let results = sandbox.results();
    let names: Vec<&String> = results.as_object().unwrap().keys().collect();
    // The keys of the original come first, followed by the reason for the end of the run and the digests of its inputs.
    assert_eq!(names, ["schema", "config", "environment", "rows", "summary", "end", "identity"]);

    let config = &results["config"];
    assert_eq!(config["tasks"], Value::from(tasks.split(',').collect::<Vec<_>>()));
    assert_eq!(config["methods"], Value::from(vec!["eager", "lazy"]));
    assert_eq!((&config["samples"], &config["seed"]), (&Value::from(20), &Value::from(0)));
    assert_eq!((&config["layer"], &config["sweep_layers"]), (&Value::from(2), &Value::from(3)));
    assert_eq!((&config["train_max_iter"], &config["sweep_max_iter"]), (&Value::from(100), &Value::from(60)));
    assert_eq!((&config["dtype"], &config["device_map"]), (&Value::from("bf16"), &Value::from("auto")));
    assert_eq!((&config["train_frac"], &config["train_c"]), (&Value::from(0.8), &Value::from(1.0)));
    assert_eq!((&config["batch_size"], &config["pool"]), (&Value::from(8), &Value::from("mean")));
    assert_eq!(config["lazy_cache_disk"], true);

    let count = tasks.split(',').count();
    assert_eq!(results["rows"].as_array().unwrap().len(), 2 * count);
    assert_eq!(results["summary"].as_object().unwrap().len(), count);
    for task in tasks.split(',') {
        for method in ["eager", "lazy"] {
            assert_row(rows(&results, task, method)[0]);
        }
        let digest = |method: &str| rows(&results, task, method)[0]["extra"]["feature_digest"].clone();
        assert_eq!(digest("eager"), digest("lazy"), "{task}");
        assert_summary(&results["summary"][task]);
    }
}

#[test]
fn command_line_with_both_tasks_works() {
    assert_line_works("train,sweep");
}

#[test]
fn command_line_with_train_works() {
    assert_line_works("train");
}

#[test]
fn command_line_with_sweep_works() {
    assert_line_works("sweep");
}

/// The standard error without the lines that depend on the system: temporary files in memory, and the device.
fn error_output_of(output: &Output) -> String {
    let lines = stderr(output);
    let depends_on_system =
        |line: &&str| line.contains("keeps its files in memory") || line.starts_with("note: running on ");
    lines.split_inclusive('\n').filter(|line| !depends_on_system(line)).collect()
}

#[test]
fn json_output_replaces_table_and_quiet_prints_nothing() {
    let sandbox = sandbox();
    let output = sandbox.output(&arguments("train", &["--json", "--quiet"]));
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(error_output_of(&output), "");
    assert_eq!(serde_json::from_str::<Value>(&stdout(&output)).unwrap(), sandbox.results());
}

#[test]
fn piped_run_prints_plain_lines() {
    let output = sandbox().output(&arguments("train", &[]));
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let error_output = error_output_of(&output);
    // A warm-up and a repetition of two methods each.
    let (cases, others): (Vec<&str>, Vec<&str>) = error_output.lines().partition(|line| line.starts_with("case "));
    assert_eq!(cases.len(), 4, "{error_output}");
    let Some((&"wrote results.json", others)) = others.split_last() else { panic!("{error_output}") };
    // Disturbances before and after the run; whether there are any depends on the machine.
    assert!(others.iter().all(|line| line.starts_with("warning: the machine disturbs")), "{error_output}");
    for text in [error_output, stdout(&output)] {
        assert!(!text.contains(['\u{1b}', '\r']), "{text:?}");
    }
}
