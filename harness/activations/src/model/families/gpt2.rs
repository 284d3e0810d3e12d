//! GPT-2 (Radford et al. 2019): learned positions, LayerNorm, biases, and matrices stored the other way round.

use actbench_kernels::{Activation, ScoreRule};
use serde_json::{Map, Value};

use super::Family;
use super::entries::Entries;
use crate::model::spec::{
    AttentionSpec, DecoderSpec, EmbeddingSpec, LayerSpec, MlpSpec, NormKind, NormPlacement, NormSpec, QueryKeyNorm,
};
use crate::model::tensor_names::{Part, Stacking, TensorNames};

pub(super) const FAMILY: Family = Family {
    model_types: &["gpt2"],
    classes: &["GPT2LMHeadModel", "GPT2Model"],
    title: "a GPT-2",
    models: "GPT-2",
    differs: "LayerNorm, learned positions, plain GELU",
    handled: &["activation_function", "layer_norm_epsilon"],
    others_are_warnings: false,
    settings: Some(settings),
    read,
};

const NAMES: TensorNames = TensorNames {
    base: "transformer.",
    aliases: &[],
    embedding: "transformer.wte.weight",
    positions: Some("transformer.wpe.weight"),
    final_norm: "transformer.ln_f",
    head: "lm_head.weight",
    blocks: "transformer.h.",
    parts: &[
        (Part::AttentionNorm, "ln_1"),
        (Part::Query, "attn.c_attn"),
        (Part::Key, "attn.c_attn"),
        (Part::Value, "attn.c_attn"),
        (Part::AttentionOutput, "attn.c_proj"),
        (Part::MlpNorm, "ln_2"),
        (Part::Up, "mlp.c_fc"),
        (Part::Down, "mlp.c_proj"),
    ],
    stacking: Stacking::Whole,
    transposed: true,
    buffers: &["attn.bias", "attn.masked_bias"],
};

/// The settings with the keys that transformers' `attribute_map` takes for GPT-2's own: where a file has both, the other one counts.
fn settings(config: &Map<String, Value>) -> Result<Map<String, Value>, String> {
    const OTHER_KEYS: [(&str, &str); 4] = [
        ("hidden_size", "n_embd"),
        ("max_position_embeddings", "n_positions"),
        ("num_attention_heads", "n_head"),
        ("num_hidden_layers", "n_layer"),
    ];
    let mut settings = config.clone();
    for (other, own) in OTHER_KEYS {
        if let Some(value) = config.get(other) {
            settings.insert(own.to_owned(), value.clone());
        }
    }
    Ok(settings)
}

fn read(entries: &Entries<'_>) -> Result<DecoderSpec, String> {
    entries.refuse_flag("add_cross_attention", "attention to an encoder is not supported")?;
    // `reorder_and_upcast_attn` only changes the precision in which transformers computes the scores.
    let (hidden_size, n_heads, n_layers) =
        (entries.extent("n_embd")?, entries.extent("n_head")?, entries.extent("n_layer")?);
    let head_dim = entries.head_dim_of_hidden(hidden_size, n_heads)?;
    let intermediate_size = match entries.given("n_inner") {
        Some(_) => entries.extent("n_inner")?,
        None => 4 * hidden_size,
    };
    let max_position_embeddings = entries.positions("n_positions", 1024)?;
    let scale = match entries.flag("scale_attn_weights", true)? {
        true => ScoreRule::of_head_dim(head_dim).scale,
        false => 1.0,
    };
    Ok(DecoderSpec {
        family: "gpt2",
        names: NAMES,
        vocab_size: entries.extent("vocab_size")?,
        hidden_size,
        intermediate_size,
        n_layers,
        n_heads,
        n_kv_heads: n_heads,
        head_dim,
        embedding: EmbeddingSpec { scale: None, learned_positions: Some(max_position_embeddings) },
        norm: NormSpec { kind: NormKind::Layer, eps: entries.eps("layer_norm_epsilon", 1e-5)? },
        norm_placement: NormPlacement::Inputs,
        parallel_residual: false,
        attention: AttentionSpec {
            scale,
            scale_by_inverse_layer: entries.flag("scale_attn_by_inverse_layer_idx", false)?,
            soft_cap: None,
            qkv_bias: true,
            output_bias: true,
            query_key_norm: QueryKeyNorm::None,
        },
        mlp: MlpSpec {
            gated: false,
            activation: entries.activation("activation_function", Activation::GeluTanh)?,
            bias: true,
        },
        experts: None,
        ropes: Vec::new(),
        layers: vec![LayerSpec { window: None, rope: None, experts: false }; n_layers],
        tie_word_embeddings: entries.flag("tie_word_embeddings", true)?,
        max_position_embeddings,
    })
}
