//! Mistral (Jiang et al. 2023): a Llama with a window of attention in all layers, which later versions leave out in some or all.

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
    let mut spec = decoder::read(entries, "mistral", NAMES, &DEFAULTS, &RopeRules::of_theta(10_000.0))?;
    // A file of the first version may lack the key, and null is none.
    let window = entries.window("sliding_window", Some(4096))?;
    // `AutoModel` reads a Mistral with `layer_types` as a Ministral, which is a Mistral but for the layers without a window.
    let everywhere = || vec![window.is_some(); spec.n_layers];
    let slides: Vec<bool> = entries.sliding_layers(spec.n_layers)?.unwrap_or_else(everywhere);
    decoder::set_windows(&mut spec, &slides, window)?;
    Ok(spec)
}
