//! Settings and layouts of each architecture, and models that are refused by name. `tests/imported_architectures` compares whole
//! models with the goldens of their families.

use actbench_kernels::DType;
use safetensors::SafeTensors;
use safetensors::tensor::Dtype;
use tempfile::TempDir;

use super::super::gguf::test_writer::{GgufWriter, tiny_model};
use super::super::gguf::{GgmlType, GgufValue};
use super::super::import_gguf;
use super::*;

/// The `config.json` and the weights of an imported model.
struct Imported {
    config: Json,
    weights: Vec<u8>,
}

impl Imported {
    fn of(gguf: &GgufWriter) -> Imported {
        let dir = TempDir::new().unwrap();
        let out = dir.path().join("out");
        let summary = import_gguf(&gguf.write(dir.path(), "model.gguf"), &out, false, &mut |_, _| {}).unwrap();
        assert!(summary.warnings.is_empty(), "{:?}", summary.warnings);
        Imported {
            config: serde_json::from_slice(&std::fs::read(out.join("config.json")).unwrap()).unwrap(),
            weights: std::fs::read(out.join("model.safetensors")).unwrap(),
        }
    }

    /// A tensor whose values are exact in bfloat16.
    fn tensor(&self, name: &str) -> (Vec<usize>, Vec<f32>) {
        let tensors = SafeTensors::deserialize(&self.weights).unwrap();
        let tensor = tensors.tensor(name).unwrap();
        assert_eq!(tensor.dtype(), Dtype::BF16, "{name}");
        (tensor.shape().to_vec(), DType::Bf16.to_f32_vec(tensor.data()))
    }

    /// The first element of each row of a matrix, or a vector.
    fn first_column(&self, name: &str) -> Vec<f32> {
        let (shape, values) = self.tensor(name);
        values.into_iter().step_by(shape[1..].iter().product()).collect()
    }
}

fn imported(architecture: &str, change: impl FnOnce(&mut GgufWriter)) -> Imported {
    let mut gguf = tiny_model(architecture, 1);
    change(&mut gguf);
    Imported::of(&gguf)
}

/// The error of importing a changed model, with its path replaced by `FILE`.
fn refused(architecture: &str, change: impl FnOnce(&mut GgufWriter)) -> String {
    let mut gguf = tiny_model(architecture, 1);
    change(&mut gguf);
    let dir = TempDir::new().unwrap();
    let path = gguf.write(dir.path(), "model.gguf");
    let error = import_gguf(&path, &dir.path().join("out"), false, &mut |_, _| {}).unwrap_err();
    assert_eq!(error.exit_code(), 2, "{error}");
    error.to_string().replace(&path.display().to_string(), "FILE")
}

fn text(text: &str) -> GgufValue {
    GgufValue::String(text.to_owned())
}

#[test]
fn known_names_are_translated_unknown_are_not() {
    let name_of = |name: &str| llama::ARCHITECTURE.tensors.find(name).map(|(name, _)| name);
    assert_eq!(name_of("blk.17.attn_k.weight").unwrap(), "model.layers.17.self_attn.k_proj.weight");
    assert_eq!(name_of("blk.0.ffn_norm.weight").unwrap(), "model.layers.0.post_attention_layernorm.weight");
    assert_eq!(name_of("output.weight").unwrap(), "lm_head.weight");
    for unknown in ["blk.0.ffn_gate_inp.weight", "blk.x.attn_k.weight", "blk.0", "blk.0.attn_norm.bias", ""] {
        assert_eq!(name_of(unknown), None, "{unknown}");
    }
}

