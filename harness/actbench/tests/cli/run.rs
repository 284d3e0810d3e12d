//! Successful runs: the table, the JSON output, the result file, progress, and the command lines of the Python benchmark.

use crate::runner_support::{SMALL, Sandbox, rows, stderr, stdout};
use serde_json::Value;

#[test]
fn all_tasks_and_methods_complete_with_same_features() {
    let sandbox = Sandbox::new();
    let output = sandbox.run(&["--methods", "eager,lazy,lazy-disk", "--repetitions", "2"]);
    let (error_output, table) = (stderr(&output), stdout(&output));
    assert_eq!(output.status.code(), Some(0), "{error_output}");
    let results = sandbox.results();
    for (task, metric) in [("train", "auroc"), ("sweep", "mean_auroc")] {
        for method in ["eager", "lazy", "lazy-disk"] {
            let rows = rows(&results, task, method);
            assert_eq!(rows.len(), 2, "{task} {method}");
            for row in rows {
                assert_complete(row, metric);
                assert_eq!(row["extra"]["lazy_cache_disk"], method == "lazy-disk", "{row}");
            }
        }
        let summary = &results["summary"][task];
        assert_eq!(summary["digests_agree"], true);
        for name in ["speedup_lazy_vs_eager", "cpu_mem_reduction_x"] {
            assert!(summary[name].as_f64().unwrap() > 0.0, "{summary}");
            assert!(summary["lazy_disk"][name].as_f64().unwrap() > 0.0, "{summary}");
            let interval = &summary["intervals"][name];
            assert!(interval["low"].as_f64().unwrap() <= interval["high"].as_f64().unwrap(), "{summary}");
        }
        assert_eq!(summary["metric_delta"], 0.0);
        assert_eq!(summary["gpu_alloc_reduction_x"], Value::Null);
        assert!(table.contains(&format!("{task}: lazy ")), "{table}");
    }
    let trials = rows(&results, "sweep", "lazy")[0];
    assert_eq!(trials["extra"]["n_trials"], 2);
    for name in ["cs", "best_layer", "best_c", "best_auroc", "tokens_total", "tokens_computed"] {
        assert!(!trials["extra"][name].is_null(), "{name}: {trials}");
    }
    let cases = error_output.lines().filter(|line| line.starts_with("case ")).count();
    assert_eq!(cases, 12, "one line per case when piped: {error_output}");
    assert!(!table.contains('\u{1b}') && !error_output.contains('\u{1b}'), "no colors when piped");
    assert_eq!(sandbox.leftovers(), [""; 0]);
}

#[track_caller]
fn assert_complete(row: &Value, metric: &str) {
    assert_eq!(row["status"], "ok", "{row}");
    assert_eq!(row["metric_name"], metric);
    let figure = |name: &str| row[name].as_f64().unwrap_or_else(|| panic!("{name} of {row}"));
    assert!((0.0..=1.0).contains(&figure("metric_value")), "{row}");
    for name in ["elapsed_s", "extract_s", "train_eval_s", "cpu_peak_heap_mb"] {
        assert!(figure(name) > 0.0, "{name} of {row}");
    }
    assert!(figure("extract_s") + figure("train_eval_s") <= figure("elapsed_s") + 1e-9, "{row}");
    // A process of this size has some MiB resident.
    assert!(figure("cpu_peak_rss_mb") > 4.0, "{row}");
    assert_eq!((&row["gpu_peak_alloc_mb"], &row["gpu_peak_reserved_mb"]), (&Value::Null, &Value::Null));
    assert_eq!(row["extra"]["feature_digest"].as_str().unwrap().len(), 64, "{row}");
    // On the CPU, nothing of a driver; the model is released within the measurement, before the probes.
    let phases = row["extra"]["phases"].as_object().unwrap();
    let names: Vec<&str> = phases.keys().map(String::as_str).collect();
    let expected = ["start_s", "prepare_s", "weights_s", "warm_up_s", "extract_s", "release_s", "probes_s"];
    assert_eq!(names, expected, "{row}");
    assert!(phases.values().all(|seconds| seconds.as_f64().unwrap() >= 0.0), "{row}");
    assert_eq!((&phases["extract_s"], &phases["release_s"]), (&row["extract_s"], &row["extra"]["release_s"]));
    let after_extraction = phases["release_s"].as_f64().unwrap() + phases["probes_s"].as_f64().unwrap();
    assert!(after_extraction <= figure("train_eval_s") + 1e-9, "{row}");
    assert_eq!(row["extra"]["n_train"], 16);
    assert_eq!(row["extra"]["n_test"], 4);
}

