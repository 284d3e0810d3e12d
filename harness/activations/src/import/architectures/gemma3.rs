//! `gemma3`: the text model of Gemma 3. Layers with a window, five of six, have a rotary base of their own.

use super::super::gguf::GgufFile;
use super::common::{CommonMetadata, HeadRules, layer_types};
use super::keys::ModelKeys;
use super::qwen3::{KEY_NORM, QUERY_NORM};
use super::table::{
    ATTENTION_OUTPUT, BiasRule, DOWN, GATE, INPUT_NORM, KEY, QUERY, TensorLayout, TensorTable, UP, VALUE,
};
use super::{ArchitectureModel, GgufArchitecture, gemma, gemma2};
use crate::error::Result;

/// Blocks of the model of 27 billion weights.
const LARGEST_LAYERS: usize = 62;

/// The base of layers with a window, which most files do not have.
const LOCAL_ROPE_THETA: f64 = 10_000.0;

pub(super) const ARCHITECTURE: GgufArchitecture = GgufArchitecture {
    name: "gemma3",
    tensors: TensorTable {
        title: "Gemma 3",
        outer: gemma::OUTER,
        blocks: "model.layers.",
        modules: &[
            INPUT_NORM.stored(TensorLayout::PlusOne),
            QUERY.biased(BiasRule::WithAttention),
            KEY.biased(BiasRule::WithAttention),
            VALUE.biased(BiasRule::WithAttention),
            QUERY_NORM.stored(TensorLayout::PlusOne),
            KEY_NORM.stored(TensorLayout::PlusOne),
            ATTENTION_OUTPUT.biased(BiasRule::WithAttention),
            gemma2::ATTENTION_OUTPUT_NORM,
            gemma2::MLP_INPUT_NORM,
            GATE,
            UP,
            DOWN,
            gemma2::MLP_OUTPUT_NORM,
        ],
        of_config: &[],
    },
    handled: &["attention.sliding_window", "attention.sliding_window_pattern", "rope.freq_base_swa"],
    read,
};

fn read(gguf: &GgufFile) -> Result<ArchitectureModel> {
    let keys = ModelKeys { gguf, architecture: ARCHITECTURE.name };
    let common = CommonMetadata::read(&keys, &HeadRules::GROUPED)?;
    let mut config = gemma::read_common(&keys, &common, "Gemma3ForCausalLM", "gemma3_text")?;
    // llama.cpp and transformers have different defaults for these two, and its converter writes both.
    config["rope_theta"] = keys.required_positive("rope.freq_base")?.into();
    config["sliding_window"] = keys.required_count("attention.sliding_window")?.into();
    config["rope_local_base_freq"] = keys.positive("rope.freq_base_swa")?.unwrap_or(LOCAL_ROPE_THETA).into();
    match keys.sliding_layers(common.extents.n_layers)? {
        Some(slides) => config["layer_types"] = layer_types(&slides),
        None => config["sliding_window_pattern"] = 6.into(),
    }
    let scalar = gemma2::score_scalar(&common.extents, LARGEST_LAYERS);
    config["query_pre_attn_scalar"] = scalar.into();
    Ok(common.scaled_model(config, scalar))
}
