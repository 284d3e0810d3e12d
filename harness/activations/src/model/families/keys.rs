//! Keys of `config.json` outside the shape: which are refused, and which would change a model of another family.
//!
//! transformers passes over a key that a family does not know. A file that has one of the keys below was written for another forward
//! pass: the user is warned for a Llama, which many files name that are not quite one, and gets an error for the other families. Keys
//! that change only logits, training or generation are not listed.

use serde_json::{Map, Value};

use crate::python_json::{describe, is_nested, is_truthy, number};

/// The values of a key that change the forward pass.
#[derive(Clone, Copy)]
enum Matters {
    /// Every value but null.
    Given,
    /// Every value that Python takes for true.
    True,
    /// Every value but null that Python takes for false.
    False,
    /// Every number but this one.
    NumberOtherThan(f64),
    /// A number above this one.
    NumberAbove(f64),
    /// Every number but the width of a head.
    NotHeadDim,
    /// A window that is shorter than the context.
    ShorterThanContext,
    /// A list with a 0, or any element at all, that Python takes for false.
    ListWithFalse,
    /// A list with an element other than this text.
    ListOtherThan(&'static str),
    /// A text that is none of these, in lower case.
    TextOtherThan(&'static [&'static str]),
    /// A number, where this key is missing.
    Without(&'static str),
}

/// A key, the values of it that matter, and its effect in the families that know it.
struct Ignored(&'static str, Matters, &'static str);

use Matters::*;

/// Names that mean SiLU in a gated MLP.
const SILU: &[&str] = &["silu", "swish", "swiglu", "silu_glu"];
const ROTARY: &[&str] = &["rope", "rotary", "absolute"]; // "absolute" is the default that transformers 4 wrote for every model.
const RMS_NORM: &[&str] = &["rmsnorm", "rms_norm", "rms", "llamarmsnorm"];

/// Keys that change models of some families.
const IGNORED: &[Ignored] = &[
    // Scales of the residual stream, the embedding and the attention scores (Granite, MiniCPM, Gemma, Cohere, Grok).
    Ignored("attention_multiplier", Given, "scale of the attention scores"),
    Ignored("attention_scale", Given, "scale of the attention scores"),
    Ignored("attn_scale", Given, "scale of the attention scores"),
    Ignored("softmax_scale", Given, "scale of the attention scores"),
    Ignored("query_pre_attn_scalar", NotHeadDim, "scale of the attention scores"),
    Ignored("attn_temperature_tuning", True, "scale of the attention scores"),
    Ignored("residual_multiplier", NumberOtherThan(1.0), "scale of the residual stream"),
    Ignored("residual_scale", NumberOtherThan(1.0), "scale of the residual stream"),
    Ignored("scale_depth", Given, "scale of the residual stream"),
    Ignored("embedding_multiplier", NumberOtherThan(1.0), "scale of the embedding"),
    Ignored("embedding_scale", NumberOtherThan(1.0), "scale of the embedding"),
    Ignored("scale_emb", NumberOtherThan(1.0), "scale of the embedding"),
    Ignored("scale_embedding", True, "scale of the embedding"),
    Ignored("scale_embeddings", True, "scale of the embedding"),
    Ignored("normalize_embedding", True, "norm of the embedding"),
    Ignored("normalize_embeddings", True, "norm of the embedding"),
    // Limits of queries, keys, values and scores (OLMo, DBRX, Gemma 2).
    Ignored("clip_qkv", Given, "limit of queries, keys and values"),
    Ignored("attn_logit_softcapping", Given, "limit of the attention scores"),
    Ignored("attn_logit_softcap", Given, "limit of the attention scores"),
    // Norms (OLMo 2, Qwen 3, Cohere, Llama 4, MPT).
    Ignored("qk_norm", True, "norm of queries and keys"),
    Ignored("use_qk_norm", True, "norm of queries and keys"),
    Ignored("qk_layernorm", True, "norm of queries and keys"),
    Ignored("query_key_norm", True, "norm of queries and keys"),
    Ignored("norm_type", TextOtherThan(RMS_NORM), "kind of norm"),
    Ignored("normalization", TextOtherThan(RMS_NORM), "kind of norm"),
    Ignored("layer_norm_eps", Without("rms_norm_eps"), "constant of the norms"),
    Ignored("layer_norm_epsilon", Without("rms_norm_eps"), "constant of the norms"),
    Ignored("layernorm_epsilon", Without("rms_norm_eps"), "constant of the norms"),
    Ignored("norm_eps", Without("rms_norm_eps"), "constant of the norms"),
    Ignored("norm_epsilon", Without("rms_norm_eps"), "constant of the norms"),
    Ignored("apply_residual_connection_post_layernorm", True, "place of the residual connection"),
    // Order of attention and MLP (GPT-NeoX, GPT-J, Falcon).
    Ignored("parallel_residual", True, "attention and MLP in parallel"),
    Ignored("use_parallel_residual", True, "attention and MLP in parallel"),
    Ignored("parallel_attn", True, "attention and MLP in parallel"),
    Ignored("parallel_attention", True, "attention and MLP in parallel"),
    // Positions (MPT, Falcon, MLX, GPT-J, GPT-NeoX, SmolLM3, Llama 4, Gemma 3).
    Ignored("alibi", True, "biases for positions"),
    Ignored("use_alibi", True, "biases for positions"),
    Ignored("position_embedding_type", TextOtherThan(ROTARY), "kind of position embedding"),
    Ignored("use_rope", False, "rotary embedding"),
    Ignored("rope_interleaved", True, "order of rotated elements"),
    Ignored("rope_interleave", True, "order of rotated elements"),
    Ignored("rope_traditional", True, "order of rotated elements"),
    Ignored("rotary_pct", NumberOtherThan(1.0), "fraction of rotated elements"),
    Ignored("rotary_percent", NumberOtherThan(1.0), "fraction of rotated elements"),
    Ignored("rotary_dim", NotHeadDim, "number of rotated elements"),
    Ignored("rotary_emb_base", Without("rope_theta"), "base of the rotary frequencies"),
    Ignored("rotary_base", Without("rope_theta"), "base of the rotary frequencies"),
    Ignored("rope_base", Without("rope_theta"), "base of the rotary frequencies"),
    Ignored("rope_freq_base", Without("rope_theta"), "base of the rotary frequencies"),
    Ignored("rope_local_base_freq", Given, "base of the rotary frequencies of some layers"),
    Ignored("no_rope_layers", ListWithFalse, "layers without rotary embedding"),
    Ignored("nope_layers", True, "layers without rotary embedding"),
    Ignored("no_rope_layer_interval", NumberAbove(0.0), "layers without rotary embedding"),
    // Reach of attention (Mistral, Qwen 2, Gemma, Llama 4, GPT-OSS).
    Ignored("sliding_window", ShorterThanContext, "window of attention"),
    Ignored("attention_window", ShorterThanContext, "window of attention"),
    Ignored("attention_chunk_size", ShorterThanContext, "window of attention"),
    Ignored("layer_types", ListOtherThan("full_attention"), "kinds of attention by layer"),
    Ignored("use_bidirectional_attention", True, "attention in both directions"),
    Ignored("bidirectional", True, "attention in both directions"),
    Ignored("attn_output_gate", True, "gate of the attention output"),
    Ignored("num_kv_shared_layers", NumberAbove(0.0), "keys and values shared between layers"),
    Ignored("kv_lora_rank", Given, "compressed keys and values"),
    Ignored("q_lora_rank", Given, "compressed queries"),
    // Biases and activations under other names (Qwen, InternLM, GPT-NeoX).
    Ignored("attention_bias", True, "biases of projections"),
    Ignored("mlp_bias", True, "biases of projections"),
    Ignored("bias", True, "biases of projections"),
    Ignored("use_bias", True, "biases of projections"),
    Ignored("qkv_bias", True, "biases of projections"),
    Ignored("use_qkv_bias", True, "biases of projections"),
    Ignored("attn_bias", True, "biases of projections"),
    Ignored("attention_qkv_bias", True, "biases of projections"),
    Ignored("attention_out_bias", True, "biases of projections"),
    Ignored("add_bias_linear", True, "biases of projections"),
    Ignored("hidden_activation", TextOtherThan(SILU), "activation of the MLP"),
    Ignored("activation_function", TextOtherThan(SILU), "activation of the MLP"),
    Ignored("mlp_hidden_act", TextOtherThan(SILU), "activation of the MLP"),
    // Mixtures of experts (Mixtral, Qwen MoE, DeepSeek).
    Ignored("num_experts", NumberAbove(1.0), "mixture of experts"),
    Ignored("num_local_experts", NumberAbove(1.0), "mixture of experts"),
    Ignored("n_routed_experts", NumberAbove(1.0), "mixture of experts"),
    Ignored("moe_num_experts", NumberAbove(1.0), "mixture of experts"),
    Ignored("mlp_only_layers", True, "mixture of experts"),
];

impl Matters {
    fn holds(self, key: &str, value: &Value, shape: &Shape<'_>) -> bool {
        let not_in = |names: &[&str]| value.as_str().is_some_and(|text| !names.contains(&text.to_lowercase().as_str()));
        let items = || value.as_array().into_iter().flatten();
        match self {
            Given => !value.is_null(),
            True => is_truthy(value) && !value.is_string(),
            False => !value.is_null() && !is_truthy(value),
            NumberOtherThan(plain) => number(value).is_some_and(|number| number != plain),
            NumberAbove(plain) => number(value).is_some_and(|number| number > plain),
            NotHeadDim => number(value).is_some_and(|number| number != shape.head_dim as f64),
            ShorterThanContext => {
                let used = key != "sliding_window" || shape.config.get("use_sliding_window").is_none_or(is_truthy);
                used && number(value).is_some_and(|window| window > 0.0 && window < shape.max_positions as f64)
            }
            ListWithFalse => items().any(|item| !is_truthy(item)),
            ListOtherThan(plain) => items().any(|item| item.as_str() != Some(plain)),
            TextOtherThan(plain) => not_in(plain),
            Without(known) => number(value).is_some() && !shape.names(known),
        }
    }
}

/// The parts of a model's shape by which a key is judged.
pub(super) struct Shape<'a> {
    pub(super) config: &'a Map<String, Value>,
    pub(super) head_dim: usize,
    pub(super) max_positions: usize,
}

