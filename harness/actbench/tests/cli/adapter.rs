//! `--adapter`: the features of a model with a LoRA adapter, the files that name it, and adapters that are refused.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use half::bf16;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};

use crate::common_cli::{ModelDirectory, SMALL_RUN, refusal};
use crate::runner_support::{Sandbox, rows, stderr};

/// Width of the model's residual stream and of its query projection.
const WIDTH: usize = 16;

const RANK: usize = 2;

/// The type and the shape of a tensor, with its bytes.
type StoredTensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

fn query(layer: usize) -> String {
    format!("model.layers.{layer}.self_attn.q_proj")
}

/// Multiples of 1/16, so that products of factors are exact and a merged weight is rounded once.
fn factor(seed: usize) -> Vec<f32> {
    (0..RANK * WIDTH).map(|index| ((index * 7 + seed * 5) % 11) as f32 * 0.0625 - 0.3125).collect()
}

/// `[RANK, WIDTH]` and `[WIDTH, RANK]` of a block.
fn factors(layer: usize) -> (Vec<f32>, Vec<f32>) {
    (factor(2 * layer), factor(2 * layer + 1))
}

fn f32_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn write(path: &Path, tensors: &StoredTensors) {
    let views = tensors
        .iter()
        .map(|(name, (dtype, shape, bytes))| (name.clone(), TensorView::new(*dtype, shape.clone(), bytes).unwrap()));
    fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

/// Writes the adapter `lora` of the query projections of both blocks, with the scale 1/2.
fn write_adapter(sandbox: &Sandbox, more: &Value) {
    let directory = sandbox.path("lora");
    fs::create_dir(&directory).unwrap();
    let mut tensors = StoredTensors::new();
    for layer in 0..2 {
        let (a, b) = factors(layer);
        let name = |factor: &str| format!("base_model.model.{}.lora_{factor}.weight", query(layer));
        tensors.insert(name("A"), (Dtype::F32, vec![RANK, WIDTH], f32_bytes(&a)));
        tensors.insert(name("B"), (Dtype::F32, vec![WIDTH, RANK], f32_bytes(&b)));
    }
    write(&directory.join("adapter_model.safetensors"), &tensors);
    let mut config = json!({
        "peft_type": "LORA", "r": RANK, "lora_alpha": 1, "target_modules": ["q_proj"], "base_model_name_or_path": "org/model"
    });
    for (key, value) in more.as_object().unwrap() {
        config[key] = value.clone();
    }
    fs::write(directory.join("adapter_config.json"), config.to_string()).unwrap();
}

/// Copies the directory `model` to `merged`, with the merged query projections in f32 and all other tensors as they are.
fn write_merged(sandbox: &Sandbox, model: &ModelDirectory) {
    let directory = sandbox.path("merged");
    fs::create_dir(&directory).unwrap();
    for file in ["config.json", "tokenizer.json", "tokenizer_config.json"] {
        fs::copy(sandbox.path("model").join(file), directory.join(file)).unwrap();
    }
    let stored = |values: &[bf16]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    let mut tensors: StoredTensors = model
        .tensors
        .iter()
        .map(|(name, (shape, values))| (name.clone(), (Dtype::BF16, shape.clone(), stored(values))))
        .collect();
    for layer in 0..2 {
        let name = format!("{}.weight", query(layer));
        let (shape, base) = &model.tensors[&name];
        assert_eq!(*shape, [WIDTH, WIDTH]);
        let (a, b) = factors(layer);
        let change = |index: usize| {
            let (output, input) = (index / WIDTH, index % WIDTH);
            0.5 * (b[RANK * output] * a[input] + b[RANK * output + 1] * a[WIDTH + input])
        };
        let merged: Vec<f32> = base.iter().enumerate().map(|(index, value)| value.to_f32() + change(index)).collect();
        tensors.insert(name, (Dtype::F32, shape.clone(), f32_bytes(&merged)));
    }
    write(&directory.join("model.safetensors"), &tensors);
}

/// The results of a run with `arguments`, and its standard error.
#[track_caller]
fn run(sandbox: &Sandbox, arguments: &[&str]) -> (Value, String) {
    let fixed = ["--tasks", "train", "--methods", "eager,lazy", "--repetitions", "1", "--device-map", "cpu", "--quiet"];
    let output = sandbox.run(&[&fixed[..], arguments].concat());
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", stderr(&output));
    (sandbox.results(), stderr(&output))
}

/// The digest of the features, which both methods must share.
#[track_caller]
fn digest(results: &Value) -> String {
    let of = |method| rows(results, "train", method)[0]["extra"]["feature_digest"].as_str().unwrap().to_owned();
    assert_eq!(of("eager"), of("lazy"));
    of("lazy")
}

#[test]
fn adapter_gives_features_of_merged_weights() {
    let sandbox = Sandbox::new();
    let model = ModelDirectory::valid();
    model.write(&sandbox);
    write_adapter(&sandbox, &json!({}));
    write_merged(&sandbox, &model);
    let (plain, _) = run(&sandbox, &["--model", "model", "--dtype", "fp32"]);
    let (adapted, messages) = run(&sandbox, &["--model", "model", "--adapter", "lora", "--dtype", "fp32"]);
    let (merged, _) = run(&sandbox, &["--model", "merged", "--dtype", "fp32"]);
    assert_ne!(digest(&adapted), digest(&plain));
    assert_eq!(digest(&adapted), digest(&merged));
    assert!(!messages.contains("lora"), "the adapter's base model is the one that is loaded: {messages}");
    assert_eq!(adapted["config"]["adapter"], "lora");
    assert!(plain["config"].get("adapter").is_none());
    assert_ne!(adapted["identity"]["weights"], plain["identity"]["weights"]);
    assert_eq!(adapted["identity"]["data"], plain["identity"]["data"]);
}

#[test]
fn features_file_names_adapter() {
    let sandbox = Sandbox::new();
    write_adapter(&sandbox, &json!({"base_model_name_or_path": "org/another"}));
    ModelDirectory::valid().write(&sandbox);
    let small = ["--samples", "20", "--layer", "1", "--threads", "1", "--device-map", "cpu"];
    let extraction = ["features", "--model", "model", "--adapter", "lora", "--out", "f"];
    let output = sandbox.output(&[&extraction[..], &small[..]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let bytes = fs::read(sandbox.path("f")).unwrap();
    let metadata = SafeTensors::read_metadata(&bytes).unwrap().1.metadata().clone().unwrap();
    assert_eq!((metadata["model"].as_str(), metadata["adapter"].as_str()), ("model", "lora"));
    let warning = "warning: lora: the adapter was trained on 'org/another' and is merged into 'model'";
    assert!(stderr(&output).contains(warning), "{}", stderr(&output));
}

#[test]
fn unusable_adapters_are_refused_in_one_line() {
    let with = |more: &Value| {
        let sandbox = Sandbox::new();
        ModelDirectory::valid().write(&sandbox);
        write_adapter(&sandbox, more);
        refusal(&sandbox, &[&["--model", "model", "--adapter", "lora"], &SMALL_RUN[..]].concat())
    };
    insta::assert_snapshot!(with(&json!({"use_dora": true})), @"error: lora/adapter_config.json: use_dora is true, which is not supported; merge the adapter into its base model with PEFT (merge_and_unload) and pass the merged model as --model");
    insta::assert_snapshot!(with(&json!({"target_modules": ["v_proj"]})), @"error: lora/adapter_model.safetensors: tensor 'base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight' is not of a target of adapter_config.json");
    let sandbox = Sandbox::new();
    ModelDirectory::valid().write(&sandbox);
    let missing = refusal(&sandbox, &[&["--model", "model", "--adapter", "lora"], &SMALL_RUN[..]].concat());
    insta::assert_snapshot!(missing, @"error: lora: no such directory: --adapter takes the directory of an adapter of PEFT");
}

#[test]
fn adapter_as_a_model_is_refused_with_the_flag() {
    let sandbox = Sandbox::new();
    write_adapter(&sandbox, &json!({}));
    let error = refusal(&sandbox, &[&["--model", "lora"], &SMALL_RUN[..]].concat());
    insta::assert_snapshot!(error, @"error: lora: has no config.json, and 'adapter_config.json' is of an adapter: name its base model by --model, and this directory by --adapter");
}
