//! Goldens of the families, written as GGUF by the rules of llama.cpp's `convert_hf_to_gguf.py` and imported again: the decoder
//! and every tensor are the original ones.
#![allow(clippy::unwrap_used)] // Helpers of tests may fail as tests do.

use std::path::Path;

use actbench_activations::import::gguf::GgufValue;
use actbench_activations::import::import_gguf;
use actbench_activations::model::rope_spec::RopeScaling;
use actbench_activations::model::spec::DecoderSpec;
use actbench_activations::model::weights::Weights;
use actbench_fixtures::family_golden::families_directory;
use serde_json::Value;
use tempfile::TempDir;

use crate::test_writer::{GgufWriter, tiny_llama};

/// Architectures and goldens of their families. The others have settings that the converter drops: windows of Qwen 2, and
/// activations that are not the family's.
const CASES: [(&str, &str); 20] = [
    ("qwen2", "qwen2-bf16-tied-window-off"),
    ("qwen3", "qwen3-bf16-tied"),
    ("qwen3", "qwen3-f16-yarn"),
    ("qwen3", "qwen3-f32-attention-bias"),
    ("gemma", "gemma-bf16-mqa"),
    ("gemma", "gemma-f32-attention-bias"),
    ("gemma2", "gemma2-bf16-window-7"),
    ("gemma2", "gemma2-f32-layer-types"),
    ("gemma3", "gemma3-text-bf16-window-7"),
    ("gemma3", "gemma3-text-f32-layer-types"),
    ("phi3", "phi3-bf16-window-7"),
    ("phi3", "phi3-f16-longrope-partial"),
    ("phi3", "phi3-f32-longrope"),
    ("phi3", "phi3-f32-partial"),
    ("gptneox", "gpt-neox-bf16-all-columns"),
    ("gptneox", "gpt-neox-f16-parallel"),
    ("gptneox", "gpt-neox-f32-serial"),
    ("gpt2", "gpt2-bf16-n-inner"),
    ("gpt2", "gpt2-f16-untied"),
    ("gpt2", "gpt2-f32-published-names"),
];

/// Names of modules: ggml's and transformers'.
type Names = &'static [(&'static str, &'static str)];

/// Names outside of blocks, transformers' prefix of blocks, and names in blocks.
fn names(architecture: &str) -> (Names, &'static str, Names) {
    const USUAL: Names = &[("token_embd", "model.embed_tokens"), ("output_norm", "model.norm"), ("output", "lm_head")];
    match architecture {
        "gptneox" => (
            &[("token_embd", "gpt_neox.embed_in"), ("output_norm", "gpt_neox.final_layer_norm"), ("output", "lm_head")],
            "gpt_neox.layers.",
            &[
                ("attn_norm", "input_layernorm"),
                ("attn_qkv", "attention.query_key_value"),
                ("attn_output", "attention.dense"),
                ("ffn_norm", "post_attention_layernorm"),
                ("ffn_up", "mlp.dense_h_to_4h"),
                ("ffn_down", "mlp.dense_4h_to_h"),
            ],
        ),
        "gpt2" => (
            &[
                ("token_embd", "transformer.wte"),
                ("position_embd", "transformer.wpe"),
                ("output_norm", "transformer.ln_f"),
                ("output", "lm_head"),
            ],
            "transformer.h.",
            &[
                ("attn_norm", "ln_1"),
                ("attn_qkv", "attn.c_attn"),
                ("attn_output", "attn.c_proj"),
                ("ffn_norm", "ln_2"),
                ("ffn_up", "mlp.c_fc"),
                ("ffn_down", "mlp.c_proj"),
            ],
        ),
        "phi3" => (
            USUAL,
            "model.layers.",
            &[
                ("attn_norm", "input_layernorm"),
                ("attn_qkv", "self_attn.qkv_proj"),
                ("attn_output", "self_attn.o_proj"),
                ("ffn_norm", "post_attention_layernorm"),
                ("ffn_up", "mlp.gate_up_proj"),
                ("ffn_down", "mlp.down_proj"),
            ],
        ),
        "gemma2" | "gemma3" => (
            USUAL,
            "model.layers.",
            &[
                ("attn_norm", "input_layernorm"),
                ("attn_q", "self_attn.q_proj"),
                ("attn_k", "self_attn.k_proj"),
                ("attn_v", "self_attn.v_proj"),
                ("attn_q_norm", "self_attn.q_norm"),
                ("attn_k_norm", "self_attn.k_norm"),
                ("attn_output", "self_attn.o_proj"),
                ("post_attention_norm", "post_attention_layernorm"),
                ("ffn_norm", "pre_feedforward_layernorm"),
                ("ffn_gate", "mlp.gate_proj"),
                ("ffn_up", "mlp.up_proj"),
                ("ffn_down", "mlp.down_proj"),
                ("post_ffw_norm", "post_feedforward_layernorm"),
            ],
        ),
        _ => (
            USUAL,
            "model.layers.",
            &[
                ("attn_norm", "input_layernorm"),
                ("attn_q", "self_attn.q_proj"),
                ("attn_k", "self_attn.k_proj"),
                ("attn_v", "self_attn.v_proj"),
                ("attn_q_norm", "self_attn.q_norm"),
                ("attn_k_norm", "self_attn.k_norm"),
                ("attn_output", "self_attn.o_proj"),
                ("ffn_norm", "post_attention_layernorm"),
                ("ffn_gate", "mlp.gate_proj"),
                ("ffn_up", "mlp.up_proj"),
                ("ffn_down", "mlp.down_proj"),
            ],
        ),
    }
}

