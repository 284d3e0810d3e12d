//! Converts the GGUF metadata of a Llama model to a `config.json` in Hugging Face's format.

use actbench_fixtures::presets::LlamaShape;
use serde_json::{Value as Json, json};

use super::gguf::GgufFile;
use super::rope_scaling::{GgufRopeScaling, read_rope_scaling};
use crate::error::{Error, Result};

/// The default base of the rotary frequencies: that of the first Llama.
const DEFAULT_ROPE_THETA: f64 = 10_000.0;

/// The configuration of a Llama model.
#[derive(Clone, Debug, PartialEq)]
pub struct LlamaMetadata {
    /// The extents of the tensors.
    pub shape: LlamaShape,
    /// The context length of the training.
    pub max_position_embeddings: usize,
    /// The base of the rotary frequencies.
    pub rope_theta: f64,
    /// The scaling of the rotary frequencies, if any.
    pub rope_scaling: Option<GgufRopeScaling>,
    /// The epsilon of every RMS norm.
    pub rms_norm_eps: f64,
    /// Whether the attention projections have biases.
    pub attention_bias: bool,
    /// Whether the feed-forward projections have biases.
    pub mlp_bias: bool,
    /// The BOS token.
    pub bos_token_id: Option<u32>,
    /// The EOS token.
    pub eos_token_id: Option<u32>,
    /// The padding token.
    pub pad_token_id: Option<u32>,
}

impl LlamaMetadata {
    /// Reads and checks the metadata under `llama.`.
    ///
    /// # Errors
    /// A missing or invalid value, or a variant of Llama that Hugging Face's `LlamaForCausalLM` does not support:
    /// experts, head counts that differ by layer, partial rotary embeddings.
    pub fn read(gguf: &GgufFile) -> Result<LlamaMetadata> {
        let fail = |what: String| Err(Error::file(gguf.path(), what));
        if gguf.optional_count("llama.expert_count")?.is_some_and(|experts| experts > 0) {
            return fail("is a mixture of experts, which is not supported".to_owned());
        }
        let hidden_size = required_count(gguf, "llama.embedding_length")?;
        let n_heads = required_count(gguf, "llama.attention.head_count")?;
        let n_kv_heads = gguf.optional_count("llama.attention.head_count_kv")?.unwrap_or(n_heads);
        if n_heads == 0 || n_kv_heads == 0 || !n_heads.is_multiple_of(n_kv_heads) {
            return fail(format!("has {n_heads} query heads, which is not a multiple of {n_kv_heads} key/value heads"));
        }
        let head_dim = gguf.optional_count("llama.attention.key_length")?.unwrap_or(hidden_size / n_heads);
        if gguf.optional_count("llama.attention.value_length")?.is_some_and(|value| value != head_dim) {
            return fail("has keys and values of different widths, which is not supported".to_owned());
        }
        let rotated = gguf.optional_count("llama.rope.dimension_count")?.unwrap_or(head_dim);
        if rotated != head_dim || head_dim == 0 || !head_dim.is_multiple_of(2) {
            return fail(format!(
                "applies rotary embedding to {rotated} of {head_dim} elements of a head; only all, and an even number, are supported"
            ));
        }
        let Some(embedding) = gguf.find_tensor("token_embd.weight") else {
            return fail("has no tensor 'token_embd.weight'".to_owned());
        };
        let n_layers = required_count(gguf, "llama.block_count")?;
        if n_layers > gguf.tensors().len() {
            return fail(format!("declares {n_layers} blocks but has {} tensors", gguf.tensors().len()));
        }
        let rope_theta = gguf.optional_number("llama.rope.freq_base")?.unwrap_or(DEFAULT_ROPE_THETA);
        let rms_norm_eps = gguf.optional_number("llama.attention.layer_norm_rms_epsilon")?;
        let (Some(rms_norm_eps), true) = (rms_norm_eps, rope_theta.is_finite() && rope_theta > 0.0) else {
            return fail("has no valid 'llama.attention.layer_norm_rms_epsilon' or 'llama.rope.freq_base'".to_owned());
        };
        let max_position_embeddings = required_count(gguf, "llama.context_length")?;
        let token_id = |key: &str| -> Result<Option<u32>> {
            Ok(gguf.token_id(key, embedding.shape[0])?.and_then(|id| u32::try_from(id).ok()))
        };
        Ok(LlamaMetadata {
            shape: LlamaShape {
                vocab_size: embedding.shape[0],
                hidden_size,
                intermediate_size: required_count(gguf, "llama.feed_forward_length")?,
                n_layers,
                n_heads,
                n_kv_heads,
                head_dim,
                tie_word_embeddings: gguf.find_tensor("output.weight").is_none(),
            },
            max_position_embeddings,
            rope_theta,
            rope_scaling: read_rope_scaling(gguf, head_dim, rope_theta, max_position_embeddings)?,
            rms_norm_eps,
            attention_bias: gguf.find_tensor("blk.0.attn_q.bias").is_some(),
            mlp_bias: gguf.find_tensor("blk.0.ffn_gate.bias").is_some(),
            bos_token_id: token_id("tokenizer.ggml.bos_token_id")?,
            eos_token_id: token_id("tokenizer.ggml.eos_token_id")?,
            pad_token_id: token_id("tokenizer.ggml.padding_token_id")?,
        })
    }

    /// The content of `config.json`, except the type of the weights.
    pub fn to_json(&self) -> Json {
        let shape = &self.shape;
        json!({
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": shape.vocab_size,
            "hidden_size": shape.hidden_size,
            "intermediate_size": shape.intermediate_size,
            "num_hidden_layers": shape.n_layers,
            "num_attention_heads": shape.n_heads,
            "num_key_value_heads": shape.n_kv_heads,
            "head_dim": shape.head_dim,
            "hidden_act": "silu",
            "max_position_embeddings": self.max_position_embeddings,
            "rms_norm_eps": self.rms_norm_eps,
            "rope_theta": self.rope_theta,
            "rope_scaling": self.rope_scaling.as_ref().map_or(Json::Null, GgufRopeScaling::to_json),
            "tie_word_embeddings": shape.tie_word_embeddings,
            "attention_bias": self.attention_bias,
            "mlp_bias": self.mlp_bias,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": self.eos_token_id,
            "pad_token_id": self.pad_token_id,
        })
    }
}

fn required_count(gguf: &GgufFile, key: &str) -> Result<usize> {
    gguf.optional_count(key)?.ok_or_else(|| Error::file(gguf.path(), format!("has no metadata '{key}'")))
}
