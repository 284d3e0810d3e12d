//! Qwen 2 and 2.5 (Yang et al. 2024): a Llama whose query, key and value projections have biases.

use super::Family;
use super::decoder::{self, Defaults, NAMES};
use super::entries::Entries;
use super::rope::RopeRules;
use crate::model::spec::DecoderSpec;

pub(super) const FAMILY: Family = Family {
    model_types: &["qwen2"],
    classes: &["Qwen2ForCausalLM", "Qwen2Model"],
    title: "a Qwen 2",
    models: "Qwen 2 and 2.5",
    differs: "biases of query, key and value; windows by layer",
    // The biases are not in the configuration, and a file that names them means the same.
    handled: &["sliding_window", "layer_types", "attention_bias", "qkv_bias", "use_qkv_bias"],
    others_are_warnings: false,
    settings: None,
    read,
};

pub(super) const DEFAULTS: Defaults = Defaults { kv_heads: Some(32), max_positions: 32_768, ..Defaults::LLAMA };

fn read(entries: &Entries<'_>) -> Result<DecoderSpec, String> {
    let mut spec = decoder::read(entries, "qwen2", NAMES, &DEFAULTS, &RopeRules::of_theta(10_000.0))?;
    spec.attention.qkv_bias = true;
    read_windows(entries, &mut spec)?;
    Ok(spec)
}

/// Reads the windows of Qwen 2 and 3: in the layers from `max_window_layers` on, if they are asked for at all.
pub(super) fn read_windows(entries: &Entries<'_>, spec: &mut DecoderSpec) -> Result<(), String> {
    let window = match entries.flag("use_sliding_window", false)? {
        true => entries.window("sliding_window", Some(4096))?,
        false => None,
    };
    let first = entries.count("max_window_layers", 28)?;
    let by_depth = || (0..spec.n_layers).map(|layer| window.is_some() && layer >= first).collect();
    let slides: Vec<bool> = entries.sliding_layers(spec.n_layers)?.unwrap_or_else(by_depth);
    decoder::set_windows(spec, &slides, window)
}
