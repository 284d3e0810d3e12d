//! Files in the shape of published models: what each family reads, and its defaults.

use actbench_kernels::{Activation, RouteRule};
use serde_json::{Value, json};

use super::super::read;
use crate::model::rope_spec::{RopeScaling, RopeSpec};
use crate::model::spec::{DecoderSpec, ExpertsSpec, LayerSpec, NormKind, NormPlacement, QueryKeyNorm};
use crate::model::tensor_names::{Part, Stacking};

/// Parses a file that gives no warning, and checks that its family names the parts that it has.
fn parsed(config: &Value) -> DecoderSpec {
    let (spec, warnings) = read(&config.to_string(), "config.json").unwrap();
    assert_eq!(warnings, [""; 0]);
    let has = |part: Part| spec.names.module(0, part).is_some();
    let (has_experts, has_mlps) = (["mixtral", "qwen3_moe"].contains(&spec.family), spec.family != "mixtral");
    for (part, expected) in [
        (Part::AttentionNorm, spec.norm_placement.has_inputs()),
        (Part::MlpNorm, spec.norm_placement.has_inputs()),
        (Part::AttentionOutputNorm, spec.norm_placement.has_outputs()),
        (Part::MlpOutputNorm, spec.norm_placement.has_outputs()),
        (Part::QueryNorm, spec.attention.query_key_norm != QueryKeyNorm::None),
        (Part::KeyNorm, spec.attention.query_key_norm != QueryKeyNorm::None),
        (Part::Gate, spec.mlp.gated && has_mlps),
        (Part::Up, has_mlps),
        (Part::Down, has_mlps),
        (Part::Router, has_experts),
        (Part::ExpertGate, has_experts),
        (Part::ExpertUp, has_experts),
        (Part::ExpertDown, has_experts),
    ] {
        assert_eq!(has(part), expected, "{part:?} of {}", spec.family);
    }
    let always = [Part::Query, Part::Key, Part::Value, Part::AttentionOutput];
    assert!(always.into_iter().all(has), "{}", spec.family);
    assert_eq!(spec.layers.len(), spec.n_layers);
    assert!(spec.layers.iter().all(|layer| layer.rope.is_none_or(|rope| rope < spec.ropes.len())));
    spec
}

/// `config` with the keys of `more` added or replaced.
fn with(config: &Value, more: &Value) -> Value {
    let mut config = config.clone();
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    config
}

fn plain_rope(theta: f64, rotary_dim: usize) -> RopeSpec {
    RopeSpec { theta, rotary_dim, scaling: RopeScaling::Default }
}

/// The layers with a window.
fn sliding(spec: &DecoderSpec) -> Vec<usize> {
    (0..spec.n_layers).filter(|layer| spec.layers[*layer].window.is_some()).collect()
}

/// Query heads, key/value heads, width of a head.
fn heads(spec: &DecoderSpec) -> (usize, usize, usize) {
    (spec.n_heads, spec.n_kv_heads, spec.head_dim)
}

fn mistral() -> Value {
    json!({"architectures": ["MistralForCausalLM"], "model_type": "mistral", "hidden_act": "silu", "hidden_size": 4096,
        "intermediate_size": 14336, "max_position_embeddings": 32768, "num_attention_heads": 32, "num_hidden_layers": 32,
        "num_key_value_heads": 8, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "sliding_window": 4096,
        "tie_word_embeddings": false, "torch_dtype": "bfloat16", "use_cache": true, "vocab_size": 32000})
}

#[test]
fn mistral_has_a_window_in_its_first_version_alone() {
    let first = parsed(&mistral());
    assert_eq!((heads(&first), first.family), ((32, 8, 128), "mistral"));
    assert!(first.layers.iter().all(|layer| *layer == LayerSpec { window: Some(4096), rope: Some(0), experts: false }));
    let second = parsed(&with(&mistral(), &json!({"sliding_window": null, "rope_theta": 1e6})));
    assert_eq!(sliding(&second), [0; 0]);
    assert_eq!(second.ropes, [plain_rope(1e6, 128)]);
    let mut without_key = mistral();
    without_key.as_object_mut().unwrap().retain(|key, _| key != "sliding_window" && key != "num_key_value_heads");
    let without_key = parsed(&without_key);
    assert_eq!((without_key.layers[31].window, without_key.n_kv_heads), (Some(4096), 8));
}

