//! Imported GGUF models: their files, and the tensors that the model loader reads from them.

use std::path::{Path, PathBuf};

use actbench_activations::Result;
use actbench_activations::import::gguf::{GgmlType, GgufValue};
use actbench_activations::import::import_gguf;
use actbench_activations::model::spec::DecoderSpec;
use actbench_activations::model::weights::Weights;
use actbench_kernels::DType;
use tempfile::TempDir;

#[path = "../src/import/gguf/test_writer.rs"]
#[allow(dead_code, clippy::unwrap_used, reason = "a test helper that the unit tests of the import share")]
mod test_writer;

mod imported_architectures;

use test_writer::{GgufWriter, tiny_llama};

fn import_into(gguf: &GgufWriter, dir: &Path) -> Result<PathBuf> {
    let out = dir.join("out");
    import_gguf(&gguf.write(dir, "model.gguf"), &out, false, &mut |_, _| {}).map(|_| out)
}

/// The weights of the imported model in `out`.
#[allow(clippy::unwrap_used)] // A helper of tests may fail as tests do.
fn open_weights(out: &Path) -> Weights {
    let text = std::fs::read_to_string(out.join("config.json")).unwrap();
    Weights::open(out, &DecoderSpec::parse(&text, "config.json").unwrap()).unwrap()
}

#[test]
fn imported_model_has_rows_in_order() {
    let dir = TempDir::new().unwrap();
    let file = tiny_llama().write(dir.path(), "model.gguf");
    let out = dir.path().join("out");
    let mut steps = Vec::new();
    let summary = import_gguf(&file, &out, false, &mut |done, total| steps.push((done, total))).unwrap();
    assert_eq!(summary.name.as_deref(), Some("A tiny Llama"));
    assert_eq!((summary.n_tensors, steps.len()), (11, 12));
    assert_eq!(summary.n_parameters, 7 * 8 + 8 * 8 * 2 + 2 * 4 * 8 + 3 * 3 * 8 + 3 * 8);
    insta::assert_snapshot!(std::fs::read_to_string(out.join("config.json")).unwrap(), @r#"
{
  "architectures": [
    "LlamaForCausalLM"
  ],
  "model_type": "llama",
  "vocab_size": 7,
  "hidden_size": 8,
  "intermediate_size": 3,
  "num_hidden_layers": 1,
  "num_attention_heads": 2,
  "num_key_value_heads": 1,
  "head_dim": 4,
  "hidden_act": "silu",
  "max_position_embeddings": 64,
  "rms_norm_eps": 0.00001,
  "rope_theta": 10000.0,
  "rope_scaling": null,
  "tie_word_embeddings": true,
  "attention_bias": false,
  "mlp_bias": false,
  "bos_token_id": 1,
  "eos_token_id": 0,
  "pad_token_id": null,
  "torch_dtype": "bfloat16"
}
"#);
    insta::assert_snapshot!(std::fs::read_to_string(out.join("tokenizer_config.json")).unwrap(), @r#"
{
  "tokenizer_class": "PreTrainedTokenizerFast",
  "model_max_length": 64,
  "clean_up_tokenization_spaces": false,
  "add_bos_token": false,
  "add_eos_token": false,
  "bos_token": "<|im|>",
  "eos_token": "<|end|>",
  "unk_token": null,
  "pad_token": null,
  "chat_template": "{{ messages }}"
}
"#);
    let weights = open_weights(&out);
    let first_column = |name: &str, shape: &[usize]| -> Vec<f32> {
        let tensor = weights.tensor(name, shape).unwrap();
        assert_eq!(tensor.dtype(), DType::Bf16);
        tensor.to_f32_vec().into_iter().step_by(shape[1]).collect()
    };
    assert_eq!(first_column("model.layers.0.self_attn.q_proj.weight", &[8, 8]), [0., 2., 1., 3., 4., 6., 5., 7.]);
    assert_eq!(first_column("model.layers.0.self_attn.k_proj.weight", &[4, 8]), [0., 2., 1., 3.]);
    assert_eq!(first_column("model.layers.0.self_attn.v_proj.weight", &[4, 8]), [0., 1., 2., 3.]);
    assert_eq!(first_column("model.layers.0.mlp.down_proj.weight", &[8, 3]), [0., 1., 2., 3., 4., 5., 6., 7.]);

    let error = import_gguf(&file, &out, false, &mut |_, _| {}).unwrap_err();
    assert!(error.to_string().ends_with("use --force to replace the model in it"), "{error}");
    import_gguf(&file, &out, true, &mut |_, _| {}).unwrap();
    assert_eq!(std::fs::read_dir(&out).unwrap().count(), 4);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "the GGUF file and the model");
}

#[test]
fn no_weight_is_rounded() {
    let dir = TempDir::new().unwrap();
    let mut gguf = tiny_llama();
    let values: Vec<f32> = (0..56).map(|i| 1.0 / (i as f32 + 3.0)).collect();
    gguf.tensor("token_embd.weight", &[7, 8], &values);
    let halves: Vec<f32> = (0..24).map(|i| 1.0 + i as f32 / 1024.0).collect();
    let bytes = DType::F16.from_f32_slice(&halves);
    gguf.tensors.retain(|(name, ..)| name != "blk.0.ffn_up.weight");
    gguf.tensors.push(("blk.0.ffn_up.weight".to_owned(), vec![3, 8], GgmlType::F16, bytes));
    let out = import_into(&gguf, dir.path()).unwrap();
    let weights = open_weights(&out);
    let read = |name: &str, shape: &[usize]| weights.tensor(name, shape).unwrap();
    let embedding = read("model.embed_tokens.weight", &[7, 8]);
    assert_eq!((embedding.dtype(), embedding.to_f32_vec()), (DType::F32, values));
    let up = read("model.layers.0.mlp.up_proj.weight", &[3, 8]);
    assert_eq!((up.dtype(), up.to_f32_vec()), (DType::F16, halves));
    assert_eq!(read("model.norm.weight", &[8]).dtype(), DType::Bf16, "ones are exact in bfloat16");
}

#[test]
fn biases_and_untied_head_are_imported() {
    let dir = TempDir::new().unwrap();
    let mut gguf = tiny_llama();
    gguf.tensor("output.weight", &[7, 8], &[0.5; 56]);
    for (name, width) in [("attn_q", 8), ("attn_k", 4), ("attn_v", 4), ("attn_output", 8)] {
        let values: Vec<f32> = (0..width).map(|i| i as f32).collect();
        gguf.tensor(&format!("blk.0.{name}.bias"), &[width], &values);
    }
    let out = import_into(&gguf, dir.path()).unwrap();
    let config: serde_json::Value = serde_json::from_slice(&std::fs::read(out.join("config.json")).unwrap()).unwrap();
    assert_eq!(config["attention_bias"], true);
    assert_eq!(config["tie_word_embeddings"], false);
    let weights = open_weights(&out);
    let bias = weights.tensor("model.layers.0.self_attn.q_proj.bias", &[8]).unwrap();
    assert_eq!(bias.to_f32_vec(), [0., 2., 1., 3., 4., 6., 5., 7.]);
    assert!(weights.contains("lm_head.weight"));
}
