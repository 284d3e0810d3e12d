//! Qwen 3 (Yang et al. 2025), the dense models: a Llama that norms each head of queries and keys.

use super::Family;
use super::decoder::{self, Defaults, NAMES};
use super::entries::Entries;
use super::qwen2;
use super::rope::RopeRules;
use crate::model::spec::{DecoderSpec, QueryKeyNorm};
use crate::model::tensor_names::{Part, TensorNames};

pub(super) const FAMILY: Family = Family {
    model_types: &["qwen3"],
    classes: &["Qwen3ForCausalLM", "Qwen3Model"],
    title: "a Qwen 3",
    models: "Qwen 3 (dense)",
    differs: "norms of queries and keys",
    handled: &["sliding_window", "layer_types", "attention_bias", "qk_norm", "use_qk_norm"],
    others_are_warnings: false,
    settings: None,
    read,
};

const DEFAULTS: Defaults = Defaults { head_dim: Some(128), ..qwen2::DEFAULTS };

const OWN_NAMES: TensorNames = TensorNames {
    parts: &[
        (Part::AttentionNorm, "input_layernorm"),
        (Part::Query, "self_attn.q_proj"),
        (Part::Key, "self_attn.k_proj"),
        (Part::Value, "self_attn.v_proj"),
        (Part::QueryNorm, "self_attn.q_norm"),
        (Part::KeyNorm, "self_attn.k_norm"),
        (Part::AttentionOutput, "self_attn.o_proj"),
        (Part::MlpNorm, "post_attention_layernorm"),
        (Part::Gate, "mlp.gate_proj"),
        (Part::Up, "mlp.up_proj"),
        (Part::Down, "mlp.down_proj"),
    ],
    ..NAMES
};

fn read(entries: &Entries<'_>) -> Result<DecoderSpec, String> {
    let mut spec = decoder::read(entries, "qwen3", OWN_NAMES, &DEFAULTS, &RopeRules::of_theta(10_000.0))?;
    spec.attention.query_key_norm = QueryKeyNorm::PerHead;
    decoder::read_attention_bias(entries, &mut spec)?;
    qwen2::read_windows(entries, &mut spec)?;
    Ok(spec)
}