#[test]
fn mistral_layer_types_leave_out_windows() {
    let mut types = vec!["sliding_attention"; 32];
    types[1..31].fill("full_attention");
    let windows = |more: Value| read(&with(&mistral(), &more).to_string(), "c").map(|(spec, _)| sliding(&spec));
    assert_eq!(windows(json!({"layer_types": types})).unwrap(), [0, 31]);
    assert_eq!(windows(json!({"layer_types": null})).unwrap().len(), 32);
    assert_eq!(windows(json!({"layer_types": vec!["full_attention"; 32], "sliding_window": null})).unwrap(), [0; 0]);
    let error = windows(json!({"layer_types": types, "sliding_window": null})).unwrap_err().to_string();
    insta::assert_snapshot!(error, @"c: layers of the type sliding_attention need a sliding_window");
}

fn qwen2() -> Value {
    json!({"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "attention_dropout": 0.0, "hidden_act": "silu",
        "hidden_size": 896, "intermediate_size": 4864, "max_position_embeddings": 32768, "max_window_layers": 24,
        "num_attention_heads": 14, "num_hidden_layers": 24, "num_key_value_heads": 2, "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0, "sliding_window": 32768, "tie_word_embeddings": true, "use_mrope": false,
        "use_sliding_window": false, "vocab_size": 151936})
}

#[test]
fn qwen2_has_biases_that_its_file_does_not_name() {
    let spec = parsed(&qwen2());
    assert_eq!((heads(&spec), spec.tie_word_embeddings), ((14, 2, 64), true));
    assert!(spec.attention.qkv_bias && !spec.attention.output_bias && !spec.mlp.bias);
    assert_eq!((spec.attention.scale, spec.attention.query_key_norm), (0.125, QueryKeyNorm::None));
    assert_eq!(sliding(&spec), [0; 0]);
}

#[test]
fn qwen2_windows_start_at_a_layer_or_are_listed() {
    let windows = |more: Value| sliding(&parsed(&with(&qwen2(), &more)));
    assert_eq!(windows(json!({"use_sliding_window": true, "sliding_window": 512, "max_window_layers": 22})), [22, 23]);
    assert_eq!(windows(json!({"use_sliding_window": true, "sliding_window": null, "max_window_layers": 0})), [0; 0]);
    let mut types = vec!["full_attention"; 24];
    types[3] = "sliding_attention";
    assert_eq!(windows(json!({"use_sliding_window": true, "layer_types": types})), [3]);
    let error = read(&with(&qwen2(), &json!({"layer_types": types})).to_string(), "c").unwrap_err().to_string();
    insta::assert_snapshot!(error, @"c: layers of the type sliding_attention need a sliding_window");
}

fn qwen3() -> Value {
    json!({"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "attention_bias": false, "head_dim": 128,
        "hidden_act": "silu", "hidden_size": 1024, "intermediate_size": 3072, "max_position_embeddings": 40960,
        "max_window_layers": 28, "num_attention_heads": 16, "num_hidden_layers": 28, "num_key_value_heads": 8,
        "rms_norm_eps": 1e-6, "rope_scaling": null, "rope_theta": 1000000, "sliding_window": null,
        "tie_word_embeddings": true, "use_sliding_window": false, "vocab_size": 151936})
}