#[test]
fn every_architecture_has_its_model_type() {
    let expected = [
        ("llama", "llama", "LlamaForCausalLM"),
        ("qwen2", "qwen2", "Qwen2ForCausalLM"),
        ("qwen3", "qwen3", "Qwen3ForCausalLM"),
        ("gemma", "gemma", "GemmaForCausalLM"),
        ("gemma2", "gemma2", "Gemma2ForCausalLM"),
        ("gemma3", "gemma3_text", "Gemma3ForCausalLM"),
        ("phi3", "phi3", "Phi3ForCausalLM"),
        ("gptneox", "gpt_neox", "GPTNeoXForCausalLM"),
        ("gpt2", "gpt2", "GPT2LMHeadModel"),
    ];
    assert_eq!(expected.map(|(name, ..)| name), ARCHITECTURES.map(|architecture| architecture.name));
    for (name, model_type, class) in expected {
        let config = imported(name, |_| {}).config;
        assert_eq!(config["model_type"], model_type);
        assert_eq!(config["architectures"][0], class);
        assert_eq!(config["vocab_size"], 7, "{name}");
        assert_eq!(config["bos_token_id"], 1, "{name}");
        assert_eq!(config["tie_word_embeddings"], true, "{name}");
        assert_eq!(config["torch_dtype"], "bfloat16", "{name}");
        let has_head = |gguf: &mut GgufWriter| {
            gguf.tensor("output.weight", &[7, 8], &[0.5; 56]);
        };
        let untied = imported(name, has_head);
        assert_eq!(untied.config["tie_word_embeddings"], false, "{name}");
        assert_eq!(untied.tensor("lm_head.weight").0, [7, 8], "{name}");
    }
}

#[test]
fn only_llama_has_rows_in_another_order() {
    assert_eq!(imported("llama", |_| {}).first_column("model.layers.0.self_attn.k_proj.weight"), [0., 2., 1., 3.]);
    for name in ["qwen2", "qwen3", "gemma", "gemma2", "gemma3"] {
        let model = imported(name, |_| {});
        assert_eq!(model.first_column("model.layers.0.self_attn.k_proj.weight"), [0., 1., 2., 3.], "{name}");
        assert_eq!(model.config["num_key_value_heads"], 1, "{name}");
        assert_eq!(model.config["head_dim"], 4, "{name}");
    }
}

#[test]
fn gpt_neox_rows_are_head_by_head() {
    let model = imported("gptneox", |gguf| {
        let rows: Vec<f32> = (0..24).map(|row| row as f32).collect();
        gguf.tensor("blk.0.attn_qkv.bias", &[24], &rows);
    });
    // Two heads of 4: queries are rows 0 to 7, keys 8 to 15, values 16 to 23.
    let expected: Vec<f32> =
        [0, 8, 16, 4, 12, 20].into_iter().flat_map(|first| (first..first + 4).map(|row| row as f32)).collect();
    for part in ["weight", "bias"] {
        assert_eq!(model.first_column(&format!("gpt_neox.layers.0.attention.query_key_value.{part}")), expected);
    }
    assert_eq!(model.config["rotary_pct"], 1.0);
    assert_eq!(model.config["rotary_emb_base"], 10_000.0);
    assert_eq!(model.config["use_parallel_residual"], true);
    assert_eq!(model.config["attention_bias"], true);
    assert_eq!(model.config["hidden_act"], "gelu");
    let serial = imported("gptneox", |gguf| {
        gguf.set("gptneox.use_parallel_residual", GgufValue::Bool(false))
            .set("gptneox.rope.dimension_count", GgufValue::Unsigned(2));
    });
    assert_eq!(serial.config["use_parallel_residual"], false);
    assert_eq!(serial.config["rotary_pct"], 0.5);
}

#[test]
fn gpt2_matrices_are_transposed_and_positions_counted() {
    let model = imported("gpt2", |_| {});
    let (shape, values) = model.tensor("transformer.h.0.attn.c_attn.weight");
    assert_eq!(shape, [8, 24]);
    let row: Vec<f32> = (0..24).map(|column| column as f32).collect();
    assert!(values.chunks_exact(24).all(|found| found == row));
    assert_eq!(model.tensor("transformer.h.0.mlp.c_proj.weight").0, [3, 8]);
    assert_eq!(model.tensor("transformer.h.0.mlp.c_fc.bias").0, [3]);
    // The context length of the file is 64, and its table has 16 rows.
    assert_eq!(model.config["n_positions"], 16);
    assert_eq!(model.config["n_inner"], 3);
    assert_eq!(model.config["layer_norm_epsilon"], 1e-5);
}