#[test]
fn disturbances_are_printed_and_stored() {
    let sandbox = Sandbox::new();
    let output = sandbox.run(&["--repetitions", "1", "--tasks", "train", "--methods", "lazy"]);
    assert_eq!(output.status.code(), Some(0));
    let error_output = stderr(&output);
    let results = sandbox.results();
    let environment = &results["environment"];
    let disturbances = error_output.lines().filter(|line| line.starts_with("warning: the machine disturbs"));
    let levels = environment["warnings"].as_array().unwrap().iter().map(|warning| warning["level"].as_str());
    // The machine decides which disturbances there are, but a debug build is always one.
    let has_warning = levels.clone().any(|level| level == Some("warning"));
    assert!(has_warning || !cfg!(debug_assertions), "{environment}");
    assert_eq!(disturbances.clone().count() > 0, has_warning, "{error_output}");
    assert!(disturbances.clone().all(|line| line.contains("actbench env")), "{error_output}");
    assert_eq!(disturbances.clone().any(|line| line.contains("debug build")), cfg!(debug_assertions), "{error_output}");
    assert_eq!(environment["fingerprint"]["build"].as_str().unwrap().len(), 16);
}

#[test]
fn json_output_equals_result_file() {
    let sandbox = Sandbox::new();
    let output =
        sandbox.run(&["--repetitions", "1", "--tasks", "train", "--json", "--quiet", "--output", "results.json"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(stderr(&output), "");
    assert_eq!(serde_json::from_str::<Value>(&stdout(&output)).unwrap(), sandbox.results());
}

#[test]
fn order_features_and_metrics_are_reproducible() {
    let run = |threads: &str, batch_size: &str| {
        let sandbox = Sandbox::new();
        let arguments = ["--repetitions", "1", "--quiet", "--threads", threads, "--batch-size", batch_size];
        // `SMALL` names the threads as well, so it is not used whole.
        let output = sandbox.output(&[&["run"], &SMALL[..12], &arguments[..]].concat());
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let results = sandbox.results();
        let order: Vec<(Value, Value, Value, Value)> = results["rows"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| {
                let digest = row["extra"]["feature_digest"].clone();
                (row["task"].clone(), row["method"].clone(), digest, row["metric_value"].clone())
            })
            .collect();
        order
    };
    let first = run("1", "8");
    assert_eq!(first.len(), 4);
    assert_eq!(first, run("2", "3"), "threads and batch size must have no effect");
}

#[test]
fn python_benchmark_command_lines_work() {
    let common = ["--dataset", "embedded", "--train-frac", "0.8", "--seed", "1", "--batch-size=4", "--pool", "mean"];
    let common = [&common[..], &["--device-map", "cpu", "--lazy-cache-disk", "--output", "results.json"]].concat();
    let lines: [(&[&str], usize); 3] = [
        (
            &[
                "--tasks",
                "train,sweep",
                "--methods",
                "eager,lazy",
                "--dtype",
                "float16",
                "--layer",
                "1",
                "--sweep-layers",
                "2",
                "--sweep-cs",
                "0.1,1.0,10.0",
            ],
            4,
        ),
        (&["--tasks", "train", "--layer=1", "--train-c", "1.0", "--train-max-iter", "100", "--dtype", "bfloat16"], 2),
        (&["--tasks", "sweep", "--sweep-layers", "2", "--sweep-max-iter", "60", "--dtype", "fp32"], 2),
    ];
    for (line, n_rows) in lines {
        let sandbox = Sandbox::new();
        let few = ["--model", "synthetic:tiny", "--samples=20", "--repetitions", "1", "--warmup", "0", "--quiet"];
        let output = sandbox.output(&[&["run"], line, &common, &few].concat());
        assert_eq!(output.status.code(), Some(0), "{line:?}: {}", stderr(&output));
        let results = sandbox.results();
        assert_eq!(results["rows"].as_array().unwrap().len(), n_rows);
        for row in results["rows"].as_array().unwrap() {
            assert_eq!(row["status"], "ok");
            assert_eq!(row["extra"]["lazy_cache_disk"], row["method"] == "lazy");
        }
        assert_eq!(results["config"]["lazy_cache_disk"], true);
    }
}

#[test]
fn lazy_cache_disk_is_one_mode_in_all_commands() {
    let sandbox = Sandbox::new();
    let output = sandbox.run(&["--tasks", "train", "--lazy-cache-disk", "--repetitions", "2"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let table = stdout(&output);
    assert!(table.lines().any(|line| line.starts_with(" train  lazy-disk  2  ")), "{table}");
    assert!(table.contains("train, eager / lazy-disk: ") && !table.contains(" GPU"), "{table}");
    assert!(table.contains("50 % intervals, 2 blocks; same AUROC."), "{table}");
    // The mode and its reason are those of `recommend`.
    let choice = table.lines().find_map(|line| line.strip_prefix("train: use ")).unwrap();
    assert!(choice.ends_with("; lazy was not tried."), "{choice}");
    let recommended = stdout(&sandbox.output(&["recommend", "results.json", "--json"]));
    let recommended: Value = serde_json::from_str(&recommended).unwrap();
    let recommended = &recommended["recommendations"][0];
    let (mode, why) = (recommended["mode"].as_str().unwrap(), recommended["why"].as_str().unwrap());
    assert_eq!(choice, format!("{mode}: {why}."));
    assert_eq!(recommended["based_on"], "1 cell, 50 % intervals, 2 blocks");
    // The result file keeps the name that was asked for.
    assert!(sandbox.results()["rows"].as_array().unwrap().iter().any(|row| row["method"] == "lazy"));
}

#[test]
fn warm_up_cases_are_discarded() {
    let sandbox = Sandbox::new();
    let settings = ["run", "--samples", "20", "--layer", "1", "--tasks", "train", "--threads", "1"];
    let output = sandbox.output(&[&settings[..], &["--warmup", "1", "--repetitions", "1"]].concat());
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(stderr(&output).lines().filter(|line| line.starts_with("case ")).count(), 4);
    assert_eq!(stderr(&output).matches("warm-up").count(), 2);
    let results = sandbox.results();
    assert_eq!(results["rows"].as_array().unwrap().len(), 2);
    assert_eq!(results["config"]["warmup"], 1);
}

#[test]
fn too_few_rows_is_a_warning() {
    let sandbox = Sandbox::new();
    let lines: String = (0..30)
        .map(|row| {
            let user = format!("{{\"role\":\"user\",\"content\":\"question {row}\"}}");
            let answer = format!("{{\"role\":\"assistant\",\"content\":\"answer {row}\"}}");
            format!("{{\"messages\":[{user},{answer}],\"label\":{}}}\n", row % 2)
        })
        .collect();
    std::fs::write(sandbox.path("temporary/rows.jsonl"), lines).unwrap();
    let dataset = ["--dataset", "temporary/rows.jsonl", "--samples", "600", "--layer", "1", "--warmup", "0"];
    let rest = ["run", "--tasks", "train", "--methods", "lazy", "--repetitions", "1", "--quiet"];
    let output = sandbox.output(&[&rest[..], &dataset].concat());
    let error_output = stderr(&output);
    assert_eq!(output.status.code(), Some(0), "{error_output}");
    assert!(
        error_output.starts_with("warning: ") && error_output.contains("30") && error_output.contains("600"),
        "{error_output}"
    );
}

#[test]
fn env_prints_environment_of_result_files() {
    let sandbox = Sandbox::new();
    let output = sandbox.output(&["env", "--json"]);
    assert_eq!(output.status.code(), Some(0));
    let environment: Value = serde_json::from_str(&stdout(&output)).unwrap();
    let names: Vec<&String> = environment.as_object().unwrap().keys().collect();
    for name in [
        "date",
        "cpu_model",
        "cores_logical",
        "cores_physical",
        "ram_mb",
        "governor",
        "kernel",
        "gpus",
        "driver",
        "cuda",
        "version",
        "rustc",
        "commit",
        "dirty",
        "command_line",
        "instruction_set",
        "huge_pages",
        "target",
        "features",
        "rustflags",
    ] {
        assert!(names.iter().any(|known| *known == name), "{name}: {environment}");
    }
    let date = environment["date"].as_str().unwrap();
    assert!(date.ends_with('Z') && date.contains('T'), "{date}");
    assert_eq!(environment["command_line"][1], "env");
    assert_eq!(environment["fingerprint"]["machine"].as_str().unwrap().len(), 16);
    // A debug build is a finding, a release build is not.
    let warnings = environment["warnings"].as_array().unwrap();
    let debug = warnings.iter().find(|warning| warning["kind"] == "debug_build");
    assert_eq!(debug.is_some(), cfg!(debug_assertions), "{environment}");
    let text = stdout(&sandbox.output(&["env"]));
    for heading in ["Machine ", "Build "] {
        assert!(text.contains(heading), "{heading}: {text}");
    }
    if let Some(debug) = debug {
        assert!(debug["advice"].as_str().unwrap().contains("--release"), "{debug}");
        assert!(text.contains("Warnings\n") && text.contains("warning: this is a debug build"), "{text}");
    }
    let absent = sandbox.output(&["env", "--files", "absent"]);
    assert_eq!(absent.status.code(), Some(2));
    assert!(stderr(&absent).starts_with("error: absent: "), "{}", stderr(&absent));
}

#[test]
fn missing_cache_directory_names_the_flag() {
    let sandbox = Sandbox::new();
    std::fs::write(sandbox.path("m.toml"), "[[grid]]\nsamples = [20]\n").unwrap();
    for arguments in [&["run"][..], &["matrix", "m.toml"], &["plan"]] {
        let output = sandbox.output(&[arguments, &["--cache-dir", "nodir"]].concat());
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
        let expected = "error: --cache-dir nodir is not a directory; create it or use another one\n";
        assert_eq!(stderr(&output), expected, "{arguments:?}");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn disk_cache_in_memory_is_a_warning() {
    let memory = std::path::Path::new("/dev/shm");
    let Ok(directory) = tempfile::tempdir_in(memory) else {
        eprintln!("skipped: no directory in memory at {}", memory.display());
        return;
    };
    let sandbox = Sandbox::new();
    let settings = ["--tasks", "train", "--methods", "lazy-disk", "--repetitions", "1", "--quiet"];
    let path = directory.path().to_str().unwrap();
    let output = sandbox.run(&[&settings[..], &["--cache-dir", path]].concat());
    assert_eq!(output.status.code(), Some(0));
    assert!(stderr(&output).contains("keeps its files in memory"), "{}", stderr(&output));
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "the cache was left behind");
}
