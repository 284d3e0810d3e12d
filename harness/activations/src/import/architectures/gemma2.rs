//! `gemma2`: norms of inputs and outputs, soft-capped scores, and a window in every other layer.

use super::super::gguf::GgufFile;
use super::common::{CommonMetadata, HeadRules, layer_types};
use super::gemma;
use super::keys::ModelKeys;
use super::table::{
    ATTENTION_OUTPUT, BiasRule, DOWN, GATE, INPUT_NORM, KEY, ModelExtents, QUERY, TensorLayout, TensorModule,
    TensorTable, UP, VALUE, Width,
};
use super::{ArchitectureModel, GgufArchitecture};
use crate::error::Result;

/// The norm of attention's output.
pub(super) const ATTENTION_OUTPUT_NORM: TensorModule =
    TensorModule::new("post_attention_norm", "post_attention_layernorm", &[Width::Hidden])
        .stored(TensorLayout::PlusOne);

/// The norm of the MLP's input.
pub(super) const MLP_INPUT_NORM: TensorModule =
    TensorModule::new("ffn_norm", "pre_feedforward_layernorm", &[Width::Hidden]).stored(TensorLayout::PlusOne);

/// The norm of the MLP's output.
pub(super) const MLP_OUTPUT_NORM: TensorModule =
    TensorModule::new("post_ffw_norm", "post_feedforward_layernorm", &[Width::Hidden]).stored(TensorLayout::PlusOne);

/// Blocks of the model of 27 billion weights, the only one whose scores are not scaled by the width of a head.
const LARGEST_LAYERS: usize = 46;

pub(super) const ARCHITECTURE: GgufArchitecture = GgufArchitecture {
    name: "gemma2",
    tensors: TensorTable {
        title: "Gemma 2",
        outer: gemma::OUTER,
        blocks: "model.layers.",
        modules: &[
            INPUT_NORM.stored(TensorLayout::PlusOne),
            QUERY.biased(BiasRule::WithAttention),
            KEY.biased(BiasRule::WithAttention),
            VALUE.biased(BiasRule::WithAttention),
            ATTENTION_OUTPUT.biased(BiasRule::WithAttention),
            ATTENTION_OUTPUT_NORM,
            MLP_INPUT_NORM,
            GATE,
            UP,
            DOWN,
            MLP_OUTPUT_NORM,
        ],
        of_config: &[],
    },
    handled: &["attn_logit_softcapping", "attention.sliding_window", "attention.sliding_window_pattern"],
    read,
};

fn read(gguf: &GgufFile) -> Result<ArchitectureModel> {
    let keys = ModelKeys { gguf, architecture: ARCHITECTURE.name };
    let common = CommonMetadata::read(&keys, &HeadRules::GROUPED)?;
    let mut config = gemma::read_common(&keys, &common, "Gemma2ForCausalLM", "gemma2")?;
    // The defaults of llama.cpp and of transformers are the same for the keys that can be absent.
    for key in ["attn_logit_softcapping", "final_logit_softcapping"] {
        if let Some(cap) = keys.positive(key)? {
            config[key] = cap.into();
        }
    }
    if let Some(window) = keys.count("attention.sliding_window")? {
        config["sliding_window"] = window.into();
    }
    if let Some(slides) = keys.sliding_layers(common.extents.n_layers)? {
        config["layer_types"] = layer_types(&slides);
    }
    let scalar = score_scalar(&common.extents, LARGEST_LAYERS);
    config["query_pre_attn_scalar"] = scalar.into();
    Ok(common.scaled_model(config, scalar))
}

/// The value of `query_pre_attn_scalar`, which the converter drops. As in llama.cpp: `hidden_size / n_heads` for the largest
/// model, which has `largest_layers` blocks, and the width of a head for the others.
pub(super) fn score_scalar(extents: &ModelExtents, largest_layers: usize) -> usize {
    if extents.n_layers == largest_layers { extents.hidden_size / extents.n_heads } else { extents.head_dim }
}