#[test]
fn quantized_matrix_is_transposed_whole() {
    let mut gguf = tiny_model("gpt2", 1);
    let name = "blk.0.ffn_down.weight";
    gguf.set("gpt2.feed_forward_length", GgufValue::Unsigned(32))
        .tensor("blk.0.ffn_up.weight", &[32, 8], &[1.0; 256])
        .tensor("blk.0.ffn_up.bias", &[32], &[1.0; 32]);
    gguf.tensors.retain(|(other, ..)| other != name);
    // Scale 1, so that element `i` of row `r` is `i + r`.
    let row = |row: u8| [&[0x00_u8, 0x3c][..], &(0..32).map(|index| index + row).collect::<Vec<u8>>()].concat();
    let blocks = (0..8).flat_map(row).collect();
    gguf.tensors.push((name.to_owned(), vec![8, 32], GgmlType::Q8_0, blocks));
    let model = Imported::of(&gguf);
    let tensors = SafeTensors::deserialize(&model.weights).unwrap();
    let tensor = tensors.tensor("transformer.h.0.mlp.c_proj.weight").unwrap();
    assert_eq!((tensor.dtype(), tensor.shape()), (Dtype::F32, &[32, 8][..]));
    let expected: Vec<f32> = (0..32).flat_map(|index| (0..8).map(move |row| (index + row) as f32)).collect();
    assert_eq!(DType::F32.to_f32_vec(tensor.data()), expected);
}

#[test]
fn gemma_norms_lose_the_added_one() {
    for (name, norm) in [
        ("gemma", "model.layers.0.post_attention_layernorm.weight"),
        ("gemma2", "model.layers.0.pre_feedforward_layernorm.weight"),
        ("gemma2", "model.layers.0.post_feedforward_layernorm.weight"),
        ("gemma3", "model.layers.0.self_attn.q_norm.weight"),
        ("gemma3", "model.norm.weight"),
    ] {
        assert!(imported(name, |_| {}).first_column(norm).iter().all(|&weight| weight == 0.0), "{name} {norm}");
    }
    let qwen = imported("qwen3", |_| {});
    assert_eq!(qwen.first_column("model.layers.0.self_attn.q_norm.weight"), [1.0; 4]);
    // A difference that has more digits than bfloat16 stays single.
    let model = imported("gemma", |gguf| {
        gguf.tensor("output_norm.weight", &[8], &[1.1; 8]);
    });
    let tensors = SafeTensors::deserialize(&model.weights).unwrap();
    let tensor = tensors.tensor("model.norm.weight").unwrap();
    assert_eq!(tensor.dtype(), Dtype::F32);
    assert_eq!(DType::F32.to_f32_vec(tensor.data()), [1.1f32 - 1.0; 8]);
}

#[test]
fn gemma_scores_are_scaled_as_in_llama_cpp() {
    let scalar = |name: &str, n_layers: usize| {
        let mut gguf = tiny_model(name, n_layers);
        // A head of 4 in a width of 8: the largest models divide by `hidden_size / n_heads` instead, 8.
        gguf.set(&format!("{name}.attention.head_count"), GgufValue::Unsigned(1))
            .set(&format!("{name}.attention.key_length"), GgufValue::Unsigned(4))
            .set(&format!("{name}.attention.value_length"), GgufValue::Unsigned(4));
        for layer in 0..n_layers {
            gguf.tensor(&format!("blk.{layer}.attn_q.weight"), &[4, 8], &[1.0; 32]);
            gguf.tensor(&format!("blk.{layer}.attn_output.weight"), &[8, 4], &[1.0; 32]);
        }
        Imported::of(&gguf).config["query_pre_attn_scalar"].as_u64()
    };
    assert_eq!((scalar("gemma2", 1), scalar("gemma2", 46)), (Some(4), Some(8)));
    assert_eq!((scalar("gemma3", 1), scalar("gemma3", 62)), (Some(4), Some(8)));
}

