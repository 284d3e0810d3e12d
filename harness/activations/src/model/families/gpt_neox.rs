//! GPT-NeoX (Black et al. 2022) and Pythia (Biderman et al. 2023): LayerNorm, biases, attention and MLP in parallel, and rotation of a
//! part of each head.

use actbench_kernels::Activation;

use super::Family;
use super::decoder::{self, Defaults};
use super::entries::Entries;
use super::rope::RopeRules;
use crate::model::spec::{DecoderSpec, NormKind};
use crate::model::tensor_names::{Part, Stacking, TensorNames};
use crate::python_json::describe;

pub(super) const FAMILY: Family = Family {
    model_types: &["gpt_neox"],
    classes: &["GPTNeoXForCausalLM", "GPTNeoXModel"],
    title: "a GPT-NeoX",
    models: "GPT-NeoX, Pythia",
    differs: "LayerNorm, parallel residual, partial rotation, plain GELU",
    handled: &["attention_bias", "layer_norm_eps", "rotary_emb_base", "rotary_pct", "use_parallel_residual"],
    others_are_warnings: false,
    settings: None,
    read,
};

const DEFAULTS: Defaults =
    Defaults { eps_key: "layer_norm_eps", eps: 1e-5, activation: Activation::Gelu, ..Defaults::LLAMA };

const RULES: RopeRules =
    RopeRules { theta_key: "rotary_emb_base", fraction: Some(("rotary_pct", 0.25)), ..RopeRules::of_theta(10_000.0) };

const NAMES: TensorNames = TensorNames {
    base: "gpt_neox.",
    aliases: &[("embed_out.", "lm_head.")],
    embedding: "gpt_neox.embed_in.weight",
    positions: None,
    final_norm: "gpt_neox.final_layer_norm",
    head: "lm_head.weight",
    blocks: "gpt_neox.layers.",
    parts: &[
        (Part::AttentionNorm, "input_layernorm"),
        (Part::Query, "attention.query_key_value"),
        (Part::Key, "attention.query_key_value"),
        (Part::Value, "attention.query_key_value"),
        (Part::AttentionOutput, "attention.dense"),
        (Part::MlpNorm, "post_attention_layernorm"),
        (Part::Up, "mlp.dense_h_to_4h"),
        (Part::Down, "mlp.dense_4h_to_h"),
    ],
    stacking: Stacking::ByHead,
    transposed: false,
    buffers: &["attention.bias", "attention.masked_bias", "rotary_emb.inv_freq"],
};

fn read(entries: &Entries<'_>) -> Result<DecoderSpec, String> {
    let mut spec = decoder::read(entries, "gpt_neox", NAMES, &DEFAULTS, &RULES)?;
    entries.head_dim_of_hidden(spec.hidden_size, spec.n_heads)?;
    if spec.n_kv_heads != spec.n_heads {
        return Err(format!("num_key_value_heads is {}, but a GPT-NeoX has none of its own", spec.n_kv_heads));
    }
    if let Some(theta) = entries.given("rope_theta") {
        entries.warn(format!("rope_theta {} is not used: a GPT-NeoX has rotary_emb_base", describe(theta)));
    }
    spec.norm.kind = NormKind::Layer;
    spec.parallel_residual = entries.flag("use_parallel_residual", true)?;
    let bias = entries.flag("attention_bias", true)?;
    (spec.attention.qkv_bias, spec.attention.output_bias) = (bias, bias);
    (spec.mlp.gated, spec.mlp.bias) = (false, true);
    Ok(spec)
}
