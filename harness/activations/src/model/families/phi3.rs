//! Phi 3 and 4 (Abdin et al. 2024): a Llama with stacked projections and LongRoPE.

use super::Family;
use super::decoder::{self, Defaults, NAMES};
use super::entries::Entries;
use super::rope::RopeRules;
use crate::model::spec::DecoderSpec;
use crate::model::tensor_names::{Part, TensorNames};

pub(super) const FAMILY: Family = Family {
    model_types: &["phi3"],
    classes: &["Phi3ForCausalLM", "Phi3Model"],
    title: "a Phi 3",
    models: "Phi 3 and 4",
    differs: "stacked projections, LongRoPE, partial rotation, sliding window",
    handled: &["sliding_window"],
    others_are_warnings: false,
    settings: None,
    read,
};

const DEFAULTS: Defaults = Defaults { max_positions: 4096, eps: 1e-5, ..Defaults::LLAMA };

const RULES: RopeRules = RopeRules {
    fraction: Some(("partial_rotary_factor", 1.0)),
    longrope_alone: Some(4096),
    ..RopeRules::of_theta(10_000.0)
};

const OWN_NAMES: TensorNames = TensorNames {
    parts: &[
        (Part::AttentionNorm, "input_layernorm"),
        (Part::Query, "self_attn.qkv_proj"),
        (Part::Key, "self_attn.qkv_proj"),
        (Part::Value, "self_attn.qkv_proj"),
        (Part::AttentionOutput, "self_attn.o_proj"),
        (Part::MlpNorm, "post_attention_layernorm"),
        (Part::Gate, "mlp.gate_up_proj"),
        (Part::Up, "mlp.gate_up_proj"),
        (Part::Down, "mlp.down_proj"),
    ],
    ..NAMES
};

fn read(entries: &Entries<'_>) -> Result<DecoderSpec, String> {
    let mut spec = decoder::read(entries, "phi3", OWN_NAMES, &DEFAULTS, &RULES)?;
    entries.head_dim_of_hidden(spec.hidden_size, spec.n_heads)?;
    let window = entries.window("sliding_window", None)?;
    for layer in &mut spec.layers {
        layer.window = window;
    }
    Ok(spec)
}