/// A tensor as the converter stores it.
fn converted(
    architecture: &str,
    ggml: &str,
    spec: &DecoderSpec,
    shape: &[usize],
    values: Vec<f32>,
) -> GgufTensorValues {
    let is_matrix = shape.len() == 2;
    if architecture.starts_with("gemma") && ggml.ends_with("norm.weight") {
        return (shape.to_vec(), values.into_iter().map(|value| value + 1.0).collect());
    }
    if architecture == "gpt2" && is_matrix && ggml.starts_with("blk.") {
        let (rows, columns) = (shape[0], shape[1]);
        let values = &values;
        let transposed = (0..columns).flat_map(|column| (0..rows).map(move |row| values[row * columns + column]));
        return (vec![columns, rows], transposed.collect());
    }
    if architecture == "gptneox" && ggml.contains("attn_qkv") {
        let columns = if is_matrix { shape[1] } else { 1 };
        let mut stored = Vec::with_capacity(values.len());
        for part in 0..3 {
            for head in 0..spec.n_heads {
                let first = (3 * head + part) * spec.head_dim * columns;
                stored.extend_from_slice(&values[first..first + spec.head_dim * columns]);
            }
        }
        return (shape.to_vec(), stored);
    }
    (shape.to_vec(), values)
}

/// The extents and the values of a tensor.
type GgufTensorValues = (Vec<usize>, Vec<f32>);

/// The golden as a GGUF file.
fn to_gguf(architecture: &str, config: &Value, spec: &DecoderSpec, weights: &Weights) -> GgufWriter {
    let mut gguf = GgufWriter::default();
    for (key, value) in tiny_llama().metadata.into_iter().filter(|(key, _)| key.starts_with("tokenizer.")) {
        gguf.set(&key, value);
    }
    gguf.set("general.architecture", GgufValue::String(architecture.to_owned()));
    write_metadata(&mut gguf, architecture, config, spec);
    let (outer, blocks, modules) = names(architecture);
    let mut add = |ggml: String, name: String| {
        let Some(shape) = weights.shape(&name) else { return };
        let values = weights.tensor(&name, shape).unwrap().to_f32_vec();
        let (shape, values) = converted(architecture, &ggml, spec, shape, values);
        gguf.tensor(&ggml, &shape, &values);
    };
    for part in ["weight", "bias"] {
        for (ggml, name) in outer {
            add(format!("{ggml}.{part}"), format!("{name}.{part}"));
        }
        for layer in 0..spec.n_layers {
            for (ggml, name) in modules {
                add(format!("blk.{layer}.{ggml}.{part}"), format!("{blocks}{layer}.{name}.{part}"));
            }
        }
    }
    gguf
}

