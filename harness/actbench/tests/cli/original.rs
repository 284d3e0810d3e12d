//! The command lines of the original Python benchmark, unchanged after `actbench run`, and what readers of its result
//! files rely on: every name, of the right type, finite or null.

use std::process::Output;

use crate::common_cli::{ModelFolder, good_rows, lines};
use crate::runner_support::{Sandbox, rows, stderr, stdout};
use serde_json::Value;

/// Everything of the original's command line that comes after the tasks, with a local model and data set.
const LINE: &str = "--methods eager,lazy --model model --dataset temporary/rows.jsonl --samples 20 --train-frac 0.8 \
                    --batch-size 8 --pool mean --layer 2 --sweep-layers 3 --sweep-cs 0.1,1.0,10.0 --train-c 1.0 \
                    --train-max-iter 100 --sweep-max-iter 60 --dtype bfloat16 --device-map auto --lazy-cache-disk \
                    --output results.json --seed 0";

/// A sandbox with the model and the data set that [`LINE`] names.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    ModelFolder::with_layers(3).write(&sandbox);
    std::fs::write(sandbox.path("temporary/rows.jsonl"), lines(&good_rows())).unwrap();
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

/// Fails unless `value` is a finite number; JSON has no others, but a reader may find text or null in its place.
#[track_caller]
fn assert_number(value: &Value, name: &str) {
    assert!(value.as_f64().is_some_and(f64::is_finite), "{name} is {value}");
}

/// Fails unless each of `names` is there and is a finite number or null.
#[track_caller]
fn assert_numbers_or_null(object: &Value, names: &[&str]) {
    for name in names {
        match object.get(name) {
            None => panic!("there is no {name} in {object}"),
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

/// Runs the line for `tasks` and checks the whole result file, whose tasks must be these and no others.
#[track_caller]
fn assert_line_works(tasks: &str) {
    let sandbox = sandbox();
    let output = sandbox.output(&arguments(tasks, &["--quiet"]));
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let results = sandbox.results();
    let names: Vec<&String> = results.as_object().unwrap().keys().collect();
    // The original's names come first; why the run ended stands behind them.
    assert_eq!(names, ["schema", "config", "environment", "rows", "summary", "end"]);

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
fn the_line_with_both_tasks_works() {
    assert_line_works("train,sweep");
}

#[test]
fn the_line_with_train_alone_works() {
    assert_line_works("train");
}

#[test]
fn the_line_with_sweep_alone_works() {
    assert_line_works("sweep");
}

/// What was said on standard error, but for the warning on systems that keep temporary files in memory and for where
/// the model runs.
fn told(output: &Output) -> String {
    let lines = stderr(output);
    let is_of_system =
        |line: &&str| line.contains("keeps its files in memory") || line.starts_with("note: running on ");
    lines.split_inclusive('\n').filter(|line| !is_of_system(line)).collect()
}

#[test]
fn the_payload_can_be_printed_in_place_of_the_table_and_quiet_is_quiet() {
    let sandbox = sandbox();
    let output = sandbox.output(&arguments("train", &["--json", "--quiet"]));
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(told(&output), "");
    assert_eq!(serde_json::from_str::<Value>(&stdout(&output)).unwrap(), sandbox.results());
}

#[test]
fn a_piped_run_prints_plain_lines() {
    let output = sandbox().output(&arguments("train", &[]));
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let told = told(&output);
    // A warm-up and a repetition of two methods each.
    let (cases, others): (Vec<&str>, Vec<&str>) = told.lines().partition(|line| line.starts_with("case "));
    assert_eq!(cases.len(), 4, "{told}");
    // What disturbs the machine, before and after: it is the machine that decides whether there is such a line.
    assert!(others.iter().all(|line| line.starts_with("warning: the machine disturbs")), "{told}");
    for text in [told, stdout(&output)] {
        assert!(!text.contains(['\u{1b}', '\r']), "{text:?}");
    }
}
