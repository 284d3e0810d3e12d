//! SmolLM 3 (Hugging Face 2025): a Llama with layers that do not rotate queries and keys, every fourth.

use super::Family;
use super::decoder::{self, Defaults, NAMES};
use super::entries::Entries;
use super::rope::RopeRules;
use crate::model::spec::DecoderSpec;
use crate::python_json::{describe, is_truthy};

pub(super) const FAMILY: Family = Family {
    model_types: &["smollm3"],
    classes: &["SmolLM3ForCausalLM", "SmolLM3Model"],
    title: "a SmolLM 3",
    models: "SmolLM3",
    differs: "layers without rotation",
    handled: &[
        "attention_bias",
        "layer_types",
        "mlp_bias",
        "no_rope_layer_interval",
        "no_rope_layers",
        "sliding_window",
    ],
    others_are_warnings: false,
    settings: None,
    read,
};

const DEFAULTS: Defaults = Defaults { kv_heads: Some(4), max_positions: 32_768, tied: true, ..Defaults::LLAMA };

fn read(entries: &Entries<'_>) -> Result<DecoderSpec, String> {
    let mut spec = decoder::read(entries, "smollm3", NAMES, &DEFAULTS, &RopeRules::of_theta(2_000_000.0))?;
    decoder::read_attention_bias(entries, &mut spec)?;
    spec.mlp.bias = entries.flag("mlp_bias", false)?;
    let rotates = rotating_layers(entries, spec.n_layers)?;
    for (layer, rotates) in spec.layers.iter_mut().zip(&rotates) {
        layer.rope = rotates.then_some(0);
    }
    let window = entries.window("sliding_window", None)?;
    let has_windows = entries.flag("use_sliding_window", false)? && window.is_some();
    let without_rope = || rotates.iter().map(|rotates| has_windows && !rotates).collect();
    let slides: Vec<bool> = entries.sliding_layers(spec.n_layers)?.unwrap_or_else(without_rope);
    decoder::set_windows(&mut spec, &slides, window)?;
    Ok(spec)
}

/// For each layer whether it rotates: `no_rope_layers` has a 1 where it does, in spite of its name.
fn rotating_layers(entries: &Entries<'_>, n_layers: usize) -> Result<Vec<bool>, String> {
    let Some(value) = entries.given("no_rope_layers") else {
        let interval = entries.positions("no_rope_layer_interval", 4)?;
        return Ok((0..n_layers).map(|layer| (layer + 1) % interval != 0).collect());
    };
    let layers = value.as_array().ok_or_else(|| format!("no_rope_layers is {}, expected a list", describe(value)))?;
    if layers.len() < n_layers {
        return Err(format!("no_rope_layers has {} entries for {n_layers} layers", layers.len()));
    }
    Ok(layers.iter().take(n_layers).map(is_truthy).collect())
}