impl Shape<'_> {
    /// Whether the key `known` is given, at top level or among the rotary settings.
    fn names(&self, known: &str) -> bool {
        let inner = |place: &str| self.config.get(place).and_then(|rope| rope.get(known)).is_some();
        self.config.contains_key(known) || inner("rope_scaling") || inner("rope_parameters")
    }
}

/// Refuses the keys that change how transformers loads or runs a Llama and that are not followed here.
///
/// # Errors
/// The key and its value.
pub(super) fn refuse_unsupported(config: &Map<String, Value>) -> Result<(), String> {
    let text_config = config.get("text_config").and_then(Value::as_object);
    for map in [Some(config), text_config].into_iter().flatten() {
        for key in ["quantization_config", "quantization", "compression_config"] {
            if let Some(value) = map.get(key).filter(|value| !value.is_null()) {
                return Err(format!(
                    "{key} {}: quantized models are not supported; save the model without quantization, in bf16, fp16 or fp32",
                    quantization_method(value)
                ));
            }
        }
    }
    if let Some(value) = config.get("is_causal").filter(|value| !is_truthy(value)) {
        return Err(format!("is_causal is {}: attention in both directions is not supported", describe(value)));
    }
    if let Some(value) = config.get("per_layer_config").filter(|value| is_truthy(value)) {
        return Err(format!("per_layer_config is {}: layers of different shapes are not supported", describe(value)));
    }
    let other_file = |value: &&Value| !value.is_null() && value.as_str() != Some("model.safetensors");
    if let Some(value) = config.get("transformers_weights").filter(other_file) {
        return Err(format!(
            "transformers_weights is {}: weights are only read from model.safetensors or model.safetensors.index.json",
            describe(value)
        ));
    }
    Ok(())
}