#[test]
fn qwen3_norms_each_head() {
    let spec = parsed(&qwen3());
    assert_eq!((heads(&spec), spec.query_width()), ((16, 8, 128), 2048));
    assert_eq!((spec.attention.query_key_norm, spec.attention.qkv_bias), (QueryKeyNorm::PerHead, false));
    assert_eq!(spec.names.module(2, Part::QueryNorm).as_deref(), Some("model.layers.2.self_attn.q_norm"));
    let mut without_key = qwen3();
    without_key.as_object_mut().unwrap().remove("head_dim");
    assert_eq!(parsed(&without_key), spec);
    // The scaling that its model card recommends for long contexts.
    let yarn = json!({"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}});
    let yarn = parsed(&with(&qwen3(), &yarn));
    assert!((f64::from(yarn.ropes[0].attention_factor()) - (0.1 * 4f64.ln() + 1.0)).abs() < 1e-7);
    assert_eq!(yarn.ropes[0].frequencies()[0], 1.0);
    assert_eq!(yarn.longest_row(), None);
}

/// The file of Qwen3-30B-A3B.
fn qwen3_moe() -> Value {
    json!({"architectures": ["Qwen3MoeForCausalLM"], "attention_bias": false, "attention_dropout": 0.0, "bos_token_id": 151643,
        "decoder_sparse_step": 1, "eos_token_id": 151645, "head_dim": 128, "hidden_act": "silu", "hidden_size": 2048,
        "initializer_range": 0.02, "intermediate_size": 6144, "max_position_embeddings": 40960, "max_window_layers": 48,
        "mlp_only_layers": [], "model_type": "qwen3_moe", "moe_intermediate_size": 768, "norm_topk_prob": true,
        "num_attention_heads": 32, "num_experts": 128, "num_experts_per_tok": 8, "num_hidden_layers": 48,
        "num_key_value_heads": 4, "output_router_logits": false, "rms_norm_eps": 1e-6, "rope_scaling": null,
        "rope_theta": 1000000.0, "router_aux_loss_coef": 0.001, "sliding_window": null, "tie_word_embeddings": false,
        "torch_dtype": "bfloat16", "use_cache": true, "use_sliding_window": false, "vocab_size": 151936})
}

fn with_experts(spec: &DecoderSpec) -> Vec<usize> {
    (0..spec.n_layers).filter(|layer| spec.experts_of(*layer).is_some()).collect()
}

#[test]
fn qwen3_moe_has_experts_where_its_keys_say() {
    let spec = parsed(&qwen3_moe());
    let rule = RouteRule { top_k: 8, renormalize: true, rounded: true };
    assert_eq!(spec.experts, Some(ExpertsSpec { n: 128, intermediate_size: 768, rule }));
    assert_eq!((heads(&spec), spec.attention.query_key_norm), ((32, 4, 128), QueryKeyNorm::PerHead));
    assert_eq!((with_experts(&spec).len(), sliding(&spec)), (48, vec![]));
    assert_eq!(spec.names.module(2, Part::Router).as_deref(), Some("model.layers.2.mlp.gate"));
    assert_eq!(
        spec.names.expert_module(2, 17, Part::ExpertUp).as_deref(),
        Some("model.layers.2.mlp.experts.17.up_proj")
    );
    let experts = |more: Value| with_experts(&parsed(&with(&qwen3_moe(), &more)));
    assert_eq!(experts(json!({"decoder_sparse_step": 20})), [19, 39]);
    assert_eq!(experts(json!({"decoder_sparse_step": 20, "mlp_only_layers": [0, 19]})), [39]);
    assert_eq!(experts(json!({"mlp_only_layers": null})).len(), 48);
    assert_eq!(experts(json!({"num_experts": 0})), [0; 0]);
    let spelled =
        json!({"num_local_experts": 128, "norm_topk_prob": false, "use_sliding_window": true, "sliding_window": 512});
    let other = parsed(&with(&qwen3_moe(), &spelled));
    assert!(!other.experts.unwrap().rule.renormalize);
    assert_eq!(sliding(&other).len(), 48);
    let refused = |more: Value| read(&with(&qwen3_moe(), &more).to_string(), "c").unwrap_err().to_string();
    insta::assert_snapshot!(refused(json!({"num_local_experts": 8})), @"c: num_local_experts is 8 and num_experts is 128");
    insta::assert_snapshot!(refused(json!({"num_experts": 1000})), @"c: the number of experts is 1000, it must be between 1 and 512");
    insta::assert_snapshot!(refused(json!({"num_experts_per_tok": 129})), @"c: num_experts_per_tok is 129, it must be between 1 and the number of experts, 128");
    insta::assert_snapshot!(refused(json!({"decoder_sparse_step": 0})), @"c: decoder_sparse_step is 0, it must be positive");
    insta::assert_snapshot!(refused(json!({"mlp_only_layers": [0, "1"]})), @r#"c: mlp_only_layers is [0,"1"], expected a list of layers"#);
    insta::assert_snapshot!(refused(json!({"n_routed_experts": 64})), @"c: a Qwen 3 with experts does not have n_routed_experts 64 (mixture of experts): check that the model is a Qwen 3 with experts");
    let mut cut = qwen3_moe();
    cut.as_object_mut().unwrap().remove("num_experts");
    let error = read(&cut.to_string(), "c").unwrap_err().to_string();
    insta::assert_snapshot!(error, @"c: has no num_local_experts or num_experts; download the file again");
}

/// The file of Mixtral 8x7B.
fn mixtral() -> Value {
    json!({"architectures": ["MixtralForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 1, "eos_token_id": 2,
        "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 14336,
        "max_position_embeddings": 32768, "model_type": "mixtral", "num_attention_heads": 32, "num_experts_per_tok": 2,
        "num_hidden_layers": 32, "num_key_value_heads": 8, "num_local_experts": 8, "output_router_logits": false,
        "rms_norm_eps": 1e-5, "rope_theta": 1000000.0, "router_aux_loss_coef": 0.02, "sliding_window": null,
        "tie_word_embeddings": false, "torch_dtype": "bfloat16", "use_cache": true, "vocab_size": 32000})
}

#[test]
fn mixtral_has_experts_in_every_layer() {
    let spec = parsed(&mixtral());
    let rule = RouteRule { top_k: 2, renormalize: true, rounded: false };
    assert_eq!(spec.experts, Some(ExpertsSpec { n: 8, intermediate_size: 14_336, rule }));
    assert_eq!((heads(&spec), with_experts(&spec).len(), sliding(&spec)), ((32, 8, 128), 32, vec![]));
    let module = |part| spec.names.expert_module(31, 7, part);
    assert_eq!(module(Part::Router).as_deref(), Some("model.layers.31.block_sparse_moe.gate"));
    assert_eq!(module(Part::ExpertGate).as_deref(), Some("model.layers.31.block_sparse_moe.experts.7.w1"));
    assert_eq!(module(Part::ExpertUp).as_deref(), Some("model.layers.31.block_sparse_moe.experts.7.w3"));
    assert_eq!(module(Part::ExpertDown).as_deref(), Some("model.layers.31.block_sparse_moe.experts.7.w2"));
    assert_eq!(sliding(&parsed(&with(&mixtral(), &json!({"sliding_window": 4096})))).len(), 32);
    let defaults = ["rope_theta", "num_key_value_heads", "num_experts_per_tok", "rms_norm_eps", "sliding_window"];
    let mut without_keys = mixtral();
    without_keys.as_object_mut().unwrap().retain(|key, _| !defaults.contains(&key.as_str()));
    assert_eq!(parsed(&without_keys), spec);
    // The noise of the router acts in training alone.
    assert_eq!(parsed(&with(&mixtral(), &json!({"router_jitter_noise": 0.1}))), spec);
}

fn gemma() -> Value {
    json!({"architectures": ["GemmaForCausalLM"], "model_type": "gemma", "attention_bias": false, "head_dim": 256,
        "hidden_act": "gelu", "hidden_activation": null, "hidden_size": 2048, "intermediate_size": 16384,
        "max_position_embeddings": 8192, "num_attention_heads": 8, "num_hidden_layers": 18, "num_key_value_heads": 1,
        "rms_norm_eps": 1e-6, "rope_scaling": null, "rope_theta": 10000.0, "vocab_size": 256000})
}

#[test]
fn gemma_scales_its_embedding_and_adds_1_to_norms() {
    let spec = parsed(&gemma());
    assert_eq!((heads(&spec), spec.attention.scale), ((8, 1, 256), 0.0625));
    assert_eq!((spec.norm.kind, spec.norm_placement), (NormKind::RmsPlusOne, NormPlacement::Inputs));
    assert_eq!(spec.embedding.scale, Some(2048f64.sqrt()));
    // "gelu" was a slip of the first files.
    assert_eq!((spec.mlp.activation, spec.tie_word_embeddings), (Activation::GeluTanh, true));
    assert_eq!(parsed(&with(&gemma(), &json!({"hidden_act": "gelu_pytorch_tanh"}))), spec);
    assert_eq!(parsed(&with(&gemma(), &json!({"hidden_act": null, "hidden_activation": "gelu_pytorch_tanh"}))), spec);
}

fn gemma2() -> Value {
    json!({"architectures": ["Gemma2ForCausalLM"], "model_type": "gemma2", "attention_bias": false,
        "attn_logit_softcapping": 50.0, "cache_implementation": "hybrid", "final_logit_softcapping": 30.0, "head_dim": 256,
        "hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 2304,
        "intermediate_size": 9216, "max_position_embeddings": 8192, "num_attention_heads": 8, "num_hidden_layers": 26,
        "num_key_value_heads": 4, "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
        "sliding_window": 4096, "vocab_size": 256000})
}

#[test]
fn gemma2_caps_scores_and_has_windows_in_even_layers() {
    let spec = parsed(&gemma2());
    assert_eq!((spec.attention.soft_cap, spec.attention.scale), (Some(50.0), 0.0625));
    assert_eq!(sliding(&spec), (0..26).step_by(2).collect::<Vec<_>>());
    assert_eq!((spec.layers[0].window, spec.norm_placement), (Some(4096), NormPlacement::Both));
    assert_eq!(spec.names.module(1, Part::MlpNorm).as_deref(), Some("model.layers.1.pre_feedforward_layernorm"));
    let other = parsed(&with(&gemma2(), &json!({"attn_logit_softcapping": null, "query_pre_attn_scalar": 144})));
    assert_eq!((other.attention.soft_cap, other.attention.scale), (None, 1.0 / 12.0));
    let full = parsed(&with(&gemma2(), &json!({"layer_types": vec!["full_attention"; 26], "sliding_window": null})));
    assert_eq!(sliding(&full), [0; 0]);
    let mut without_keys = gemma2();
    let defaults =
        ["attn_logit_softcapping", "query_pre_attn_scalar", "sliding_window", "hidden_activation", "head_dim"];
    without_keys.as_object_mut().unwrap().retain(|key, _| !defaults.contains(&key.as_str()));
    assert_eq!(parsed(&without_keys), spec);
}

fn gemma3_1b() -> Value {
    json!({"architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text", "attention_bias": false,
        "attn_logit_softcapping": null, "cache_implementation": "hybrid", "final_logit_softcapping": null, "head_dim": 256,
        "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 1152, "intermediate_size": 6912,
        "max_position_embeddings": 32768, "num_attention_heads": 4, "num_hidden_layers": 26, "num_key_value_heads": 1,
        "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-6, "rope_local_base_freq": 10000, "rope_scaling": null,
        "rope_theta": 1000000, "sliding_window": 512, "sliding_window_pattern": 6, "vocab_size": 262144})
}

#[test]
fn gemma3_has_a_rotary_table_for_windows() {
    let spec = parsed(&gemma3_1b());
    assert_eq!((heads(&spec), spec.attention.query_key_norm), ((4, 1, 256), QueryKeyNorm::PerHead));
    assert_eq!(spec.ropes, [plain_rope(1e6, 256), plain_rope(1e4, 256)]);
    assert_eq!(spec.layers[4], LayerSpec { window: Some(512), rope: Some(1), experts: false });
    assert_eq!(spec.layers[5], LayerSpec { window: None, rope: Some(0), experts: false });
    assert_eq!(spec.layers.iter().filter(|layer| layer.window.is_none()).count(), 4);
    // The spelling of transformers 5.
    let mut new = gemma3_1b();
    let types: Vec<&str> =
        (0..26).map(|layer| if layer % 6 == 5 { "full_attention" } else { "sliding_attention" }).collect();
    let old = ["rope_local_base_freq", "rope_scaling", "rope_theta", "sliding_window_pattern"];
    new.as_object_mut().unwrap().retain(|key, _| !old.contains(&key.as_str()));
    let ropes = json!({"full_attention": {"rope_type": "default", "rope_theta": 1000000},
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000}});
    assert_eq!(parsed(&with(&new, &json!({"layer_types": types, "rope_parameters": ropes}))), spec);
    // All settings of the tables have defaults.
    assert_eq!(parsed(&new), spec);
}

#[test]
fn gemma3_with_images_leaves_out_defaults() {
    let config = json!({"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3", "boi_token_index": 255999,
        "image_token_index": 262144, "mm_tokens_per_image": 256,
        "text_config": {"hidden_size": 2560, "intermediate_size": 10240, "model_type": "gemma3_text", "num_hidden_layers": 34,
            "rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "sliding_window": 1024},
        "vision_config": {"hidden_size": 1152, "model_type": "siglip_vision_model", "num_hidden_layers": 27}});
    let spec = parsed(&config);
    assert_eq!((heads(&spec), spec.n_layers, spec.hidden_size), ((8, 4, 256), 34, 2560));
    assert_eq!((spec.vocab_size, spec.max_position_embeddings, spec.tie_word_embeddings), (262_208, 131_072, true));
    let full = RopeSpec { scaling: RopeScaling::Linear { factor: 8.0 }, ..plain_rope(1e6, 256) };
    assert_eq!(spec.ropes, [full, plain_rope(1e4, 256)]);
    assert_eq!((spec.layers[0].window, spec.layers[5].window, spec.family), (Some(1024), None, "gemma3"));
    assert!(!parsed(&with(&config, &json!({"tie_word_embeddings": false}))).tie_word_embeddings);
}

fn phi3() -> Value {
    json!({"architectures": ["Phi3ForCausalLM"], "model_type": "phi3", "attention_dropout": 0.0, "embd_pdrop": 0.0,
        "hidden_act": "silu", "hidden_size": 3072, "intermediate_size": 8192, "max_position_embeddings": 4096,
        "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 32,
        "original_max_position_embeddings": 4096, "resid_pdrop": 0.0, "rms_norm_eps": 1e-5, "rope_scaling": null,
        "rope_theta": 10000.0, "sliding_window": 2047, "tie_word_embeddings": false, "vocab_size": 32064})
}

/// The keys of a longer context, with `pairs` factors.
fn longrope(kind: &str, pairs: usize) -> Value {
    json!({"max_position_embeddings": 131072, "sliding_window": 262144,
        "rope_scaling": {"type": kind, "short_factor": vec![1.5; pairs], "long_factor": vec![4.0; pairs]}})
}

#[test]
fn phi3_stacks_projections() {
    let spec = parsed(&phi3());
    assert_eq!((heads(&spec), spec.layers[7].window), ((32, 32, 96), Some(2047)));
    assert_eq!(spec.ropes, [plain_rope(1e4, 96)]);
    assert_eq!(spec.names.sharing(Part::Key).collect::<Vec<_>>(), [Part::Query, Part::Key, Part::Value]);
    assert_eq!(spec.names.sharing(Part::Up).collect::<Vec<_>>(), [Part::Gate, Part::Up]);
    assert_eq!(spec.names.module(0, Part::Gate).as_deref(), Some("model.layers.0.mlp.gate_up_proj"));
}

#[test]
fn phi3_reads_longrope_under_three_names() {
    let spec = parsed(&with(&phi3(), &longrope("longrope", 48)));
    let factor = (1.0 + 32f64.ln() / 4096f64.ln()).sqrt();
    assert!((f64::from(spec.ropes[0].attention_factor()) - factor).abs() < 1e-6);
    assert_eq!(spec.ropes[0].frequencies()[0], (1.0f64 / 1.5) as f32);
    assert_eq!(spec.longest_row().unwrap().0, 4096);
    // transformers 5.24 renames `yarn` and fails with `su`, as the first files had it.
    assert_eq!(parsed(&with(&phi3(), &longrope("yarn", 48))), spec);
    assert!(read(&with(&phi3(), &longrope("su", 48)).to_string(), "c").is_err());
    // An original context inside the dictionary does not count for this family.
    let mut inner = with(&phi3(), &longrope("longrope", 48));
    inner["rope_scaling"]["original_max_position_embeddings"] = json!(8192);
    assert_eq!(parsed(&inner), spec);
    inner.as_object_mut().unwrap().remove("original_max_position_embeddings");
    assert_eq!(parsed(&inner), spec);
}

#[test]
fn phi4_mini_rotates_three_quarters_of_a_head() {
    let mini = json!({"num_attention_heads": 24, "num_key_value_heads": 8, "partial_rotary_factor": 0.75,
        "tie_word_embeddings": true, "vocab_size": 200064, "attention_bias": false, "mlp_bias": false, "lm_head_bias": false,
        "full_attn_mod": 1, "interpolate_factor": 1});
    let spec = parsed(&with(&with(&phi3(), &longrope("longrope", 48)), &mini));
    assert_eq!((heads(&spec), spec.ropes[0].rotary_dim), ((24, 8, 128), 96));
    assert_eq!(spec.ropes[0].frequencies().len(), 48);
}

fn olmo2() -> Value {
    json!({"architectures": ["Olmo2ForCausalLM"], "model_type": "olmo2", "attention_bias": false, "hidden_act": "silu",
        "hidden_size": 2048, "intermediate_size": 8192, "max_position_embeddings": 4096, "num_attention_heads": 16,
        "num_hidden_layers": 16, "num_key_value_heads": 16, "rms_norm_eps": 1e-6, "rope_scaling": null, "rope_theta": 500000,
        "tie_word_embeddings": false, "vocab_size": 100352})
}

#[test]
fn olmo2_norms_outputs_and_whole_projections() {
    let spec = parsed(&olmo2());
    assert_eq!((spec.norm_placement, spec.attention.query_key_norm), (NormPlacement::Outputs, QueryKeyNorm::Whole));
    assert_eq!((heads(&spec), spec.norm.eps), ((16, 16, 128), 1e-6));
    assert_eq!(spec.ropes, [plain_rope(5e5, 128)]);
    let mut without_key = olmo2();
    without_key.as_object_mut().unwrap().remove("rms_norm_eps");
    assert_eq!(parsed(&without_key).norm.eps, 1e-5);
}

fn smollm3() -> Value {
    let rotates: Vec<u8> = [1, 1, 1, 0].repeat(9);
    json!({"architectures": ["SmolLM3ForCausalLM"], "model_type": "smollm3", "attention_bias": false, "hidden_act": "silu",
        "hidden_size": 2048, "intermediate_size": 11008, "layer_types": vec!["full_attention"; 36],
        "max_position_embeddings": 65536, "max_window_layers": 28, "mlp_bias": false, "no_rope_layer_interval": 4,
        "no_rope_layers": rotates, "num_attention_heads": 16, "num_hidden_layers": 36, "num_key_value_heads": 4,
        "pretraining_tp": 2, "rms_norm_eps": 1e-6, "rope_scaling": null, "rope_theta": 5000000.0, "sliding_window": null,
        "use_sliding_window": false, "vocab_size": 128256})
}

#[test]
fn smollm3_does_not_rotate_every_fourth_layer() {
    let spec = parsed(&smollm3());
    let still: Vec<usize> = (0..36).filter(|layer| spec.layers[*layer].rope.is_none()).collect();
    assert_eq!(still, [3, 7, 11, 15, 19, 23, 27, 31, 35]);
    assert_eq!((spec.ropes[0].theta, spec.tie_word_embeddings, sliding(&spec)), (5e6, true, vec![]));
    let by_interval = with(&smollm3(), &json!({"no_rope_layers": null, "layer_types": null}));
    assert_eq!(parsed(&by_interval), spec);
    let windows = with(&by_interval, &json!({"use_sliding_window": true, "sliding_window": 512}));
    assert_eq!(sliding(&parsed(&windows)), still);
    let biased = parsed(&with(&smollm3(), &json!({"mlp_bias": true, "attention_bias": true})));
    assert!(biased.mlp.bias && biased.attention.qkv_bias && biased.attention.output_bias);
    let mut without_key = smollm3();
    without_key.as_object_mut().unwrap().remove("rope_theta");
    assert_eq!(parsed(&without_key).ropes[0].theta, 2e6);
}

fn pythia() -> Value {
    json!({"architectures": ["GPTNeoXForCausalLM"], "model_type": "gpt_neox", "hidden_act": "gelu", "hidden_size": 768,
        "intermediate_size": 3072, "layer_norm_eps": 1e-5, "max_position_embeddings": 2048, "num_attention_heads": 12,
        "num_hidden_layers": 12, "rotary_emb_base": 10000, "rotary_pct": 0.25, "tie_word_embeddings": false,
        "use_parallel_residual": true, "vocab_size": 50304})
}

#[test]
fn pythia_is_parallel_and_rotates_a_quarter() {
    let spec = parsed(&pythia());
    assert_eq!((heads(&spec), spec.parallel_residual), ((12, 12, 64), true));
    assert_eq!(spec.ropes, [plain_rope(1e4, 16)]);
    assert_eq!((spec.norm.kind, spec.norm.eps), (NormKind::Layer, 1e-5));
    assert!(spec.attention.qkv_bias && spec.attention.output_bias && spec.mlp.bias && !spec.mlp.gated);
    assert_eq!((spec.mlp.activation, spec.names.stacking), (Activation::Gelu, Stacking::ByHead));
    let module = spec.names.module(11, Part::Value);
    assert_eq!(module.as_deref(), Some("gpt_neox.layers.11.attention.query_key_value"));
    let mut without_keys = pythia();
    let defaults = ["rotary_emb_base", "rotary_pct", "layer_norm_eps", "use_parallel_residual", "hidden_act"];
    without_keys.as_object_mut().unwrap().retain(|key, _| !defaults.contains(&key.as_str()));
    assert_eq!(parsed(&without_keys), spec);
    let new = json!({"rope_parameters": {"partial_rotary_factor": 0.25, "rope_theta": 10000, "rope_type": "default"}});
    assert_eq!(parsed(&with(&without_keys, &new)), spec);
    let other =
        parsed(&with(&pythia(), &json!({"use_parallel_residual": false, "attention_bias": false, "rotary_pct": 1.0})));
    assert!(!other.parallel_residual && !other.attention.qkv_bias && !other.attention.output_bias && other.mlp.bias);
    assert_eq!(other.ropes, [plain_rope(1e4, 64)]);
}

fn gpt2() -> Value {
    json!({"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "activation_function": "gelu_new", "attn_pdrop": 0.1,
        "embd_pdrop": 0.1, "layer_norm_epsilon": 1e-5, "n_ctx": 1024, "n_embd": 768, "n_head": 12, "n_layer": 12,
        "n_positions": 1024, "resid_pdrop": 0.1, "summary_type": "cls_index",
        "task_specific_params": {"text-generation": {"do_sample": true, "max_length": 50}}, "vocab_size": 50257})
}

#[test]
fn gpt2_has_learned_positions_and_transposed_projections() {
    let spec = parsed(&gpt2());
    assert_eq!((heads(&spec), spec.intermediate_size, spec.hidden_size), ((12, 12, 64), 3072, 768));
    assert_eq!((spec.embedding.learned_positions, spec.ropes.len(), spec.layers[0].rope), (Some(1024), 0, None));
    assert_eq!(spec.longest_row(), Some((1024, "it has no more positions".to_owned())));
    assert_eq!((spec.mlp.activation, spec.norm.kind), (Activation::GeluTanh, NormKind::Layer));
    assert!(spec.names.transposed && !spec.mlp.gated && spec.mlp.bias && spec.tie_word_embeddings);
    assert_eq!(spec.names.module(0, Part::Key).as_deref(), Some("transformer.h.0.attn.c_attn"));
    let other =
        parsed(&with(&gpt2(), &json!({"scale_attn_weights": false, "n_inner": 100, "reorder_and_upcast_attn": true})));
    assert_eq!((other.attention.scale, other.intermediate_size), (1.0, 100));
    let by_layer = parsed(&with(&gpt2(), &json!({"scale_attn_by_inverse_layer_idx": true})));
    let scales = |spec: &DecoderSpec| [0, 2, 11, 12].map(|layer| spec.score_rule(layer).scale);
    assert_eq!((scales(&spec), scales(&by_layer)), ([0.125; 4], [0.125, 0.125 / 3.0, 0.125 / 12.0, 0.125 / 12.0]));
    let by_class = with(&gpt2(), &json!({"model_type": null}));
    assert_eq!(parsed(&by_class), spec);
}

#[test]
fn gpt2_keys_of_other_families_replace_its_own() {
    let other =
        json!({"hidden_size": 96, "max_position_embeddings": 64, "num_attention_heads": 6, "num_hidden_layers": 3});
    let spec = parsed(&with(&gpt2(), &other));
    assert_eq!((heads(&spec), spec.hidden_size, spec.n_layers), ((6, 6, 16), 96, 3));
    assert_eq!(spec.embedding.learned_positions, Some(64));
    let mut alone = gpt2();
    alone.as_object_mut().unwrap().retain(|key, _| !key.starts_with("n_"));
    assert_eq!(parsed(&with(&alone, &other)), spec);
}
