//! Small model directories and data files for tests to damage, and the resulting errors.

#![allow(dead_code)] // Each test crate uses a part of this.
#![allow(clippy::unwrap_used, clippy::panic)] // Helpers of tests may fail as tests do.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use actbench_activations::model::spec::{DecoderSpec, NormKind};
use actbench_activations::model::tensor_shapes::tensor_shapes;
use actbench_fixtures::presets::{LlamaConfig, LlamaShape};
use actbench_fixtures::synthetic;
use actbench_fixtures::tokenizer::{TOKENIZER_CONFIG_JSON, TOKENIZER_JSON};
use half::bf16;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};

use crate::runner_support::Sandbox;

/// The shape of the models: the smallest possible one, with a vocabulary that contains the one of the bundled tokenizer.
const SMALLEST: LlamaConfig = LlamaConfig {
    shape: LlamaShape {
        vocab_size: 1536,
        hidden_size: 16,
        intermediate_size: 32,
        n_layers: 2,
        n_heads: 2,
        n_kv_heads: 1,
        head_dim: 8,
        tie_word_embeddings: true,
    },
    max_position_embeddings: 512,
    rope_theta: 10_000.0,
    rope_scaling: None,
    rms_norm_eps: 1e-5,
    bos_token_id: 1,
    eos_token_id: 2,
};

/// A model directory before it is written; each test damages one part of it.
pub struct ModelDirectory {
    /// `config.json`.
    pub config: Value,
    /// Shape and values of each tensor by name.
    pub tensors: BTreeMap<String, (Vec<usize>, Vec<bf16>)>,
    /// `tokenizer.json`; none leaves the file out.
    pub tokenizer: Option<String>,
    /// `tokenizer_config.json`.
    pub tokenizer_config: Value,
    /// Modifies the bytes of `model.safetensors` before they are written.
    pub damage: fn(&mut Vec<u8>),
}

impl ModelDirectory {
    /// A valid model.
    pub fn valid() -> Self {
        ModelDirectory::with_layers(SMALLEST.shape.n_layers)
    }

    /// A valid model with `n_layers` blocks.
    pub fn with_layers(n_layers: usize) -> Self {
        let llama = LlamaConfig { shape: LlamaShape { n_layers, ..SMALLEST.shape }, ..SMALLEST };
        let tensors = llama.shape.tensors().into_iter().map(|spec| {
            let mean = if spec.name.ends_with("norm.weight") { 1.0 } else { 0.0 };
            let bytes = synthetic::tensor_bf16(&spec.name, &spec.shape, mean, 0);
            let values = bytes.chunks_exact(2).map(|pair| bf16::from_ne_bytes([pair[0], pair[1]])).collect();
            (spec.name, (spec.shape, values))
        });
        ModelDirectory {
            config: serde_json::from_str(&llama.config_json()).unwrap(),
            tensors: tensors.collect(),
            tokenizer: Some(TOKENIZER_JSON.to_owned()),
            tokenizer_config: serde_json::from_str(TOKENIZER_CONFIG_JSON).unwrap(),
            damage: |_| {},
        }
    }

    /// A valid model with this configuration, of any family, and a vocabulary that contains the one of the bundled tokenizer.
    pub fn of_config(mut config: Value) -> Self {
        let text = if config.get("text_config").is_some() { &mut config["text_config"] } else { &mut config };
        text["vocab_size"] = json!(1536);
        let spec = DecoderSpec::parse(&config.to_string(), "config.json").unwrap();
        let tensors = tensor_shapes(&spec).into_iter().map(|(name, shape)| {
            let is_scale = shape.len() == 1 && name.ends_with(".weight");
            let mean = if is_scale && spec.norm.kind != NormKind::RmsPlusOne { 1.0 } else { 0.0 };
            let bytes = synthetic::tensor_bf16(&name, &shape, mean, 0);
            let values = bytes.chunks_exact(2).map(|pair| bf16::from_ne_bytes([pair[0], pair[1]])).collect();
            (name, (shape, values))
        });
        ModelDirectory { tensors: tensors.collect(), config, ..ModelDirectory::valid() }
    }

    /// A valid model with another chat template.
    pub fn with_template(source: &str) -> Self {
        let mut model = ModelDirectory::valid();
        model.tokenizer_config["chat_template"] = json!(source);
        model
    }

