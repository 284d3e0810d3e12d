//! Llama (Touvron et al. 2023) and the models that are published as one.

use super::Family;
use super::decoder::{self, Defaults, NAMES};
use super::entries::Entries;
use super::rope::RopeRules;
use crate::model::spec::DecoderSpec;

pub(super) const FAMILY: Family = Family {
    model_types: &["llama"],
    classes: &["LlamaForCausalLM", "LlamaModel"],
    title: "a Llama",
    models: "Llama 2 and 3, SmolLM2, TinyLlama",
    differs: "",
    handled: &["attention_bias", "mlp_bias"],
    others_are_warnings: true,
    settings: None,
    read,
};

fn read(entries: &Entries<'_>) -> Result<DecoderSpec, String> {
    entries.silu("hidden_act")?;
    let rules = RopeRules { ignores_layer_types: true, ..RopeRules::of_theta(10_000.0) };
    let mut spec = decoder::read(entries, "llama", NAMES, &Defaults::LLAMA, &rules)?;
    decoder::read_attention_bias(entries, &mut spec)?;
    spec.mlp.bias = entries.flag("mlp_bias", false)?;
    Ok(spec)
}
