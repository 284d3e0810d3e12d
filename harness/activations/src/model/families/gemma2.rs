//! Gemma 2 (Gemma Team 2024): norms of inputs and outputs, soft-capped scores, and a window in every other layer.

use actbench_kernels::Activation;

use super::Family;
use super::decoder::{self, Defaults, NAMES};
use super::entries::Entries;
use super::gemma;
use super::rope::RopeRules;
use crate::model::spec::{DecoderSpec, NormPlacement};
use crate::model::tensor_names::{Part, TensorNames};

pub(super) const FAMILY: Family = Family {
    model_types: &["gemma2"],
    classes: &["Gemma2ForCausalLM", "Gemma2Model"],
    title: "a Gemma 2",
    models: "Gemma 2",
    differs: "as Gemma, and norms of outputs, a soft cap of scores, alternating windows",
    handled: &[
        "attn_logit_softcapping",
        "attention_bias",
        "hidden_activation",
        "layer_types",
        "query_pre_attn_scalar",
        "sliding_window",
        "use_bidirectional_attention",
    ],
    others_are_warnings: false,
    settings: None,
    read,
};

pub(super) const DEFAULTS: Defaults = Defaults {
    kv_heads: Some(4),
    head_dim: Some(256),
    max_positions: 8192,
    activation_key: "hidden_activation",
    activation: Activation::GeluTanh,
    tied: true,
    ..Defaults::LLAMA
};

const OWN_NAMES: TensorNames = TensorNames {
    parts: &[
        (Part::AttentionNorm, "input_layernorm"),
        (Part::Query, "self_attn.q_proj"),
        (Part::Key, "self_attn.k_proj"),
        (Part::Value, "self_attn.v_proj"),
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

fn read(entries: &Entries<'_>) -> Result<DecoderSpec, String> {
    let mut spec = decoder::read(entries, "gemma2", OWN_NAMES, &DEFAULTS, &RopeRules::of_theta(10_000.0))?;
    read_common(entries, &mut spec)?;
    spec.attention.soft_cap = match entries.map.contains_key("attn_logit_softcapping") {
        true => entries.positive("attn_logit_softcapping")?.map(|cap| cap as f32),
        false => Some(50.0),
    };
    let every_other = || (0..spec.n_layers).map(|layer| layer % 2 == 0).collect();
    let slides: Vec<bool> = entries.sliding_layers(spec.n_layers)?.unwrap_or_else(every_other);
    let window = entries.window("sliding_window", Some(4096))?;
    decoder::set_windows(&mut spec, &slides, window)?;
    Ok(spec)
}

/// What Gemma 2 and 3 have in common.
pub(super) fn read_common(entries: &Entries<'_>, spec: &mut DecoderSpec) -> Result<(), String> {
    gemma::read_common(entries, spec)?;
    decoder::read_attention_bias(entries, spec)?;
    spec.norm_placement = NormPlacement::Both;
    let scalar = entries.positive("query_pre_attn_scalar")?.unwrap_or(256.0);
    spec.attention.scale = scalar.powf(-0.5) as f32;
    Ok(())
}