fn write_metadata(gguf: &mut GgufWriter, architecture: &str, config: &Value, spec: &DecoderSpec) {
    let mut set = |name: &str, value: GgufValue| {
        gguf.set(&format!("{architecture}.{name}"), value);
    };
    let count = |count: usize| GgufValue::Unsigned(count as u64);
    let single = |number: f64| GgufValue::Float32(number as f32);
    let is_gemma = architecture.starts_with("gemma");
    set("context_length", count(spec.max_position_embeddings));
    set("embedding_length", count(spec.hidden_size));
    set("block_count", count(spec.n_layers));
    set("feed_forward_length", count(spec.intermediate_size));
    set("attention.head_count", count(spec.n_heads));
    if ["gptneox", "gpt2"].contains(&architecture) {
        set("attention.layer_norm_epsilon", GgufValue::Float32(spec.norm.eps));
    } else {
        set("attention.head_count_kv", count(spec.n_kv_heads));
        set("attention.layer_norm_rms_epsilon", GgufValue::Float32(spec.norm.eps));
    }
    if is_gemma || architecture == "qwen3" {
        set("attention.key_length", count(spec.head_dim));
        set("attention.value_length", count(spec.head_dim));
    }
    if architecture == "gptneox" {
        set("use_parallel_residual", GgufValue::Bool(spec.parallel_residual));
    }
    if let Some(cap) = spec.attention.soft_cap {
        set("attn_logit_softcapping", GgufValue::Float32(cap));
    }
    if let Some(window) = spec.layers.iter().find_map(|layer| layer.window) {
        set("attention.sliding_window", count(window));
    }
    // Otherwise the windows are those of the family.
    if is_gemma && config.get("layer_types").is_some() {
        let slides = spec.layers.iter().map(|layer| GgufValue::Bool(layer.window.is_some())).collect();
        set("attention.sliding_window_pattern", GgufValue::Array(slides));
    }
    let Some(rope) = spec.ropes.first() else { return };
    set("rope.freq_base", single(rope.theta));
    if let Some(local) = spec.ropes.get(1).filter(|local| local.theta != 10_000.0) {
        set("rope.freq_base_swa", single(local.theta));
    }
    if ["gptneox", "phi3"].contains(&architecture) {
        set("rope.dimension_count", count(rope.rotary_dim));
    }
    match &rope.scaling {
        RopeScaling::Default => {}
        RopeScaling::Linear { factor } => {
            set("rope.scaling.type", GgufValue::String("linear".to_owned()));
            set("rope.scaling.factor", single(*factor));
        }
        RopeScaling::Yarn { factor, original_context, .. } => {
            set("rope.scaling.type", GgufValue::String("yarn".to_owned()));
            set("rope.scaling.factor", single(*factor));
            set("rope.scaling.original_context_length", count(*original_context as usize));
        }
        RopeScaling::LongRope { short_factor, long_factor, original_context, attention_factor } => {
            set("rope.scaling.original_context_length", count(*original_context as usize));
            set("rope.scaling.attn_factor", single(*attention_factor));
            for (name, divisors) in [("short", short_factor), ("long", long_factor)] {
                let divisors: Vec<f32> = divisors.iter().map(|divisor| *divisor as f32).collect();
                gguf.tensor(&format!("rope_factors_{name}.weight"), &[divisors.len()], &divisors);
            }
        }
        other => unreachable!("no case has {other:?}"),
    }
}

/// The configuration of a golden, with the settings that the converter drops as the import fills them in.
fn original_config(golden: &Path) -> Value {
    let mut config: Value = serde_json::from_slice(&std::fs::read(golden.join("config.json")).unwrap()).unwrap();
    if config.get("query_pre_attn_scalar").is_some() {
        config["query_pre_attn_scalar"] = config["head_dim"].clone();
    }
    config
}

#[test]
fn goldens_of_families_survive_conversion_and_import() {
    for (architecture, name) in CASES {
        let golden = families_directory().join(name);
        let config = original_config(&golden);
        let spec = DecoderSpec::parse(&config.to_string(), name).unwrap();
        let weights = Weights::open(&golden, &spec).unwrap();
        let gguf = to_gguf(architecture, &config, &spec, &weights);
        let n_weights = gguf.tensors.iter().filter(|(tensor, ..)| !tensor.starts_with("rope_factors")).count();

        let dir = TempDir::new().unwrap();
        let out = dir.path().join("out");
        let summary = import_gguf(&gguf.write(dir.path(), "model.gguf"), &out, false, &mut |_, _| {}).unwrap();
        assert!(summary.warnings.is_empty(), "{name}: {:?}", summary.warnings);
        let text = std::fs::read_to_string(out.join("config.json")).unwrap();
        let imported = DecoderSpec::parse(&text, name).unwrap();
        assert_eq!(imported, spec, "{name}");

        let tensors = Weights::open(&out, &imported).unwrap();
        assert_eq!(tensors.names().len(), n_weights, "{name}");
        for tensor in tensors.names() {
            let shape = tensors.shape(tensor).unwrap();
            let found = tensors.tensor(tensor, shape).unwrap().to_f32_vec();
            let original = weights.tensor(tensor, shape).unwrap().to_f32_vec();
            let is_shifted = architecture.starts_with("gemma") && tensor.ends_with("norm.weight");
            // The converter has rounded the sum with 1.
            let rounded = |weight: &f32| if is_shifted { (weight + 1.0) - 1.0 } else { *weight };
            let expected: Vec<f32> = original.iter().map(rounded).collect();
            assert_eq!(found, expected, "{name}: {tensor}");
            assert!(found.iter().zip(&original).all(|(found, original)| (found - original).abs() <= 2e-7), "{name}");
        }
    }
}
