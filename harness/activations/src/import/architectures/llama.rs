//! `llama`: Llama 1 to 3 and the models with the same decoder. Queries and keys are stored in another order of rows.

use super::super::config::LlamaMetadata;
use super::super::gguf::GgufFile;
use super::table::{
    ATTENTION_OUTPUT, BiasRule, DOWN, GATE, INPUT_NORM, KEY, MLP_NORM, ModelExtents, OUTER, QUERY, TensorLayout,
    TensorTable, UP, VALUE,
};
use super::{ArchitectureModel, GgufArchitecture};
use crate::error::Result;

pub(super) const ARCHITECTURE: GgufArchitecture = GgufArchitecture {
    name: "llama",
    tensors: TensorTable {
        title: "Llama",
        outer: OUTER,
        blocks: "model.layers.",
        modules: &[
            INPUT_NORM,
            QUERY.biased(BiasRule::WithAttention).stored(TensorLayout::QueryPairs),
            KEY.biased(BiasRule::WithAttention).stored(TensorLayout::KeyPairs),
            VALUE.biased(BiasRule::WithAttention),
            ATTENTION_OUTPUT.biased(BiasRule::WithAttention),
            MLP_NORM,
            GATE.biased(BiasRule::WithMlp),
            UP.biased(BiasRule::WithMlp),
            DOWN.biased(BiasRule::WithMlp),
        ],
        // The divisors of Llama 3.1's rotary frequencies.
        of_config: &["rope_freqs.weight"],
    },
    handled: &[],
    read,
};

fn read(gguf: &GgufFile) -> Result<ArchitectureModel> {
    let metadata = LlamaMetadata::read(gguf)?;
    let shape = &metadata.shape;
    Ok(ArchitectureModel {
        extents: ModelExtents {
            vocab_size: shape.vocab_size,
            max_positions: metadata.max_position_embeddings,
            hidden_size: shape.hidden_size,
            intermediate_size: shape.intermediate_size,
            n_layers: shape.n_layers,
            n_heads: shape.n_heads,
            n_kv_heads: shape.n_kv_heads,
            head_dim: shape.head_dim,
            tie_word_embeddings: shape.tie_word_embeddings,
            attention_bias: metadata.attention_bias,
            mlp_bias: metadata.mlp_bias,
        },
        config: metadata.to_json(),
        score_scale: 1.0 / (shape.head_dim as f64).sqrt(),
    })
}
