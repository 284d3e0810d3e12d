//! Mixtral (Jiang et al. 2024): a Mistral with a mixture of experts in the place of each MLP.

use super::Family;
use super::decoder::{self, Defaults, NAMES};
use super::entries::Entries;
use super::experts;
use super::rope::RopeRules;
use crate::model::spec::DecoderSpec;
use crate::model::tensor_names::{Part, TensorNames};

pub(super) const FAMILY: Family = Family {
    model_types: &["mixtral"],
    classes: &["MixtralForCausalLM", "MixtralModel"],
    title: "a Mixtral",
    models: "Mixtral",
    differs: "mixture of experts with weights that add up to 1; sliding window",
    handled: &["sliding_window", "num_local_experts", "num_experts"],
    others_are_warnings: false,
    settings: None,
    read,
};

const DEFAULTS: Defaults = Defaults { kv_heads: Some(8), max_positions: 131_072, eps: 1e-5, ..Defaults::LLAMA };

const OWN_NAMES: TensorNames = TensorNames {
    parts: &[
        (Part::AttentionNorm, "input_layernorm"),
        (Part::Query, "self_attn.q_proj"),
        (Part::Key, "self_attn.k_proj"),
        (Part::Value, "self_attn.v_proj"),
        (Part::AttentionOutput, "self_attn.o_proj"),
        (Part::MlpNorm, "post_attention_layernorm"),
        (Part::Router, "block_sparse_moe.gate"),
        (Part::ExpertGate, "block_sparse_moe.experts.*.w1"),
        (Part::ExpertUp, "block_sparse_moe.experts.*.w3"),
        (Part::ExpertDown, "block_sparse_moe.experts.*.w2"),
    ],
    ..NAMES
};

fn read(entries: &Entries<'_>) -> Result<DecoderSpec, String> {
    let mut spec = decoder::read(entries, "mixtral", OWN_NAMES, &DEFAULTS, &RopeRules::of_theta(1_000_000.0))?;
    // The weights of experts stay in f32, and are multiplied with outputs in the run's dtype.
    spec.experts = experts::read(entries, spec.intermediate_size, 2, true, false, false)?;
    spec.layers.iter_mut().for_each(|layer| layer.experts = true);
    let window = entries.window("sliding_window", None)?;
    let slides = vec![window.is_some(); spec.n_layers];
    decoder::set_windows(&mut spec, &slides, window)?;
    Ok(spec)
}
