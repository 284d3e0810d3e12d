//! Gemma (Gemma Team 2024): a scaled embedding, norms whose weights are stored without 1, and GELU.

use actbench_kernels::Activation;
use serde_json::Value;

use super::Family;
use super::decoder::{self, Defaults, NAMES};
use super::entries::Entries;
use super::rope::RopeRules;
use crate::model::spec::{DecoderSpec, NormKind};

pub(super) const FAMILY: Family = Family {
    model_types: &["gemma"],
    classes: &["GemmaForCausalLM", "GemmaModel"],
    title: "a Gemma",
    models: "Gemma",
    differs: "scaled embedding, norms with `1 + w`, GELU",
    // transformers reads `hidden_act` alone; published files have both.
    handled: &["hidden_activation", "attention_bias", "use_bidirectional_attention"],
    others_are_warnings: false,
    settings: None,
    read,
};

const DEFAULTS: Defaults = Defaults {
    kv_heads: Some(16),
    head_dim: Some(256),
    max_positions: 8192,
    activation: Activation::GeluTanh,
    tied: true,
    ..Defaults::LLAMA
};

fn read(entries: &Entries<'_>) -> Result<DecoderSpec, String> {
    let mut spec = decoder::read(entries, "gemma", NAMES, &DEFAULTS, &RopeRules::of_theta(10_000.0))?;
    // The first files name the exact form, but the models were trained with the approximation; transformers corrects it too.
    if entries.map.get("hidden_act").and_then(Value::as_str) == Some("gelu") {
        spec.mlp.activation = Activation::GeluTanh;
    }
    decoder::read_attention_bias(entries, &mut spec)?;
    read_common(entries, &mut spec)?;
    Ok(spec)
}

/// What all Gemmas have in common.
pub(super) fn read_common(entries: &Entries<'_>, spec: &mut DecoderSpec) -> Result<(), String> {
    entries.refuse_flag("use_bidirectional_attention", "attention in both directions is not supported")?;
    spec.norm.kind = NormKind::RmsPlusOne;
    spec.embedding.scale = Some((spec.hidden_size as f64).sqrt());
    Ok(())
}
