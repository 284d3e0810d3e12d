//! OLMo 2 (OLMo Team 2025): norms of outputs instead of inputs, and of whole query and key projections.

use super::Family;
use super::decoder::{self, Defaults, NAMES};
use super::entries::Entries;
use super::rope::RopeRules;
use crate::model::spec::{DecoderSpec, NormPlacement, QueryKeyNorm};
use crate::model::tensor_names::{Part, TensorNames};

pub(super) const FAMILY: Family = Family {
    model_types: &["olmo2"],
    classes: &["Olmo2ForCausalLM", "Olmo2Model"],
    title: "an OLMo 2",
    models: "OLMo 2",
    differs: "norms of outputs alone, norms of whole queries and keys",
    handled: &["attention_bias", "qk_norm", "use_qk_norm"],
    others_are_warnings: false,
    settings: None,
    read,
};

const DEFAULTS: Defaults = Defaults { eps: 1e-5, ..Defaults::LLAMA };

const OWN_NAMES: TensorNames = TensorNames {
    parts: &[
        (Part::Query, "self_attn.q_proj"),
        (Part::Key, "self_attn.k_proj"),
        (Part::Value, "self_attn.v_proj"),
        (Part::QueryNorm, "self_attn.q_norm"),
        (Part::KeyNorm, "self_attn.k_norm"),
        (Part::AttentionOutput, "self_attn.o_proj"),
        (Part::AttentionOutputNorm, "post_attention_layernorm"),
        (Part::Gate, "mlp.gate_proj"),
        (Part::Up, "mlp.up_proj"),
        (Part::Down, "mlp.down_proj"),
        (Part::MlpOutputNorm, "post_feedforward_layernorm"),
    ],
    ..NAMES
};

fn read(entries: &Entries<'_>) -> Result<DecoderSpec, String> {
    let mut spec = decoder::read(entries, "olmo2", OWN_NAMES, &DEFAULTS, &RopeRules::of_theta(10_000.0))?;
    spec.norm_placement = NormPlacement::Outputs;
    spec.attention.query_key_norm = QueryKeyNorm::Whole;
    decoder::read_attention_bias(entries, &mut spec)?;
    Ok(spec)
}