    /// Writes the directory `model` into `sandbox` and returns its path.
    pub fn write(&self, sandbox: &Sandbox) -> PathBuf {
        let directory = sandbox.path("model");
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join("config.json"), self.config.to_string()).unwrap();
        fs::write(directory.join("tokenizer_config.json"), self.tokenizer_config.to_string()).unwrap();
        if let Some(tokenizer) = &self.tokenizer {
            fs::write(directory.join("tokenizer.json"), tokenizer).unwrap();
        }
        let bytes: BTreeMap<&String, Vec<u8>> = self
            .tensors
            .iter()
            .map(|(name, (_, values))| (name, values.iter().flat_map(|value| value.to_le_bytes()).collect()))
            .collect();
        let views = self.tensors.iter().map(|(name, (shape, _))| {
            (name.as_str(), TensorView::new(Dtype::BF16, shape.clone(), &bytes[name]).unwrap())
        });
        let mut file = safetensors::serialize(views, None).unwrap();
        (self.damage)(&mut file);
        fs::write(directory.join("model.safetensors"), file).unwrap();
        directory
    }
}

/// Arguments under which a model of [`ModelDirectory`] runs in a moment.
pub const SMALL_RUN: [&str; 8] = ["--samples", "10", "--layer", "1", "--sweep-layers", "2", "--threads", "1"];

/// The error of `actbench run` with `arguments`, which must be rejected before any case is measured: one line on standard
/// error that starts with `error: `, exit status 2, no standard output, no result file, no temporary file.
/// The sandbox's path is replaced by `[DIR]`.
#[track_caller]
pub fn refusal(sandbox: &Sandbox, arguments: &[&str]) -> String {
    let mut command = sandbox.command(&[&["run"], arguments].concat());
    // A closed port, so that no request leaves the machine.
    command.env("HF_ENDPOINT", "http://127.0.0.1:9").env("HF_HOME", sandbox.path("temporary"));
    // The errors must not depend on a GPU.
    command.env("ACTBENCH_CUDA", "none");
    for variable in ["HF_HUB_OFFLINE", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "TRANSFORMERS_OFFLINE", "HF_TOKEN"] {
        command.env_remove(variable);
    }
    for proxy in ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        command.env_remove(proxy);
    }
    let output = assert_cmd::Command::from_std(command).assert().code(2).stdout("").get_output().clone();
    let error_output = String::from_utf8(output.stderr).unwrap();
    // The device and the disturbances are printed before a worker finds a damaged weight.
    let depends_on_machine = |line: &&str| {
        line.starts_with("note: running on the CPU: ACTBENCH_CUDA=none")
            || line.starts_with("warning: the machine disturbs")
    };
    let error_output: String = error_output.split_inclusive('\n').filter(|line| !depends_on_machine(line)).collect();
    let line = error_output.strip_suffix('\n').unwrap_or_else(|| panic!("not a complete line: {error_output:?}"));
    assert!(line.starts_with("error: ") && !line.contains(['\n', '\r', '\u{1b}']), "{error_output}");
    assert!(!sandbox.path("results.json").exists(), "a result file was written");
    let leftovers: Vec<String> = sandbox.leftovers().into_iter().filter(|name| name.contains("actbench")).collect();
    assert_eq!(leftovers, [""; 0]);
    let line = line.replace(sandbox.path("").to_str().unwrap(), "[DIR]/");
    // The text of a refused connection depends on the system.
    match (line.split_once("could not be reached ("), line.find("): check")) {
        (Some((start, _)), Some(end)) => format!("{start}could not be reached ([REASON]{}", &line[end..]),
        _ => line,
    }
}

/// The error for a model under small settings.
#[track_caller]
pub fn refused_model(model: &ModelDirectory) -> String {
    refused_model_with(model, &SMALL_RUN)
}

/// The error for a model under the settings `arguments`.
#[track_caller]
pub fn refused_model_with(model: &ModelDirectory, arguments: &[&str]) -> String {
    let sandbox = Sandbox::new();
    let directory = model.write(&sandbox);
    refusal(&sandbox, &[&["--model", directory.to_str().unwrap()], arguments].concat())
}

/// The error for a data file of this name and content.
#[track_caller]
pub fn refused_data(name: &str, content: impl AsRef<[u8]>) -> String {
    let sandbox = Sandbox::new();
    let path = sandbox.path(name);
    fs::write(&path, content).unwrap();
    refusal(&sandbox, &["--samples", "10", "--dataset", path.to_str().unwrap()])
}

/// Twenty valid rows of JSON lines with alternating labels.
pub fn valid_rows() -> Vec<Value> {
    (0..20)
        .map(|row| {
            let user = json!({"role": "user", "content": format!("Question {row}?")});
            let assistant = json!({"role": "assistant", "content": format!("Answer {row}.")});
            json!({"messages": [user, assistant], "label": row % 2})
        })
        .collect()
}

/// Rows as the text of a `.jsonl` file.
pub fn lines(rows: &[Value]) -> String {
    rows.iter().map(|row| format!("{row}\n")).collect()
}
