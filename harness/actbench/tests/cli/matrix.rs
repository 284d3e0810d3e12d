//! `actbench matrix`, `merge` and `plan`: invalid files, resuming after a kill, shards, methods that do not fit, predictions.
#![cfg(target_os = "linux")]

use std::fs;
use std::path::Path;
use std::process::Stdio;

use crate::runner_support::{Running, Sandbox, children, stderr, stdout, wait_until};
use serde_json::{Value, json};

/// Settings that make a cell fast.
const SETTINGS: &str = "[settings]\nwarmup = 0\nrepetitions = 1\nsweep-cs = [1.0]\nthreads = 1\ntasks = [\"train\"]\n";

fn write(sandbox: &Sandbox, text: &str) {
    fs::write(sandbox.path("m.toml"), text).unwrap();
}

#[track_caller]
fn runs(sandbox: &Sandbox, arguments: &[&str]) -> String {
    let output = sandbox.output(arguments);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", stderr(&output));
    stdout(&output)
}

fn results(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// Names and contents of the result files of a directory, without what depends on time and machine.
fn cells(directory: &Path) -> Vec<(String, Value)> {
    let mut paths: Vec<_> = fs::read_dir(directory.join("cells")).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let part = |row: &Value| {
        let extra = &row["extra"];
        json!([
            row["task"],
            row["method"],
            row["repetition"],
            row["status"],
            row["metric_value"],
            extra["feature_digest"]
        ])
    };
    paths
        .iter()
        .map(|path| {
            let results = results(path);
            let rows: Vec<Value> = results["rows"].as_array().unwrap().iter().map(part).collect();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, json!([results["schema"], results["config"], rows]))
        })
        .collect()
}