#[test]
fn windows_and_caps_of_gemma_are_read() {
    let plain = imported("gemma2", |_| {}).config;
    assert!(["sliding_window", "layer_types", "attn_logit_softcapping"].iter().all(|key| plain.get(key).is_none()));
    let own = imported("gemma2", |gguf| {
        gguf.set("gemma2.attention.sliding_window", GgufValue::Unsigned(5))
            .set("gemma2.attn_logit_softcapping", GgufValue::Float32(20.0))
            .set("gemma2.final_logit_softcapping", GgufValue::Float32(30.0))
            .set("gemma2.attention.sliding_window_pattern", GgufValue::Array(vec![GgufValue::Bool(false)]));
    })
    .config;
    assert_eq!(own["sliding_window"], 5);
    assert_eq!(own["attn_logit_softcapping"], 20.0);
    assert_eq!(own["layer_types"], serde_json::json!(["full_attention"]));
    let gemma3 = imported("gemma3", |gguf| {
        gguf.set("gemma3.rope.scaling.type", text("linear"))
            .set("gemma3.rope.scaling.factor", GgufValue::Float32(8.0))
            .set("gemma3.rope.freq_base", GgufValue::Float32(1e6));
    })
    .config;
    assert_eq!(gemma3["sliding_window"], 8);
    assert_eq!(gemma3["sliding_window_pattern"], 6);
    assert_eq!(gemma3["rope_theta"], 1e6);
    assert_eq!(gemma3["rope_local_base_freq"], 1e4);
    assert_eq!(gemma3["rope_scaling"], serde_json::json!({"rope_type": "linear", "factor": 8.0}));
    let by_period = imported("gemma3", |gguf| {
        gguf.set("gemma3.attention.sliding_window_pattern", GgufValue::Unsigned(2))
            .set("gemma3.rope.freq_base_swa", GgufValue::Float32(2e4));
    })
    .config;
    assert_eq!(by_period["layer_types"], serde_json::json!(["sliding_attention"]));
    assert_eq!(by_period["rope_local_base_freq"], 2e4);
}

#[test]
fn yarn_of_qwen_is_read() {
    let yarn = |gguf: &mut GgufWriter| {
        gguf.set("qwen2.rope.scaling.type", text("yarn"))
            .set("qwen2.rope.scaling.factor", GgufValue::Float32(4.0))
            .set("qwen2.rope.scaling.original_context_length", GgufValue::Unsigned(32));
    };
    let expected = serde_json::json!({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32});
    assert_eq!(imported("qwen2", yarn).config["rope_scaling"], expected);
    let error = refused("qwen2", |gguf| {
        yarn(gguf);
        gguf.set("qwen2.rope.scaling.yarn_ext_factor", GgufValue::Float32(0.0));
    });
    assert!(error.contains("the extrapolation factor 0"), "{error}");
    let error = refused("qwen2", |gguf| {
        yarn(gguf);
        gguf.set("qwen2.rope.scaling.yarn_attn_factor", GgufValue::Float32(1.0));
    });
    assert!(error.contains("an attention factor (yarn_attn_factor)"), "{error}");
}

#[test]
fn longrope_of_phi3_is_read_from_tensors() {
    let longrope = |gguf: &mut GgufWriter| {
        gguf.set("phi3.rope.scaling.original_context_length", GgufValue::Unsigned(16))
            .set("phi3.rope.scaling.attn_factor", GgufValue::Float32((1.5f32).sqrt()))
            .set("phi3.attention.sliding_window", GgufValue::Unsigned(0))
            .tensor("rope_factors_short.weight", &[2], &[1.0, 1.1])
            .tensor("rope_factors_long.weight", &[2], &[1.0, 2.9]);
    };
    let config = imported("phi3", longrope).config;
    // 64 positions are 4 times 16, and ln 4 / ln 16 is one half: the attention factor is the default.
    let expected = serde_json::json!({
        "type": "longrope", "rope_type": "longrope", "short_factor": [1.0, 1.1], "long_factor": [1.0, 2.9]
    });
    assert_eq!(config["rope_scaling"], expected);
    assert_eq!(config["original_max_position_embeddings"], 16);
    assert_eq!(config["sliding_window"], Json::Null);
    assert_eq!(config["partial_rotary_factor"], 1.0);
    let other = imported("phi3", |gguf| {
        longrope(gguf);
        gguf.set("phi3.rope.scaling.attn_factor", GgufValue::Float32(1.25));
    });
    assert_eq!(other.config["rope_scaling"]["attention_factor"], 1.25);
    let half = refused("phi3", |gguf| {
        longrope(gguf);
        gguf.tensors.retain(|(name, ..)| name != "rope_factors_long.weight");
    });
    assert!(half.contains("has LongRoPE scaling without"), "{half}");
    let short = refused("phi3", |gguf| {
        longrope(gguf);
        gguf.tensor("rope_factors_long.weight", &[1], &[1.0]);
    });
    assert!(short.ends_with("tensor 'rope_factors_long.weight' has shape [1], expected [2]"), "{short}");
    let plain = imported("phi3", |_| {}).config;
    assert_eq!(plain["rope_scaling"], Json::Null);
}

