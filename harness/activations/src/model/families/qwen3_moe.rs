//! Qwen 3 with experts (Yang et al. 2025): a Qwen 3 in which most or all blocks have a mixture of experts in the place of the MLP.

use super::Family;
use super::decoder::{self, Defaults, NAMES};
use super::entries::Entries;
use super::experts;
use super::rope::RopeRules;
use crate::model::spec::{DecoderSpec, QueryKeyNorm};
use crate::model::tensor_names::{Part, TensorNames};

pub(super) const FAMILY: Family = Family {
    model_types: &["qwen3_moe"],
    classes: &["Qwen3MoeForCausalLM", "Qwen3MoeModel"],
    title: "a Qwen 3 with experts",
    models: "Qwen 3 with experts",
    differs: "as Qwen 3, and a mixture of experts in some or all layers",
    handled: &[
        "sliding_window",
        "attention_bias",
        "qk_norm",
        "use_qk_norm",
        "num_experts",
        "num_local_experts",
        "mlp_only_layers",
    ],
    others_are_warnings: false,
    settings: None,
    read,
};

const DEFAULTS: Defaults = Defaults { kv_heads: Some(4), max_positions: 32_768, ..Defaults::LLAMA };

const OWN_NAMES: TensorNames = TensorNames {
    parts: &[
        (Part::AttentionNorm, "input_layernorm"),
        (Part::Query, "self_attn.q_proj"),
        (Part::Key, "self_attn.k_proj"),
        (Part::Value, "self_attn.v_proj"),
        (Part::QueryNorm, "self_attn.q_norm"),
        (Part::KeyNorm, "self_attn.k_norm"),
        (Part::AttentionOutput, "self_attn.o_proj"),
        (Part::MlpNorm, "post_attention_layernorm"),
        (Part::Gate, "mlp.gate_proj"),
        (Part::Up, "mlp.up_proj"),
        (Part::Down, "mlp.down_proj"),
        (Part::Router, "mlp.gate"),
        (Part::ExpertGate, "mlp.experts.*.gate_proj"),
        (Part::ExpertUp, "mlp.experts.*.up_proj"),
        (Part::ExpertDown, "mlp.experts.*.down_proj"),
    ],
    ..NAMES
};

fn read(entries: &Entries<'_>) -> Result<DecoderSpec, String> {
    let mut spec = decoder::read(entries, "qwen3_moe", OWN_NAMES, &DEFAULTS, &RopeRules::of_theta(10_000.0))?;
    spec.attention.query_key_norm = QueryKeyNorm::PerHead;
    decoder::read_attention_bias(entries, &mut spec)?;
    let renormalize = entries.flag("norm_topk_prob", false)?;
    let width = entries.extent("moe_intermediate_size")?;
    let experts = experts::read(entries, width, 8, renormalize, true, true)?;
    for (layer, has_experts) in spec.layers.iter_mut().zip(experts::layers(entries, spec.n_layers)?) {
        layer.experts = has_experts && experts.is_some();
    }
    spec.experts = experts.filter(|_| spec.layers.iter().any(|layer| layer.experts));
    let window = match entries.flag("use_sliding_window", false)? {
        true => entries.window("sliding_window", Some(4096))?,
        false => None,
    };
    let slides = vec![window.is_some(); spec.n_layers];
    decoder::set_windows(&mut spec, &slides, window)?;
    Ok(spec)
}