#[test]
fn invalid_file_is_refused_with_its_line() {
    let messages: Vec<String> = [
        "[[grid]]\nsamples = [10,\n  0]",
        "[[grid]]\nsample = [10]",
        "[settings]\ndtype = \"fp8\"\n[[grid]]\n",
        "[settings]\noutput = \"x.json\"\n[[grid]]\n",
        "[[grid]]\nlazy-cache-disk = 1",
        "[[grid]]\nmemory-limit = \"much\"",
        "[[grid]]\nmodels = [\"synthetic:unheard-of\"]\nlayers = [\"all\"]",
        "[[grid]]\nlayers = [9]",
        "[[grid]\n",
    ]
    .iter()
    .map(|text| {
        let sandbox = Sandbox::new();
        write(&sandbox, text);
        let output = sandbox.output(&["matrix", "m.toml", "--out", "out"]);
        assert_eq!(output.status.code(), Some(2), "{text}: {}", stderr(&output));
        let message = stderr(&output);
        assert_eq!(message.lines().count(), 1, "{message}");
        assert!(sandbox.leftovers().iter().all(|name| name != "out") || message.contains("cell"), "{message}");
        message
    })
    .collect();
    insta::assert_snapshot!(messages.concat(), @r#"
error: m.toml:3: --samples must be at least 1
error: m.toml:2: unknown key 'sample' in a grid: write samples
error: m.toml:2: invalid value 'fp8' for '--dtype <DTYPE>': unknown dtype 'fp8': use one of fp32, fp16, bf16 (or float32, float16, bfloat16)
error: m.toml:2: unknown key 'output' in [settings]: use a flag of `actbench run` without its dashes
error: m.toml:2: lazy-cache-disk must be true or false: write lazy-cache-disk = true
error: m.toml:2: invalid value 'much' for '--memory-limit <SIZE>': invalid memory limit 'much': use bytes, 500MB, 8GiB, a percentage such as 80%, or none
error: m.toml:1: unknown preset 'unheard-of' for synthetic models; use one of tiny, gpt2, smollm2-135m, pythia-160m, gpt2-medium, smollm2-360m, qwen2.5-0.5b, qwen3-0.6b, gemma-3-1b, tinyllama-1.1b, llama-3.2-1b, pythia-1.4b, olmo-2-1b, qwen2.5-1.5b, smollm2-1.7b, qwen3-1.7b, gemma-2b, gemma-2-2b, smollm3-3b, llama-3.2-3b, phi-3-mini, phi-4-mini, gemma-3-4b, mistral-7b, qwen2.5-7b, llama-3.1-8b, qwen3-8b, gemma-2-9b, gemma-3-12b, qwen3-30b-a3b, mixtral-8x7b, llama-3.1-70b
error: m.toml: cell 001-l9: layers = [9] is too deep: the model has 8 layers; write 8 or fewer, or "all"
error: m.toml:1: is not TOML: unclosed array table, expected `]`
"#);
    let sandbox = Sandbox::new();
    write(&sandbox, "[[grid]]\nlayers = [99]\n");
    let output = sandbox.output(&["matrix", "m.toml", "--dry-run", "-q"]);
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert!(
        message.contains("error: m.toml: cell 001-l99: layers = [99] is too deep: the model has 8 layers"),
        "{message}"
    );
    let output = sandbox.output(&["matrix", "absent.toml"]);
    assert_eq!((output.status.code(), stderr(&output).contains("absent.toml")), (Some(2), true));
}

#[test]
fn killed_matrix_resumes_and_keeps_finished_cells() {
    let sandbox = Sandbox::new();
    // The order is shuffled; with this seed the cell without the sleeping method runs first.
    let text =
        format!("seed = 3\n{SETTINGS}[[grid]]\nsamples = [20]\n[[grid]]\nsamples = [24]\nmethods = [\"lazy-disk\"]\n");
    write(&sandbox, &text);
    let arguments = ["matrix", "m.toml", "--out", "out"];
    let mut command = sandbox.command(&[&arguments[..], &["--inject-fault", "train/lazy-disk=sleep"]].concat());
    let mut parent = Running(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    let (first, second) = (sandbox.path("out/cells/001-n20.json"), sandbox.path("out/cells/002-n24.json"));
    let mut worker = None;
    wait_until("a finished cell and a sleeping one", || {
        worker = children(parent.0.id()).first().copied();
        first.exists() && worker.is_some()
    });
    parent.0.kill().unwrap();
    parent.0.wait().unwrap();
    wait_until("the end of the child", || !worker.unwrap().is_alive());
    let kept = fs::read(&first).unwrap();
    assert!(!second.exists());

    let refused = sandbox.output(&arguments);
    assert_eq!(refused.status.code(), Some(2));
    assert!(stderr(&refused).contains("--resume"), "{}", stderr(&refused));
    let resumed = sandbox.output(&[&arguments[..], &["--resume"]].concat());
    assert_eq!(resumed.status.code(), Some(0), "{}", stderr(&resumed));
    assert!(stderr(&resumed).starts_with("1 of 2 cells have already finished\n"), "{}", stderr(&resumed));
    assert!(stderr(&resumed).contains("cell 2 of 2, 002-n24: case 1 of 1: train lazy-disk"), "{}", stderr(&resumed));
    assert_eq!(fs::read(&first).unwrap(), kept, "a finished cell is unchanged");
    assert_eq!(results(&second)["rows"].as_array().unwrap().len(), 1);
    let mut left: Vec<String> = fs::read_dir(sandbox.path("out"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    left.sort();
    assert_eq!(left, ["cells", "matrix.json", "matrix.toml"]);
    assert_eq!(cells(&sandbox.path("out")).len(), 2);
    let report = runs(&sandbox, &["report", "out", "--out", "report"]);
    assert!(report.contains("REPORT.md"), "{report}");
}

#[test]
fn ctrl_c_keeps_finished_cells_and_leaves_no_child() {
    let sandbox = Sandbox::new();
    write(&sandbox, &format!("{SETTINGS}[[grid]]\nsamples = [20]\nmethods = [\"lazy\"]\n"));
    let mut command = sandbox.command(&["matrix", "m.toml", "--out", "out", "--inject-fault", "train/lazy=sleep"]);
    let mut parent = Running(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    let mut worker = None;
    wait_until("a sleeping case", || {
        worker = children(parent.0.id()).first().copied();
        worker.is_some()
    });
    // SAFETY: a plain system call; the process has not been waited for, so its number is still its own.
    assert_eq!(unsafe { libc::kill(parent.0.id() as i32, libc::SIGINT) }, 0);
    assert_eq!(parent.0.wait().unwrap().code(), Some(130));
    assert!(!worker.unwrap().is_alive());
    let message = std::io::read_to_string(parent.0.stderr.take().unwrap()).unwrap();
    assert!(message.contains("interrupted; 0 of 1 cells are in out; --resume runs the rest"), "{message}");
    assert!(fs::read_dir(sandbox.path("out/cells")).unwrap().next().is_none());
}

#[test]
fn merged_shards_equal_the_whole_matrix() {
    let sandbox = Sandbox::new();
    write(
        &sandbox,
        &format!("{SETTINGS}[[grid]]\nsamples = [20, 30]\npools = [\"mean\", \"last\"]\nmethods = [\"lazy\"]\n"),
    );
    runs(&sandbox, &["matrix", "m.toml", "--out", "whole", "-q"]);
    runs(&sandbox, &["matrix", "m.toml", "--out", "a", "--shard", "1/2", "-q"]);
    runs(&sandbox, &["matrix", "m.toml", "--out", "b", "--shard", "2/2", "-q"]);
    let summary = runs(&sandbox, &["merge", "a", "b", "--out", "merged"]);
    assert_eq!(summary, "4 cells in merged\n");
    assert_eq!(cells(&sandbox.path("merged")), cells(&sandbox.path("whole")));
    assert_eq!(cells(&sandbox.path("a")).len() + cells(&sandbox.path("b")).len(), 4);

    // Missing cells are listed, and resuming runs them in the merged directory.
    let part = sandbox.output(&["merge", "a", "--out", "half"]);
    assert!(stderr(&part).contains("2 cells are missing"), "{}", stderr(&part));
    runs(&sandbox, &["matrix", "m.toml", "--out", "half", "--resume", "-q"]);
    assert_eq!(cells(&sandbox.path("half")), cells(&sandbox.path("whole")));

    let cell = fs::read_dir(sandbox.path("b/cells")).unwrap().next().unwrap().unwrap().path();
    let mut elsewhere = results(&cell);
    elsewhere["environment"]["cpu_model"] = json!("Another");
    fs::write(&cell, elsewhere.to_string()).unwrap();
    let refused = sandbox.output(&["merge", "a", "b", "--out", "mixed"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(stderr(&refused).contains("Another") && stderr(&refused).contains("--allow-mixed"), "{}", stderr(&refused));
    assert!(!sandbox.path("mixed").exists());
    let allowed = sandbox.output(&["merge", "a", "b", "--out", "mixed", "--allow-mixed"]);
    assert_eq!(allowed.status.code(), Some(0));
    assert!(stderr(&allowed).contains("warning") && stderr(&allowed).contains("Another"), "{}", stderr(&allowed));
    write(&sandbox, &format!("{SETTINGS}[[grid]]\nsamples = [20]\n"));
    runs(&sandbox, &["matrix", "m.toml", "--out", "other", "-q"]);
    let refused = sandbox.output(&["merge", "a", "other", "--out", "never"]);
    assert!(stderr(&refused).contains("belongs to a different matrix"), "{}", stderr(&refused));
}

#[test]
fn method_that_does_not_fit_becomes_oom_row() {
    let sandbox = Sandbox::new();
    let text = SETTINGS.replace("repetitions = 1", "repetitions = 2").replace("train", "sweep");
    let predicted = |limit: &str| -> Value {
        write(&sandbox, &format!("{text}memory-limit = \"{limit}\"\n[[grid]]\nsamples = [700]\n"));
        serde_json::from_str(&runs(&sandbox, &["matrix", "m.toml", "--dry-run", "--json", "-q"])).unwrap()
    };
    // A limit halfway between the predictions of the two methods.
    let unlimited = predicted("none");
    let bytes = |at: usize| unlimited["cells"][0]["predictions"][at]["rss_bytes"].as_u64().unwrap();
    assert!(bytes(0) > bytes(1) + (100 << 20), "{unlimited}");
    let limit = bytes(0).midpoint(bytes(1));
    let dry = predicted(&limit.to_string());
    runs(&sandbox, &["matrix", "m.toml", "--out", "out"]);
    let results = results(&sandbox.path("out/cells/001-n700.json"));
    for (method, status) in [("eager", "oom"), ("lazy", "ok")] {
        let rows = crate::runner_support::rows(&results, "sweep", method);
        assert_eq!(rows.len(), 2);
        assert!(rows.iter().all(|row| row["status"] == status), "{method}: {rows:?}");
        // The prediction before the run agrees with the outcome.
        let predictions = dry["cells"][0]["predictions"].as_array().unwrap();
        let predicted = predictions.iter().find(|prediction| prediction["method"] == method).unwrap();
        let bytes = predicted["rss_bytes"].as_f64().unwrap();
        assert_eq!(bytes > limit as f64, status == "oom", "{method}: {bytes}");
        if let Some(peak) = rows[0]["cpu_peak_rss_mb"].as_f64() {
            let (peak, predicted) = (peak, bytes / f64::from(1 << 20));
            assert!(
                (predicted - peak).abs() <= 0.1 * peak + 32.0,
                "{method}: {predicted} MiB predicted, {peak} measured"
            );
        }
    }
    assert_eq!(dry["cells"][0]["choices"][0]["method"], "lazy");
}

#[test]
fn plan_needs_neither_weights_nor_data() {
    let sandbox = Sandbox::new();
    let plan = |arguments: &[&str]| -> Value {
        let text = runs(&sandbox, &[&["plan", "--json", "--seq-len", "32", "--samples", "1000"], arguments].concat());
        serde_json::from_str(&text).unwrap()
    };
    let few = plan(&["--layers", "2"]);
    let many = plan(&["--layers", "all"]);
    let case = |plan: &Value, task: &str, method: &str| -> Value {
        let all = plan["predictions"].as_array().unwrap();
        all.iter().find(|it| it["task"] == task && it["method"] == method).unwrap().clone()
    };
    let number = |value: &Value| value.as_f64().unwrap();
    let (eager, lazy, disk) =
        (case(&many, "sweep", "eager"), case(&many, "sweep", "lazy"), case(&many, "sweep", "lazy-disk"));
    // Bytes of the full bf16 tensors: 1,000 samples, 32 positions, 8 layers, 192 columns.
    let full = 1000.0 * 32.0 * 8.0 * 192.0 * 2.0;
    let difference = number(&eager["heap_bytes"]) - number(&lazy["heap_bytes"]);
    assert!((difference - full).abs() < 0.05 * full, "{difference} and {full}");
    assert_eq!(number(&disk["disk_bytes"]), 1000.0 * 8.0 * 192.0 * 2.0);
    assert_eq!(number(&lazy["disk_bytes"]), 0.0);
    assert!(number(&case(&few, "sweep", "lazy")["flops"]) < number(&lazy["flops"]));
    assert!(eager["lacks"].is_null() && number(&eager["rss_bytes"]) > number(&lazy["rss_bytes"]));
    let limit = (number(&eager["rss_bytes"]) + number(&lazy["rss_bytes"])) / 2.0;
    let many = plan(&["--layers", "all", "--memory-limit", &format!("{limit:.0}")]);
    assert_eq!(case(&many, "sweep", "eager")["lacks"], "memory");
    let choice = many["choices"].as_array().unwrap().iter().find(|choice| choice["task"] == "sweep").unwrap();
    assert_ne!(choice["method"], "eager");
    assert!(choice["why"].as_str().unwrap().contains("eager needs"), "{choice}");
    for bad in [&["--layers", "9"][..], &["--layers", "0"], &["--shared-tokens", "32"], &["--model", "org/no-such"]] {
        let arguments = [&["plan", "--seq-len", "32", "--samples", "10"], bad].concat();
        let output = sandbox.command(&arguments).env("HF_HUB_OFFLINE", "1").output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{bad:?}: {}", stderr(&output));
    }
}
