//! `gpt2`: learned positions, and matrices that Hugging Face stores transposed.

use serde_json::json;

use super::super::gguf::GgufFile;
use super::common::{CommonMetadata, HeadRules};
use super::keys::ModelKeys;
use super::table::{BiasRule, HEAD, TensorLayout, TensorModule, TensorTable, Width};
use super::{ArchitectureModel, GgufArchitecture};
use crate::error::Result;

/// A `Conv1D`.
const fn conv1d(ggml: &'static str, name: &'static str, shape: &'static [Width]) -> TensorModule {
    TensorModule::new(ggml, name, shape).biased(BiasRule::Always).stored(TensorLayout::Transposed)
}

/// A LayerNorm.
const fn norm(ggml: &'static str, name: &'static str) -> TensorModule {
    TensorModule::new(ggml, name, &[Width::Hidden]).biased(BiasRule::Always)
}

pub(super) const ARCHITECTURE: GgufArchitecture = GgufArchitecture {
    name: "gpt2",
    tensors: TensorTable {
        title: "GPT-2",
        outer: &[
            TensorModule::new("token_embd", "transformer.wte", &[Width::Vocabulary, Width::Hidden]),
            TensorModule::new("position_embd", "transformer.wpe", &[Width::Positions, Width::Hidden]),
            norm("output_norm", "transformer.ln_f"),
            HEAD,
        ],
        blocks: "transformer.h.",
        modules: &[
            norm("attn_norm", "ln_1"),
            conv1d("attn_qkv", "attn.c_attn", &[Width::QueryKeyValue, Width::Hidden]),
            conv1d("attn_output", "attn.c_proj", &[Width::Hidden, Width::Query]),
            norm("ffn_norm", "ln_2"),
            conv1d("ffn_up", "mlp.c_fc", &[Width::Inner, Width::Hidden]),
            conv1d("ffn_down", "mlp.c_proj", &[Width::Hidden, Width::Inner]),
        ],
        of_config: &[],
    },
    handled: &[],
    read,
};

fn read(gguf: &GgufFile) -> Result<ArchitectureModel> {
    let keys = ModelKeys { gguf, architecture: ARCHITECTURE.name };
    let mut common = CommonMetadata::read(&keys, &HeadRules::PLAIN)?;
    let Some(positions) = gguf.find_tensor("position_embd.weight") else {
        return keys.fail("has no tensor 'position_embd.weight'");
    };
    // The converter's context length is `n_ctx`, which the model does not use.
    common.extents.max_positions = positions.shape[0];
    let extents = &common.extents;
    let mut config = json!({
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": extents.vocab_size,
        "n_embd": extents.hidden_size,
        "n_inner": extents.intermediate_size,
        "n_layer": extents.n_layers,
        "n_head": extents.n_heads,
        "n_positions": extents.max_positions,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": common.eps,
        "tie_word_embeddings": extents.tie_word_embeddings,
    });
    common.add_tokens(&mut config);
    Ok(common.model(config))
}
