//! `qwen2`: Qwen 2 and 2.5, a Llama with biases of queries, keys and values, and rows in Hugging Face's order.

use super::super::gguf::GgufFile;
use super::common::{CommonMetadata, HeadRules};
use super::keys::ModelKeys;
use super::table::{
    ATTENTION_OUTPUT, BiasRule, DOWN, GATE, INPUT_NORM, KEY, MLP_NORM, OUTER, QUERY, TensorTable, UP, VALUE,
};
use super::{ArchitectureModel, GgufArchitecture};
use crate::error::Result;

pub(super) const ARCHITECTURE: GgufArchitecture = GgufArchitecture {
    name: "qwen2",
    tensors: TensorTable {
        title: "Qwen 2",
        outer: OUTER,
        blocks: "model.layers.",
        modules: &[
            INPUT_NORM,
            QUERY.biased(BiasRule::Always),
            KEY.biased(BiasRule::Always),
            VALUE.biased(BiasRule::Always),
            ATTENTION_OUTPUT,
            MLP_NORM,
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
    let mut config = common.decoder_config(&keys, "Qwen2ForCausalLM", "qwen2")?;
    config["num_key_value_heads"] = common.extents.n_kv_heads.into();
    config["head_dim"] = common.extents.head_dim.into();
    config["hidden_act"] = "silu".into();
    // llama.cpp computes no windows for the architecture, and its converter drops them.
    config["use_sliding_window"] = false.into();
    Ok(common.model(config))
}
