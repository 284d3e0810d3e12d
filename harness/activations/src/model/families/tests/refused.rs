//! What the families refuse, and the list of families itself.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::super::keys::is_listed;
use super::super::{FAMILIES, REFUSED, read};

/// A small file of `model_type` with the keys of `more`.
fn config(model_type: &str, more: Value) -> Value {
    let mut config = json!({"model_type": model_type, "vocab_size": 100, "hidden_size": 64, "intermediate_size": 96,
        "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 16, "n_embd": 64, "n_head": 4,
        "n_layer": 4, "rope_theta": 10000.0});
    if ["mixtral", "qwen3_moe"].contains(&model_type) {
        config["num_experts"] = json!(4);
        config["moe_intermediate_size"] = json!(48);
        config["num_experts_per_tok"] = json!(2);
    }
    let more: Map<String, Value> = more.as_object().unwrap().clone();
    config.as_object_mut().unwrap().extend(more);
    config
}

fn refused(model_type: &str, more: Value) -> String {
    read(&config(model_type, more).to_string(), "c").unwrap_err().to_string()
}

#[test]
fn handled_keys_and_model_types_are_known_once() {
    let mut types = BTreeSet::new();
    for family in &FAMILIES {
        for key in family.handled {
            assert!(is_listed(key), "{key} of {}", family.title);
        }
        for model_type in family.model_types {
            assert!(types.insert(*model_type), "{model_type} is listed twice");
        }
    }
    assert!(REFUSED.iter().all(|(model_type, _)| !types.contains(model_type)));
}

#[test]
fn small_files_of_all_families_are_read() {
    for family in &FAMILIES {
        let model_type = family.model_types[family.model_types.len() - 1];
        // A GPT-NeoX rotates a quarter of its heads and has no `rope_theta`.
        let mut small = config(model_type, json!({}));
        small.as_object_mut().unwrap().remove("rope_theta");
        let (spec, warnings) = read(&small.to_string(), "c").unwrap();
        assert_eq!((spec.n_layers, spec.head_dim, spec.hidden_size), (4, 16, 64), "{model_type}");
        assert_eq!(spec.family, family.model_types[0]);
        assert_eq!(warnings, [""; 0], "{model_type}");
    }
}

#[test]
fn other_architectures_are_refused_by_name() {
    insta::assert_snapshot!(refused("gpt_oss", json!({})), @"c: unknown architecture 'gpt_oss' (a mixture of experts): the supported values of 'model_type' are llama, mistral, mixtral, qwen2, qwen3, qwen3_moe, gemma, gemma2, gemma3, gemma3_text, phi3, olmo2, smollm3, gpt_neox, gpt2");
    for other in ["qwen2_moe", "llama4", "gemma4", "qwen3_5", "deepseek_v3", "ministral", "gemma3n", "bert"] {
        assert!(refused(other, json!({})).starts_with(&format!("c: unknown architecture '{other}'")), "{other}");
    }
}

#[test]
fn key_of_another_family_is_an_error_with_its_effect() {
    insta::assert_snapshot!(refused("qwen2", json!({"attention_multiplier": 0.5})), @"c: a Qwen 2 does not have attention_multiplier 0.5 (scale of the attention scores): check that the model is a Qwen 2");
    insta::assert_snapshot!(refused("mistral", json!({"attn_logit_softcapping": 50.0})), @"c: a Mistral does not have attn_logit_softcapping 50.0 (limit of the attention scores): check that the model is a Mistral");
    insta::assert_snapshot!(refused("olmo2", json!({"sliding_window": 512})), @"c: an OLMo 2 does not have sliding_window 512 (window of attention): check that the model is an OLMo 2");
    insta::assert_snapshot!(refused("phi3", json!({"mlp_bias": true})), @"c: a Phi 3 does not have mlp_bias true (biases of projections): check that the model is a Phi 3");
    insta::assert_snapshot!(refused("qwen3", json!({"num_experts": 128})), @"c: a Qwen 3 does not have num_experts 128 (mixture of experts): check that the model is a Qwen 3");
}

#[test]
fn quantized_files_are_refused_at_either_level() {
    let quantized = json!({"quant_method": "gptq"});
    for family in &FAMILIES {
        let error = refused(family.model_types[0], json!({"quantization_config": quantized}));
        assert!(error.contains("quantization_config has the method 'gptq'"), "{error}");
    }
    let inner = json!({"text_config": {"model_type": "gemma3_text", "quantization_config": quantized}});
    assert!(refused("gemma3", inner).contains("quantization_config has the method 'gptq'"));
    let inner = json!({"text_config": {"model_type": "gemma3_text", "is_causal": false}});
    insta::assert_snapshot!(refused("gemma3", inner), @"c: is_causal is false: attention in both directions is not supported");
}

