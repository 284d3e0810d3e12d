//! Gemma 3 (Gemma Team 2025), the text model: Gemma 2 with normed queries and keys instead of soft caps, and a rotary table of its own
//! for the layers with a window, five of six.

use serde_json::{Map, Value};

use super::Family;
use super::decoder::{self, Defaults, NAMES};
use super::entries::Entries;
use super::{gemma2, rope};
use crate::model::spec::{DecoderSpec, QueryKeyNorm};
use crate::model::tensor_names::{Part, TensorNames};
use crate::python_json::describe;

pub(super) const FAMILY: Family = Family {
    model_types: &["gemma3", "gemma3_text"],
    classes: &["Gemma3ForConditionalGeneration", "Gemma3ForCausalLM", "Gemma3Model", "Gemma3TextModel"],
    title: "a Gemma 3",
    models: "Gemma 3",
    differs: "as Gemma 2 without caps, and norms of queries and keys, two rotary tables; also the text part of files with images",
    handled: &[
        "attention_bias",
        "hidden_activation",
        "layer_types",
        "query_pre_attn_scalar",
        "rope_local_base_freq",
        "sliding_window",
        "use_bidirectional_attention",
    ],
    others_are_warnings: false,
    settings: Some(settings),
    read,
};

const DEFAULTS: Defaults = Defaults { max_positions: 131_072, ..gemma2::DEFAULTS };

const OWN_NAMES: TensorNames = TensorNames {
    // Files of the models that see images too, as published, and as transformers 5 has them in memory.
    aliases: &[
        ("language_model.model.", "model."),
        ("language_model.lm_head.", "lm_head."),
        ("model.language_model.", "model."),
        ("language_model.", "model."),
    ],
    parts: &[
        (Part::AttentionNorm, "input_layernorm"),
        (Part::Query, "self_attn.q_proj"),
        (Part::Key, "self_attn.k_proj"),
        (Part::Value, "self_attn.v_proj"),
        (Part::QueryNorm, "self_attn.q_norm"),
        (Part::KeyNorm, "self_attn.k_norm"),
        (Part::AttentionOutput, "self_attn.o_proj"),
        (Part::AttentionOutputNorm, "post_attention_layernorm"),
        (Part::MlpNorm, "pre_feedforward_layernorm"),
        (Part::Gate, "mlp.gate_proj"),
        (Part::Up, "mlp.up_proj"),
        (Part::Down, "mlp.down_proj"),
        (Part::MlpOutputNorm, "post_feedforward_layernorm"),
    ],
    ..NAMES
};

/// The text model's settings: `text_config` in a file of a model that sees images. Published ones leave out what is the default of
/// transformers' class, extents too.
fn settings(config: &Map<String, Value>) -> Result<Map<String, Value>, String> {
    let model_type = config.get("model_type").and_then(Value::as_str);
    let nested = config.get("text_config").filter(|_| model_type != Some("gemma3_text"));
    let mut settings: Map<String, Value> = [
        ("vocab_size", 262_208_u64),
        ("hidden_size", 2304),
        ("intermediate_size", 9216),
        ("num_hidden_layers", 26),
        ("num_attention_heads", 8),
    ]
    .into_iter()
    .map(|(key, extent)| (key.to_owned(), Value::from(extent)))
    .collect();
    let Some(nested) = nested else {
        if model_type == Some("gemma3") {
            return Err("has no text_config; download the file again".to_owned());
        }
        settings.extend(config.clone());
        return Ok(settings);
    };
    let text = nested.as_object().ok_or_else(|| format!("text_config is {}, expected an object", describe(nested)))?;
    if let Some(other) = text.get("model_type").filter(|value| value.as_str() != Some("gemma3_text")) {
        return Err(format!("text_config has the model_type {}, expected 'gemma3_text'", describe(other)));
    }
    settings.extend(text.clone());
    // The outer flag decides, because the LM head belongs to the outer model.
    let tied = config.get("tie_word_embeddings").cloned().unwrap_or(Value::Bool(true));
    settings.insert("tie_word_embeddings".to_owned(), tied);
    Ok(settings)
}

fn read(entries: &Entries<'_>) -> Result<DecoderSpec, String> {
    let shape = decoder::shape(entries, &DEFAULTS)?;
    let ropes = rope::read_by_layer_type(entries, shape.head_dim, shape.max_positions)?;
    let mut spec = decoder::with_ropes(entries, "gemma3", OWN_NAMES, &DEFAULTS, &shape, Vec::from(ropes))?;
    gemma2::read_common(entries, &mut spec)?;
    spec.attention.query_key_norm = QueryKeyNorm::PerHead;
    // The older key is used only where there is no list of kinds.
    let period = entries.positions("sliding_window_pattern", 6)?;
    let by_period = || (0..spec.n_layers).map(|layer| (layer + 1) % period != 0).collect();
    let slides: Vec<bool> = entries.sliding_layers(spec.n_layers)?.unwrap_or_else(by_period);
    let window = entries.window("sliding_window", Some(4096))?;
    decoder::set_windows(&mut spec, &slides, window)?;
    for (layer, slides) in spec.layers.iter_mut().zip(slides) {
        layer.rope = Some(usize::from(slides));
    }
    Ok(spec)
}