#[test]
fn model_that_family_cannot_compute_is_refused() {
    let set = |architecture: &str, key: &str, value: GgufValue| {
        refused(architecture, |gguf| {
            gguf.set(&format!("{architecture}.{key}"), value);
        })
    };
    let unset = |architecture: &str, key: &str| {
        refused(architecture, |gguf| {
            gguf.unset(&format!("{architecture}.{key}"));
        })
    };
    insta::assert_snapshot!(set("qwen2", "expert_count", GgufValue::Unsigned(8)), @"FILE: is a mixture of experts, which is not supported");
    insta::assert_snapshot!(set("qwen3", "attention.sliding_window", GgufValue::Unsigned(63)), @"FILE: has 'qwen3.attention.sliding_window' = 63, which changes the model's computation and is not supported");
    insta::assert_snapshot!(set("qwen2", "rope.dimension_count", GgufValue::Unsigned(2)), @"FILE: applies rotary embedding to 2 of 4 elements of a head, which is not supported");
    insta::assert_snapshot!(set("gemma", "attn_logit_softcapping", GgufValue::Float32(50.0)), @"FILE: has 'gemma.attn_logit_softcapping' = 50, which changes the model's computation and is not supported");
    insta::assert_snapshot!(set("gemma2", "attn_logit_softcapping", GgufValue::Float32(0.0)), @"FILE: metadata 'gemma2.attn_logit_softcapping' is 0, it must be positive");
    insta::assert_snapshot!(set("gemma3", "attention.sliding_window_pattern", GgufValue::Array(vec![GgufValue::Bool(true); 2])), @"FILE: metadata 'gemma3.attention.sliding_window_pattern' is not a list of 1 booleans");
    insta::assert_snapshot!(unset("gemma3", "attention.sliding_window"), @"FILE: has no metadata 'gemma3.attention.sliding_window'");
    insta::assert_snapshot!(unset("gemma3", "rope.freq_base"), @"FILE: has no metadata 'gemma3.rope.freq_base'");
    insta::assert_snapshot!(set("phi3", "attention.key_length", GgufValue::Unsigned(6)), @"FILE: has 2 heads of 6 elements in a width of 8");
    insta::assert_snapshot!(set("phi3", "rope.scaling.type", text("linear")), @"FILE: has rotary scaling of type 'linear', which is not supported");
    insta::assert_snapshot!(set("gptneox", "attention.head_count_kv", GgufValue::Unsigned(1)), @"FILE: has 2 query heads and 1 key/value heads, which the architecture 'gptneox' does not support");
    insta::assert_snapshot!(unset("gpt2", "attention.layer_norm_epsilon"), @"FILE: has no metadata 'gpt2.attention.layer_norm_epsilon'");
    let without =
        |architecture: &str, name: &str| refused(architecture, |gguf| gguf.tensors.retain(|(other, ..)| other != name));
    insta::assert_snapshot!(without("gpt2", "position_embd.weight"), @"FILE: has no tensor 'position_embd.weight'");
    insta::assert_snapshot!(without("qwen2", "blk.0.attn_k.bias"), @"FILE: has no tensor for 'model.layers.0.self_attn.k_proj.bias'");
    let with = |architecture: &str, name: &str| {
        refused(architecture, |gguf| {
            gguf.tensor(name, &[2], &[1.0; 2]);
        })
    };
    insta::assert_snapshot!(with("qwen2", "rope_freqs.weight"), @"FILE: has a tensor 'rope_freqs.weight', which is not part of a Qwen 2 model");
    insta::assert_snapshot!(with("gpt2", "blk.0.ffn_gate.weight"), @"FILE: has a tensor 'blk.0.ffn_gate.weight', which is not part of a GPT-2 model");
    insta::assert_snapshot!(with("gemma2", "blk.0.attn_q_norm.weight"), @"FILE: has a tensor 'blk.0.attn_q_norm.weight', which is not part of a Gemma 2 model");
}
