//! `actbench features` and `actbench cache`: the layers they select, the samples they name, and the flags they take.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use safetensors::SafeTensors;

use crate::common_cli::ModelDirectory;
use crate::runner_support::{Sandbox, stderr, stdout};
use actbench::case::LAYER_NUMBERING;
use half::bf16;
use serde_json::json;

const SMALL: [&str; 4] = ["--samples", "20", "--threads", "1"];

/// Rows whose label and length tell which row they are.
const ROWS: usize = 40;

fn label(row: usize) -> u8 {
    u8::from(row * row % 7 < 4)
}

fn write_rows(path: &Path) {
    let line = |row: usize| {
        let answer = "yes ".repeat(row + 1);
        format!(
            "{{\"messages\":[{{\"role\":\"user\",\"content\":\"a\"}},{{\"role\":\"assistant\",\"content\":\"{answer}\"}}],\
             \"label\":{}}}\n",
            label(row)
        )
    };
    fs::write(path, (0..ROWS).map(line).collect::<String>()).unwrap();
}

#[track_caller]
fn succeed(sandbox: &Sandbox, arguments: &[&str]) -> (String, String) {
    let output = sandbox.output(arguments);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", stderr(&output));
    (stdout(&output), stderr(&output))
}

#[track_caller]
fn refused(sandbox: &Sandbox, arguments: &[&str], words: &[&str]) {
    let output = sandbox.output(arguments);
    let message = stderr(&output);
    assert_eq!((output.status.code(), message.lines().count()), (Some(2), 1), "{arguments:?}: {message}");
    assert!(words.iter().all(|word| message.contains(word)), "{arguments:?}: {words:?} in {message}");
}

/// The tensors and the metadata of a safetensors file.
struct Contents {
    bytes: Vec<u8>,
}

impl Contents {
    fn read(path: &Path) -> Self {
        Contents { bytes: fs::read(path).unwrap() }
    }

    fn metadata(&self) -> HashMap<String, String> {
        SafeTensors::read_metadata(&self.bytes).unwrap().1.metadata().clone().unwrap()
    }

    fn names(&self) -> Vec<String> {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        let mut names: Vec<String> = file.names().into_iter().map(str::to_owned).collect();
        names.sort_unstable();
        names
    }

    fn shape(&self, name: &str) -> Vec<usize> {
        SafeTensors::deserialize(&self.bytes).unwrap().tensor(name).unwrap().shape().to_vec()
    }

    fn data(&self, name: &str) -> Vec<u8> {
        SafeTensors::deserialize(&self.bytes).unwrap().tensor(name).unwrap().data().to_vec()
    }

    /// A tensor of 8-byte numbers.
    fn numbers(&self, name: &str) -> Vec<i64> {
        self.data(name).as_chunks().0.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect()
    }
}

#[test]
fn layer_alone_selects_that_layer() {
    let sandbox = Sandbox::new();
    let features = |more: &[&str]| {
        let (printed, report) = succeed(&sandbox, &[&["features", "--out", "f"], &SMALL[..], more].concat());
        assert_eq!(printed, "");
        (Contents::read(&sandbox.path("f")), report)
    };
    let (all, report) = features(&[]);
    assert!(report.ends_with("wrote f: 20 rows x 8 layers x 192\n"), "{report}");
    for arguments in
        [&["--layer", "2"][..], &["--layer", "2", "--tasks", "train"], &["--task", "train", "--layer", "2"]]
    {
        let (one, report) = features(arguments);
        assert!(report.ends_with("wrote f: 20 rows x 1 layer x 192\n"), "{report}");
        assert_eq!((one.data("layer_ids"), one.shape("pooled")), (vec![2, 0, 0, 0], vec![20, 1, 192]));
        let vector = 4 * 192;
        let of_all: Vec<u8> =
            all.data("pooled").chunks(8 * vector).flat_map(|row| row[2 * vector..3 * vector].to_vec()).collect();
        assert!(one.data("pooled") == of_all, "layer 2 alone has the bits of layer 2 of all");
        assert_eq!(
            (one.metadata()["format"].as_str(), &*one.metadata()["layer_numbering"]),
            ("actbench.features", LAYER_NUMBERING)
        );
    }
    succeed(&sandbox, &[&["cache", "--layer", "2", "--out", "c"], &SMALL[..]].concat());
    let cache = Contents::read(&sandbox.path("c"));
    assert_eq!(cache.names(), ["checksums", "is_train", "labels", "layer.2", "rows"]);
    assert_eq!((&*cache.metadata()["layer_ids"], &*cache.metadata()["layer_numbering"]), ("[2]", LAYER_NUMBERING));
}