#[test]
fn settings_without_an_operation_are_refused() {
    for gemma in ["gemma", "gemma2", "gemma3_text"] {
        let error = refused(gemma, json!({"use_bidirectional_attention": true}));
        assert_eq!(error, "c: use_bidirectional_attention is true: attention in both directions is not supported");
    }
    insta::assert_snapshot!(refused("gpt2", json!({"add_cross_attention": true})), @"c: add_cross_attention is true: attention to an encoder is not supported");
    insta::assert_snapshot!(refused("gpt2", json!({"num_attention_heads": 3})), @"c: the hidden size 64 is not a multiple of 3 heads");
    insta::assert_snapshot!(refused("gpt_neox", json!({"hidden_act": "relu"})), @r#"c: hidden_act is "relu", only silu, gelu and its tanh form are supported"#);
    insta::assert_snapshot!(refused("gpt_neox", json!({"num_key_value_heads": 2})), @"c: num_key_value_heads is 2, but a GPT-NeoX has none of its own");
    insta::assert_snapshot!(refused("phi3", json!({"head_dim": 32})), @"c: head_dim is 32, but a Phi 3 has heads of 16 elements");
    insta::assert_snapshot!(refused("gemma3", json!({})), @"c: has no text_config; download the file again");
    insta::assert_snapshot!(refused("gemma3", json!({"text_config": {"model_type": "llama"}})), @r#"c: text_config has the model_type "llama", expected 'gemma3_text'"#);
}

#[test]
fn impossible_windows_and_layers_are_refused() {
    insta::assert_snapshot!(refused("mistral", json!({"sliding_window": 0})), @"c: sliding_window is 0, it must be between 1 and 1099511627776");
    insta::assert_snapshot!(refused("gemma2", json!({"sliding_window": null})), @"c: layers of the type sliding_attention need a sliding_window");
    insta::assert_snapshot!(refused("gemma2", json!({"layer_types": ["full_attention"]})), @"c: layer_types has 1 entries for 4 layers");
    let types = json!(["full_attention", "full_attention", "full_attention", "chunked_attention"]);
    insta::assert_snapshot!(refused("qwen3", json!({"layer_types": types})), @r#"c: layer_types has "chunked_attention", only 'full_attention' and 'sliding_attention' are supported"#);
    insta::assert_snapshot!(refused("smollm3", json!({"no_rope_layers": [1, 0]})), @"c: no_rope_layers has 2 entries for 4 layers");
    insta::assert_snapshot!(refused("smollm3", json!({"no_rope_layer_interval": 0})), @"c: no_rope_layer_interval is 0, it must be between 1 and 1099511627776");
}

#[test]
fn impossible_rotary_settings_are_refused() {
    let scaling = |model_type: &str, scaling: Value| refused(model_type, json!({"rope_scaling": scaling}));
    insta::assert_snapshot!(scaling("phi3", json!({"type": "linear", "factor": 2.0})), @"c: rope scaling 'linear' is unknown: use default or longrope");
    insta::assert_snapshot!(scaling("mistral", json!({"type": "longrope", "short_factor": [1.0], "long_factor": [1.0]})), @"c: short_factor of rope_scaling has 1 numbers, expected 8: one a pair of elements");
    insta::assert_snapshot!(scaling("mistral", json!({"type": "longrope", "short_factor": 3})), @"c: short_factor of rope_scaling is 3, expected a list");
    insta::assert_snapshot!(scaling("mistral", json!({"type": "yarn"})), @"c: rope_scaling has no factor");
    insta::assert_snapshot!(scaling("mistral", json!({"type": "dynamic"})), @"c: rope_scaling has no factor");
    insta::assert_snapshot!(scaling("qwen2", json!({"full_attention": {"rope_type": "default"}, "type": "linear", "factor": 2.0})), @"c: rope_scaling has entries by layer type ('full_attention'), but a Qwen 2 has one rope for all layers");
    // transformers has layer types for this family where the file lists none.
    insta::assert_snapshot!(scaling("qwen3", json!({"sliding_attention": {"rope_type": "default"}})), @"c: rope_scaling has entries by layer type ('sliding_attention'), but a Qwen 3 has one rope for all layers");
    insta::assert_snapshot!(scaling("qwen2", json!({"partial_rotary_factor": 0.5})), @"c: partial_rotary_factor of rope_scaling is 0.5, only 1 is supported");
    insta::assert_snapshot!(refused("gpt_neox", json!({"rotary_pct": 0.35})), @"c: rotary_pct 0.35 rotates 5 of 16 elements, it must be an even number");
    insta::assert_snapshot!(refused("gpt_neox", json!({"rotary_pct": 1.5})), @"c: rotary_pct is 1.5, it must be above 0 and at most 1");
    insta::assert_snapshot!(refused("gemma3_text", json!({"rope_parameters": {"rope_type": "linear", "factor": 8.0}})), @"c: rope_parameters has no entries by layer type ('full_attention', 'sliding_attention')");
}

/// transformers starts from the type `default`, which the older key `type` does not replace.
#[test]
fn gemma3_scaling_without_rope_type_is_a_warning() {
    let scaled = config("gemma3_text", json!({"rope_scaling": {"type": "linear", "factor": 8.0}}));
    let (spec, warnings) = read(&scaled.to_string(), "c").unwrap();
    assert_eq!(spec.ropes[0].scaling, crate::model::rope_spec::RopeScaling::Default);
    insta::assert_snapshot!(warnings.join("|"), @"the type 'linear' of rope_parameters.full_attention is not used, because its rope_type is 'default'|rope_parameters.full_attention has the type 'default', which does not use its 'factor'");
}
