//! A device with little memory: lazy batches are halved until they fit, with equal features, and a case that cannot fit is an
//! `oom` row with its reason.

use std::process::Output;

use crate::common_cli::{ModelDirectory, lines};
use crate::runner_support::{Sandbox, rows, stderr};
use serde_json::{Value, json};

const SAMPLES: usize = 40;

/// Dialogues with a long common prefix and different ends. The prefix is computed once, so that a batch has many samples. The
/// table of key positions nevertheless has an entry for every position of each sample, which the sizing of batches does not
/// count.
fn sandbox() -> (Sandbox, String) {
    let sandbox = Sandbox::new();
    let model = ModelDirectory::valid().write(&sandbox).display().to_string();
    let beginning = "The committee met again on Thursday to look at the figures of the year. ".repeat(12);
    let dialogues: Vec<Value> = (0..SAMPLES)
        .map(|index| {
            let user = json!({"role": "user", "content": beginning});
            let assistant = json!({"role": "assistant", "content": format!("It was {index} of {}.", index * 37 % 11)});
            json!({"messages": [user, assistant], "label": index % 2})
        })
        .collect();
    std::fs::write(sandbox.path("common_prefix.jsonl"), lines(&dialogues)).unwrap();
    (sandbox, model)
}

fn run(sandbox: &Sandbox, model: &str, cuda: &str, arguments: &str) -> (Output, Value) {
    let common = "run --warmup 0 --repetitions 1 --tasks train --layer 1 --train-max-iter 20 --threads 1 --dataset \
                  common_prefix.jsonl --samples 40 --device-map cuda --model";
    let all: Vec<&str> = common.split_whitespace().chain([model]).chain(arguments.split_whitespace()).collect();
    let output = sandbox.command(&all).env("ACTBENCH_CUDA", cuda).output().unwrap();
    (output, sandbox.results())
}

/// Peak device memory of the case of `row`, in bytes.
fn peak(row: &Value) -> u64 {
    (row["gpu_peak_alloc_mb"].as_f64().unwrap() * f64::from(1 << 20)) as u64
}

#[test]
fn oversized_batches_are_halved_with_a_warning() {
    let (sandbox, model) = sandbox();
    let lazy = "--methods lazy --batch-size 40";
    let (output, results) = run(&sandbox, &model, "emulator:1", lazy);
    assert!(output.status.success() && !stderr(&output).contains("halved"), "{}", stderr(&output));
    let ample = rows(&results, "train", "lazy")[0].clone();
    assert!(ample["extra"]["batches_halved"].is_null() && ample["extra"]["feature_digest"].is_string());
    // With less memory, batches are sized by the available memory and are still too large.
    let bytes = peak(&ample) * 86 / 100;
    let (output, results) = run(&sandbox, &model, &format!("emulator:1:{bytes}B"), lazy);
    let (message, tight) = (stderr(&output), rows(&results, "train", "lazy")[0].clone());
    assert!(output.status.success(), "{message}");
    let halved = tight["extra"]["batches_halved"].as_u64().unwrap();
    assert!(halved > 0 && message.contains(&format!("batches were halved {halved} times")), "{message}");
    assert!(
        tight["extra"]["batches"].as_u64() > ample["extra"]["batches"].as_u64() && peak(&tight) <= bytes,
        "{tight}"
    );
    assert_eq!(ample["extra"]["feature_digest"], tight["extra"]["feature_digest"]);
    assert_eq!(ample["metric_value"], tight["metric_value"]);
}

#[test]
fn case_that_cannot_fit_is_an_oom_row() {
    let (sandbox, model) = sandbox();
    let (output, results) = run(&sandbox, &model, "emulator:1", "--methods eager --batch-size 40");
    assert!(output.status.success(), "{}", stderr(&output));
    let device = format!("emulator:1:{}B", peak(rows(&results, "train", "eager")[0]) * 80 / 100);
    let (output, results) = run(&sandbox, &model, &device, "--methods eager,lazy --batch-size 40");
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let is_out_of_memory = |row: &Value| {
        assert_eq!(row["status"], "oom", "{row}");
        assert!(row["reason"].as_str().unwrap().contains("could not allocate"), "{row}");
        assert!(row["extra"]["oom_bytes"].as_u64().unwrap() > 0, "{row}");
    };
    is_out_of_memory(rows(&results, "train", "eager")[0]);
    assert_eq!(rows(&results, "train", "lazy")[0]["status"], "ok");
    assert!(stderr(&output).contains("error: train eager: 1 of 1 failed, oom: "), "{}", stderr(&output));
    // The model fits, but not a single dialogue.
    let (output, results) = run(&sandbox, &model, "emulator:1:62KiB", "--methods lazy --batch-size 1");
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    is_out_of_memory(rows(&results, "train", "lazy")[0]);
}