#[test]
fn files_name_their_settings() {
    let sandbox = Sandbox::new();
    let with = |command: &'static str, out: &'static str| {
        [&[command, "--layer", "2", "--mask", "content", "--seed", "3", "--out", out], &SMALL[..]].concat()
    };
    succeed(&sandbox, &with("features", "f"));
    succeed(&sandbox, &with("cache", "c"));
    let features = Contents::read(&sandbox.path("f")).metadata();
    let cache = Contents::read(&sandbox.path("c")).metadata();
    let settings: HashMap<String, String> = serde_json::from_str(&cache["settings"]).unwrap();
    for (name, value) in [
        ("model", "embedded"),
        ("dataset", "embedded"),
        ("mask", "content"),
        ("pool", "mean"),
        ("dtype", "bf16"),
        ("samples", "20"),
        ("train_frac", "0.8"),
        ("seed", "3"),
    ] {
        assert_eq!((features[name].as_str(), settings[name].as_str()), (value, value), "{name}");
    }
    assert_eq!((features["data_digest"].len(), &features["data_digest"]), (64, &settings["data_digest"]));
    // The entry of the format: whether the file has a tensor `mask`.
    assert_eq!(cache["mask"], "false");
}

#[test]
fn contradicting_layers_are_refused_with_the_reason() {
    let sandbox = Sandbox::new();
    for command in ["features", "cache"] {
        let with = |more: &[&'static str]| [&[command, "--out", "f"], more].concat();
        refused(
            &sandbox,
            &with(&["--layer", "2", "--sweep-layers", "4"]),
            &["--layer 2", "--sweep-layers 4", "leave out"],
        );
        refused(&sandbox, &with(&["--layer", "2", "--tasks", "sweep"]), &["--tasks sweep", "--layer 2", "leave out"]);
        refused(&sandbox, &with(&["--tasks", "train", "--sweep-layers", "4"]), &["--sweep-layers 4", "--layer"]);
        refused(&sandbox, &with(&["--layer", "99"]), &["--layer 99", "8 layers"]);
        refused(&sandbox, &with(&["--sweep-layers", "9"]), &["--sweep-layers 9", "8 layers"]);
    }
    refused(&sandbox, &["features", "--out", "f", "--method", "lazy-disk"], &["lazy-disk", "actbench cache"]);
    assert_eq!(sandbox.leftovers(), [""; 0]);
}

#[test]
fn tensors_of_another_family_are_refused_before_extraction() {
    let sandbox = Sandbox::new();
    let mut model = ModelDirectory::valid();
    model.config["model_type"] = json!("mistral");
    let norm = "model.layers.0.self_attn.q_norm.weight";
    model.tensors.insert(norm.to_owned(), (vec![8], vec![bf16::ONE; 8]));
    model.write(&sandbox);
    for command in ["features", "cache"] {
        let output =
            sandbox.output(&[&[command, "--model", "model", "--layer", "1", "--out", "f"], &SMALL[..]].concat());
        let message = stderr(&output);
        let error = message.lines().last().unwrap();
        assert_eq!(output.status.code(), Some(2), "{command}: {message}");
        assert!(error.contains("that a mistral of this config.json does not have") && error.contains(norm), "{error}");
    }
    assert!(!sandbox.path("f").exists());
}

#[test]
fn flags_without_effect_are_refused_and_not_listed() {
    let sandbox = Sandbox::new();
    let probes: &[&str] = &["--sweep-cs", "--train-c", "--train-max-iter", "--sweep-max-iter", "--solver"];
    let runs: &[&str] = &["--lazy-cache-disk", "--memory-limit", "--repetitions", "--methods"];
    let processes: &[&str] = &[
        "--repetitions",
        "--budget",
        "--warmup",
        "--timeout",
        "--cache-dir",
        "--output",
        "--ablate",
        "--memory-limit",
    ];
    let cases = [
        ("features", [probes, runs].concat()),
        ("cache", [probes, runs, &["--method"]].concat()),
        ("plan", vec!["--train-c", "--train-max-iter", "--repetitions"]),
        ("profile", processes.to_vec()),
        ("explain", [probes, runs, processes, &["--json", "--device-map"]].concat()),
    ];
    for (command, flags) in cases {
        let (help, _) = succeed(&sandbox, &[command, "--help"]);
        for flag in flags {
            refused(&sandbox, &[command, flag, "1"], &["unexpected argument", flag]);
            assert!(!help.lines().any(|line| line.trim_start().split(' ').next() == Some(flag)), "{command}: {flag}");
        }
        assert!(help.contains("--no-opt <RULE>") && help.contains("--layer <LAYER>"), "{help}");
    }
}

#[test]
fn help_states_what_layers_count() {
    let sandbox = Sandbox::new();
    for command in ["run", "plan", "explain", "profile", "features", "cache"] {
        let (help, _) = succeed(&sandbox, &[command, "--help"]);
        let words = help.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(words.matches(&format!("Numbering: {LAYER_NUMBERING}.")).count(), 2, "{command}: {help}");
    }
}

#[test]
fn rows_labels_and_sides_lead_back_to_the_data_set() {
    let sandbox = Sandbox::new();
    write_rows(&sandbox.path("rows.jsonl"));
    let settings = ["--dataset", "rows.jsonl", "--samples", "30", "--layer", "1", "--threads", "1", "--out"];
    succeed(&sandbox, &[&["features"], &settings[..], &["f"]].concat());
    succeed(&sandbox, &[&["cache"], &settings[..], &["c"]].concat());
    let (features, cache) = (Contents::read(&sandbox.path("f")), Contents::read(&sandbox.path("c")));
    let rows = features.numbers("rows");
    let mut sorted = rows.clone();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!((rows.len(), sorted.len()), (30, 30));
    assert!(rows != sorted, "the rows are shuffled, so that the test proves something");
    let labels: Vec<u8> = rows.iter().map(|row| label(usize::try_from(*row).unwrap())).collect();
    assert_eq!(features.data("labels"), labels);
    // Each row has one more word than the row before it.
    let offsets = features.numbers("offsets");
    let mut lengths: Vec<(i64, i64)> =
        rows.iter().zip(offsets.windows(2)).map(|(row, ends)| (*row, ends[1] - ends[0])).collect();
    lengths.sort_unstable();
    assert!(lengths.windows(2).all(|pair| pair[0].1 < pair[1].1), "{lengths:?}");
    let is_train = features.data("is_train");
    assert_eq!(is_train.iter().filter(|flag| **flag == 1).count(), 24);
    assert!(is_train.is_sorted_by(|a, b| a >= b), "training samples first");
    for name in ["rows", "labels", "is_train"] {
        assert_eq!(cache.data(name), features.data(name), "{name}");
    }
}

#[test]
fn cache_of_changed_labels_is_refused() {
    let sandbox = Sandbox::new();
    // Equal dialogues, so that the features are the same whatever the rows and labels.
    let write = |label: fn(usize) -> usize| {
        let line = |row| {
            format!(
                "{{\"messages\":[{{\"role\":\"user\",\"content\":\"a\"}},{{\"role\":\"assistant\",\"content\":\"b\"}}],\
                 \"label\":{}}}\n",
                label(row)
            )
        };
        fs::write(sandbox.path("rows.jsonl"), (0..ROWS).map(line).collect::<String>()).unwrap();
    };
    write(|row| row % 2);
    let command =
        ["cache", "--dataset", "rows.jsonl", "--layer", "1", "--samples", "40", "--threads", "1", "--out", "c"];
    succeed(&sandbox, &command);
    let (printed, _) = succeed(&sandbox, &command);
    assert!(printed.contains("ran the model on 0 of"), "the file is kept: {printed}");
    let cache = Contents::read(&sandbox.path("c"));
    write(|row| row / 2 % 2);
    let output = sandbox.output(&command);
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{message}");
    let error = message.lines().last().unwrap();
    assert!(error.starts_with("error: c: has the same tokens as the data set, but other rows; delete it"), "{message}");
    assert!(Contents::read(&sandbox.path("c")).bytes == cache.bytes);
}

#[test]
fn quiet_commands_print_their_result_alone() {
    let sandbox = Sandbox::new();
    let (out, report) = succeed(&sandbox, &[&["features", "--quiet", "--out", "f.safetensors"][..], &SMALL].concat());
    assert!(
        out.is_empty() && report.starts_with("wrote f.safetensors") && report.lines().count() == 1,
        "{out}{report}"
    );
    let (out, report) = succeed(&sandbox, &[&["cache", "--quiet", "--out", "c.safetensors"][..], &SMALL].concat());
    assert!(out.starts_with("c.safetensors: ") && report.is_empty(), "{out}{report}");
}
