//! `gptneox`: GPT-NeoX and Pythia. Queries, keys and values are stored one after the other instead of head by head.

use super::super::gguf::GgufFile;
use super::common::{CommonMetadata, HeadRules};
use super::keys::ModelKeys;
use super::table::{BiasRule, HEAD, TensorLayout, TensorModule, TensorTable, Width};
use super::{ArchitectureModel, GgufArchitecture, rope};
use crate::error::Result;

const RULES: HeadRules = HeadRules { partly_rotated: true, ..HeadRules::PLAIN };

pub(super) const ARCHITECTURE: GgufArchitecture = GgufArchitecture {
    name: "gptneox",
    tensors: TensorTable {
        title: "GPT-NeoX",
        outer: &[
            TensorModule::new("token_embd", "gpt_neox.embed_in", &[Width::Vocabulary, Width::Hidden]),
            TensorModule::new("output_norm", "gpt_neox.final_layer_norm", &[Width::Hidden]).biased(BiasRule::Always),
            HEAD,
        ],
        blocks: "gpt_neox.layers.",
        modules: &[
            TensorModule::new("attn_norm", "input_layernorm", &[Width::Hidden]).biased(BiasRule::Always),
            TensorModule::new("attn_qkv", "attention.query_key_value", &[Width::QueryKeyValue, Width::Hidden])
                .biased(BiasRule::WithAttention)
                .stored(TensorLayout::PartsByHead),
            TensorModule::new("attn_output", "attention.dense", &[Width::Hidden, Width::Query])
                .biased(BiasRule::WithAttention),
            TensorModule::new("ffn_norm", "post_attention_layernorm", &[Width::Hidden]).biased(BiasRule::Always),
            TensorModule::new("ffn_up", "mlp.dense_h_to_4h", &[Width::Inner, Width::Hidden]).biased(BiasRule::Always),
            TensorModule::new("ffn_down", "mlp.dense_4h_to_h", &[Width::Hidden, Width::Inner]).biased(BiasRule::Always),
        ],
        of_config: &[],
    },
    handled: &["use_parallel_residual"],
    read,
};

fn read(gguf: &GgufFile) -> Result<ArchitectureModel> {
    let keys = ModelKeys { gguf, architecture: ARCHITECTURE.name };
    let common = CommonMetadata::read(&keys, &RULES)?;
    let extents = &common.extents;
    let mut config = common.extents_config("GPTNeoXForCausalLM", "gpt_neox");
    // The converter drops the activation. GPT-NeoX-20B has the tanh form, Pythia the exact one.
    let is_largest = (extents.n_layers, extents.hidden_size) == (44, 6144);
    let activation = if is_largest { "gelu_fast" } else { "gelu" };
    config["hidden_act"] = activation.into();
    config["layer_norm_eps"] = common.eps.into();
    config["rotary_pct"] = rope::rotated_fraction(common.rotary_dim, extents.head_dim).into();
    if let Some(theta) = common.rope_theta {
        config["rotary_emb_base"] = theta.into();
    }
    config["rope_scaling"] = rope::read_scaling(&keys)?;
    config["use_parallel_residual"] = keys.flag("use_parallel_residual")?.unwrap_or(true).into();
    config["attention_bias"] = extents.attention_bias.into();
    Ok(common.model(config))
}