/// The method of a quantization, as readable as the file gives it.
fn quantization_method(value: &Value) -> String {
    let text = |key: &str| value.get(key).and_then(Value::as_str);
    match text("quant_method").or_else(|| text("quant_algo")).or_else(|| text("format")) {
        Some(method) => format!("has the method '{method}'"),
        None if is_nested(value) => match value.get("bits") {
            Some(bits) => format!("asks for {} bits", describe(bits)),
            None => format!("is {}", describe(value)),
        },
        None => format!("is {}", describe(value)),
    }
}

/// The keys that would change the result of a family that handles the keys `handled` alone, with their values and effects.
pub(super) fn unhandled(shape: &Shape<'_>, handled: &[&str]) -> Option<String> {
    let found: Vec<String> = IGNORED
        .iter()
        .filter(|Ignored(key, ..)| !handled.contains(key))
        .filter_map(|Ignored(key, matters, effect)| {
            let value = shape.config.get(*key)?;
            matters.holds(key, value, shape).then(|| format!("{key} {} ({effect})", describe(value)))
        })
        .collect();
    (!found.is_empty()).then(|| found.join(", "))
}

/// Whether the table has `key`.
#[cfg(test)]
pub(super) fn is_listed(key: &str) -> bool {
    IGNORED.iter().any(|Ignored(listed, ..)| *listed == key)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ignored_in(config: Value) -> Option<String> {
        let shape = Shape { config: config.as_object().unwrap(), head_dim: 16, max_positions: 4096 };
        unhandled(&shape, &[])
    }

    #[test]
    fn keys_with_plain_values_are_silent() {
        let plain = json!({
            "attention_multiplier": null, "residual_multiplier": 1.0, "embedding_multiplier": 1, "clip_qkv": null,
            "query_pre_attn_scalar": 16, "qk_norm": false, "norm_type": "RMSNorm", "rms_norm_eps": 1e-5, "norm_eps": 1e-6,
            "layer_norm_eps": 1e-5, "rotary_pct": 1.0, "rotary_dim": 16, "rope_parameters": {"rope_theta": 1e4}, "rotary_base": 5,
            "use_rope": true, "no_rope_layers": [1, 1], "no_rope_layer_interval": 0, "sliding_window": 4096,
            "attention_chunk_size": null, "layer_types": ["full_attention"], "bias": "none", "qkv_bias": false,
            "hidden_activation": "SiLU", "position_embedding_type": "rope", "num_experts": 1, "mlp_only_layers": [],
            "logits_scaling": 8.0, "final_logit_softcapping": 30.0, "use_cache": true, "pretraining_tp": 2,
            "attention_dropout": 0.1, "tensor_parallel": 4, "rope_interleaved": false, "auto_map": {"AutoModel": "x.Y"},
        });
        assert_eq!(ignored_in(plain), None);
        let off = json!({"sliding_window": 512, "use_sliding_window": false});
        assert_eq!(ignored_in(off), None);
    }

    #[test]
    fn each_key_is_named_at_a_value_that_matters() {
        for Ignored(key, matters, effect) in IGNORED {
            let value = match matters {
                Given | NumberOtherThan(_) | NumberAbove(_) | NotHeadDim | ShorterThanContext | Without(_) => {
                    json!(7.5)
                }
                True => json!(true),
                False => json!(false),
                ListWithFalse => json!([1, 0]),
                ListOtherThan(_) => json!(["sliding_attention"]),
                TextOtherThan(_) => json!("other"),
            };
            let warning = ignored_in(json!({*key: value})).unwrap_or_default();
            assert!(warning.contains(key) && warning.contains(effect), "{key}: {warning}");
        }
        let two = ignored_in(json!({"qk_norm": true, "attention_multiplier": 0.015625})).unwrap();
        insta::assert_snapshot!(two, @"attention_multiplier 0.015625 (scale of the attention scores), qk_norm true (norm of queries and keys)");
        let config = json!({"qk_norm": true, "attention_multiplier": 0.015625});
        let shape = Shape { config: config.as_object().unwrap(), head_dim: 16, max_positions: 4096 };
        assert_eq!(unhandled(&shape, &["qk_norm", "attention_multiplier"]), None);
    }

    #[test]
    fn keys_are_unique() {
        let mut keys: Vec<&str> = IGNORED.iter().map(|Ignored(key, ..)| *key).collect();
        keys.sort_unstable();
        assert!(keys.windows(2).all(|pair| pair[0] != pair[1]));
    }

    #[test]
    fn unsupported_keys_are_refused_by_name() {
        let refused = |config: Value| refuse_unsupported(config.as_object().unwrap()).unwrap_err();
        insta::assert_snapshot!(refused(json!({"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": true}})), @"quantization_config has the method 'bitsandbytes': quantized models are not supported; save the model without quantization, in bf16, fp16 or fp32");
        insta::assert_snapshot!(refused(json!({"quantization": {"group_size": 64, "bits": 4}})), @"quantization asks for 4 bits: quantized models are not supported; save the model without quantization, in bf16, fp16 or fp32");
        insta::assert_snapshot!(refused(json!({"text_config": {"quantization_config": {}}})), @"quantization_config is {}: quantized models are not supported; save the model without quantization, in bf16, fp16 or fp32");
        insta::assert_snapshot!(refused(json!({"is_causal": false})), @"is_causal is false: attention in both directions is not supported");
        insta::assert_snapshot!(refused(json!({"per_layer_config": {"0": {"mlp_bias": true}}})), @r#"per_layer_config is {"0":{"mlp_bias":true}}: layers of different shapes are not supported"#);
        insta::assert_snapshot!(refused(json!({"transformers_weights": "other.safetensors"})), @r#"transformers_weights is "other.safetensors": weights are only read from model.safetensors or model.safetensors.index.json"#);
        let plain = json!({"quantization_config": null, "is_causal": true, "per_layer_config": {}, "transformers_weights": null});
        refuse_unsupported(plain.as_object().unwrap()).unwrap();
    }
}
