//! Mistral (Jiang et al. 2023): a Llama with a window of attention in all layers, which later versions leave out.

use super::Family;
use super::decoder::{self, Defaults, NAMES};
use super::entries::Entries;
use super::rope::RopeRules;
use crate::model::spec::DecoderSpec;

pub(super) const FAMILY: Family = Family {
    model_types: &["mistral"],
    classes: &["MistralForCausalLM", "MistralModel"],
    title: "a Mistral",
    models: "Mistral",
    differs: "sliding window",
    handled: &["sliding_window", "layer_types"],
    others_are_warnings: false,
    settings: None,
    read,
};

const DEFAULTS: Defaults = Defaults { kv_heads: Some(8), max_positions: 131_072, ..Defaults::LLAMA };

fn read(entries: &Entries<'_>) -> Result<DecoderSpec, String> {
    if entries.map.contains_key("layer_types") {
        entries.warn("layer_types is not used: all layers of a Mistral have the same attention".to_owned());
    }
    let mut spec = decoder::read(entries, "mistral", NAMES, &DEFAULTS, &RopeRules::of_theta(10_000.0))?;
    // A file of the first version may lack the key, and null is none.
    let window = entries.window("sliding_window", Some(4096))?;
    for layer in &mut spec.layers {
        layer.window = window;
    }
    Ok(spec)
}
