//! `qwen3`: the dense models of Qwen 3, which norm each head of queries and keys.

use super::super::gguf::GgufFile;
use super::common::{CommonMetadata, HeadRules};
use super::keys::ModelKeys;
use super::table::{
    ATTENTION_OUTPUT, BiasRule, DOWN, GATE, INPUT_NORM, KEY, MLP_NORM, OUTER, QUERY, TensorModule, TensorTable, UP,
    VALUE, Width,
};
use super::{ArchitectureModel, GgufArchitecture};
use crate::error::Result;

/// The norm of queries, of one head.
pub(super) const QUERY_NORM: TensorModule = TensorModule::new("attn_q_norm", "self_attn.q_norm", &[Width::Head]);

/// The norm of keys, of one head.
pub(super) const KEY_NORM: TensorModule = TensorModule::new("attn_k_norm", "self_attn.k_norm", &[Width::Head]);

pub(super) const ARCHITECTURE: GgufArchitecture = GgufArchitecture {
    name: "qwen3",
    tensors: TensorTable {
        title: "Qwen 3",
        outer: OUTER,
        blocks: "model.layers.",
        modules: &[
            INPUT_NORM,
            QUERY.biased(BiasRule::WithAttention),
            KEY.biased(BiasRule::WithAttention),
            VALUE.biased(BiasRule::WithAttention),
            QUERY_NORM,
            KEY_NORM,
            ATTENTION_OUTPUT.biased(BiasRule::WithAttention),
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
    let mut config = common.decoder_config(&keys, "Qwen3ForCausalLM", "qwen3")?;
    config["num_key_value_heads"] = common.extents.n_kv_heads.into();
    config["head_dim"] = common.extents.head_dim.into();
    config["hidden_act"] = "silu".into();
    config["attention_bias"] = common.extents.attention_bias.into();
    config["use_sliding_window"] = false.into();
    Ok(common.model(config))
}
