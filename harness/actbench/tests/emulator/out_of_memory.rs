//! A device of little memory, for real: lazily batches are halved until they fit, with the same features, and what has no
//! room at all is an `oom` row with its reason.

use std::process::Output;

use crate::common_cli::{ModelDirectory, lines};
use crate::runner_support::{Sandbox, rows, stderr};
use serde_json::{Value, json};

const SAMPLES: usize = 40;

/// Dialogues that begin alike for long and end each in its own way. Rows that are shared are computed once, so that a
/// batch has many samples; the table of where their keys lie has all positions of each sample all the same, which is
/// more than batches are sized by.
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
    std::fs::write(sandbox.path("alike.jsonl"), lines(&dialogues)).unwrap();
    (sandbox, model)
}

fn run(sandbox: &Sandbox, model: &str, cuda: &str, arguments: &str) -> (Output, Value) {
    let common = "run --warmup 0 --repetitions 1 --tasks train --layer 1 --train-max-iter 20 --threads 1 --dataset \
                  alike.jsonl --samples 40 --device-map cuda --model";
    let all: Vec<&str> = common.split_whitespace().chain([model]).chain(arguments.split_whitespace()).collect();
    let output = sandbox.command(&all).env("ACTBENCH_CUDA", cuda).output().unwrap();
    (output, sandbox.results())
}

/// Bytes that the case of `row` held on the device at most.
fn peak(row: &Value) -> u64 {
    (row["gpu_peak_alloc_mb"].as_f64().unwrap() * f64::from(1 << 20)) as u64
}

#[test]
fn batches_without_room_are_halved_and_said_to_be_and_the_features_stay() {
    let (sandbox, model) = sandbox();
    let lazy = "--methods lazy --batch-size 40";
    let (output, results) = run(&sandbox, &model, "emulator:1", lazy);
    assert!(output.status.success() && !stderr(&output).contains("halved"), "{}", stderr(&output));
    let roomy = rows(&results, "train", "lazy")[0].clone();
    assert!(roomy["extra"]["batches_halved"].is_null() && roomy["extra"]["feature_digest"].is_string());
    // Of less memory batches are sized by what there is, and too large all the same.
    let bytes = peak(&roomy) * 86 / 100;
    let (output, results) = run(&sandbox, &model, &format!("emulator:1:{bytes}B"), lazy);
    let (told, tight) = (stderr(&output), rows(&results, "train", "lazy")[0].clone());
    assert!(output.status.success(), "{told}");
    let halved = tight["extra"]["batches_halved"].as_u64().unwrap();
    assert!(halved > 0 && told.contains(&format!("batches were halved {halved} times")), "{told}");
    assert!(
        tight["extra"]["batches"].as_u64() > roomy["extra"]["batches"].as_u64() && peak(&tight) <= bytes,
        "{tight}"
    );
    assert_eq!(roomy["extra"]["feature_digest"], tight["extra"]["feature_digest"]);
    assert_eq!(roomy["metric_value"], tight["metric_value"]);
}

#[test]
fn what_has_no_room_is_a_row_with_its_reason_and_the_other_method_goes_on() {
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
    // The model has room, and not one dialogue of it.
    let (output, results) = run(&sandbox, &model, "emulator:1:110KiB", "--methods lazy --batch-size 1");
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    is_out_of_memory(rows(&results, "train", "lazy")[0]);
}
