//! `gemma`: the first Gemma. llama.cpp's converter adds the 1 of its norms to their weights.

use serde_json::Value as Json;

use super::super::gguf::GgufFile;
use super::common::{CommonMetadata, HeadRules};
use super::keys::ModelKeys;
use super::table::{
    ATTENTION_OUTPUT, BiasRule, DOWN, EMBEDDING, FINAL_NORM, GATE, HEAD, INPUT_NORM, KEY, MLP_NORM, QUERY,
    TensorLayout, TensorModule, TensorTable, UP, VALUE,
};
use super::{ArchitectureModel, GgufArchitecture};
use crate::error::Result;

/// The modules outside of blocks of every Gemma.
pub(super) const OUTER: &[TensorModule] = &[EMBEDDING, FINAL_NORM.stored(TensorLayout::PlusOne), HEAD];

pub(super) const ARCHITECTURE: GgufArchitecture = GgufArchitecture {
    name: "gemma",
    tensors: TensorTable {
        title: "Gemma",
        outer: OUTER,
        blocks: "model.layers.",
        modules: &[
            INPUT_NORM.stored(TensorLayout::PlusOne),
            QUERY.biased(BiasRule::WithAttention),
            KEY.biased(BiasRule::WithAttention),
            VALUE.biased(BiasRule::WithAttention),
            ATTENTION_OUTPUT.biased(BiasRule::WithAttention),
            MLP_NORM.stored(TensorLayout::PlusOne),
            GATE,
            UP,
            DOWN,
        ],
        of_config: &[],
    },
    handled: &[],
    read,
};

fn read(gguf: &GgufFile) -> Result<ArchitectureModel> {
    let keys = ModelKeys { gguf, architecture: ARCHITECTURE.name };
    let common = CommonMetadata::read(&keys, &HeadRules::GROUPED)?;
    let mut config = read_common(&keys, &common, "GemmaForCausalLM", "gemma")?;
    // Gemma's class reads this key, and those of its successors the other.
    config["hidden_act"] = config["hidden_activation"].clone();
    Ok(common.model(config))
}

/// The configuration that all Gemmas have.
pub(super) fn read_common(
    keys: &ModelKeys<'_>,
    common: &CommonMetadata,
    class: &str,
    model_type: &str,
) -> Result<Json> {
    let mut config = common.decoder_config(keys, class, model_type)?;
    config["num_key_value_heads"] = common.extents.n_kv_heads.into();
    config["head_dim"] = common.extents.head_dim.into();
    config["hidden_activation"] = "gelu_pytorch_tanh".into();
    config["attention_bias"] = common.extents.attention_bias.into();
    Ok(config)
}
