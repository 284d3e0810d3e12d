//! The metadata that all architectures but `llama` have in common, and the configuration made of it.

use serde_json::{Value as Json, json};

use super::keys::ModelKeys;
use super::table::ModelExtents;
use super::{ArchitectureModel, rope};
use crate::error::Result;

/// What the heads of an architecture can be.
#[derive(Clone, Copy)]
pub(super) struct HeadRules {
    /// Whether key/value heads can be fewer than query heads.
    pub(super) grouped: bool,
    /// Whether the width of a head can differ from `hidden_size / n_heads`.
    pub(super) own_width: bool,
    /// Whether a part of a head can be rotated.
    pub(super) partly_rotated: bool,
    /// The key of the norms' epsilon.
    pub(super) eps: &'static str,
}

impl HeadRules {
    /// The heads of most architectures, with RMS norms.
    pub(super) const GROUPED: HeadRules =
        HeadRules { grouped: true, own_width: true, partly_rotated: false, eps: "attention.layer_norm_rms_epsilon" };

    /// The heads of the older architectures, with LayerNorm.
    pub(super) const PLAIN: HeadRules =
        HeadRules { grouped: false, own_width: false, partly_rotated: false, eps: "attention.layer_norm_epsilon" };
}

/// The metadata that all architectures have.
pub(super) struct CommonMetadata {
    pub(super) extents: ModelExtents,
    /// Elements of a head that are rotated.
    pub(super) rotary_dim: usize,
    /// The base of the rotary frequencies.
    pub(super) rope_theta: Option<f64>,
    /// The epsilon of the norms.
    pub(super) eps: f64,
    tokens: [(&'static str, Option<usize>); 3],
}

impl CommonMetadata {
    /// Reads and checks the metadata.
    ///
    /// # Errors
    /// A missing or invalid value, experts, head counts that differ by layer, or heads that `rules` do not allow.
    pub(super) fn read(keys: &ModelKeys<'_>, rules: &HeadRules) -> Result<CommonMetadata> {
        let gguf = keys.gguf;
        if keys.count("expert_count")?.is_some_and(|experts| experts > 0) {
            return keys.fail("is a mixture of experts, which is not supported");
        }
        let hidden_size = keys.required_count("embedding_length")?;
        let n_heads = keys.required_count("attention.head_count")?;
        let n_kv_heads = keys.count("attention.head_count_kv")?.unwrap_or(n_heads);
        if n_heads == 0 || n_kv_heads == 0 || !n_heads.is_multiple_of(n_kv_heads) {
            return keys
                .fail(format!("has {n_heads} query heads, which is not a multiple of {n_kv_heads} key/value heads"));
        }
        if n_kv_heads != n_heads && !rules.grouped {
            return keys.fail(format!(
                "has {n_heads} query heads and {n_kv_heads} key/value heads, which the architecture '{}' does not support",
                keys.architecture
            ));
        }
        let head_dim = keys.count("attention.key_length")?.unwrap_or(hidden_size / n_heads);
        if keys.count("attention.value_length")?.is_some_and(|value| value != head_dim) {
            return keys.fail("has keys and values of different widths, which is not supported");
        }
        if !rules.own_width && head_dim.checked_mul(n_heads) != Some(hidden_size) {
            return keys.fail(format!("has {n_heads} heads of {head_dim} elements in a width of {hidden_size}"));
        }
        let rotary_dim = keys.count("rope.dimension_count")?.unwrap_or(head_dim);
        let is_whole = rotary_dim == head_dim || (rules.partly_rotated && rotary_dim < head_dim);
        if !is_whole || rotary_dim == 0 || !rotary_dim.is_multiple_of(2) || !head_dim.is_multiple_of(2) {
            return keys.fail(format!(
                "applies rotary embedding to {rotary_dim} of {head_dim} elements of a head, which is not supported"
            ));
        }
        let Some(embedding) = gguf.find_tensor("token_embd.weight") else {
            return keys.fail("has no tensor 'token_embd.weight'");
        };
        let vocab_size = embedding.shape[0];
        let n_layers = keys.required_count("block_count")?;
        if n_layers > gguf.tensors().len() {
            return keys.fail(format!("declares {n_layers} blocks but has {} tensors", gguf.tensors().len()));
        }
        let has = |name: &str| gguf.find_tensor(name).is_some();
        let token = |key: &str| gguf.token_id(key, vocab_size);
        Ok(CommonMetadata {
            extents: ModelExtents {
                vocab_size,
                max_positions: keys.required_count("context_length")?,
                hidden_size,
                intermediate_size: keys.required_count("feed_forward_length")?,
                n_layers,
                n_heads,
                n_kv_heads,
                head_dim,
                tie_word_embeddings: !has("output.weight"),
                attention_bias: has("blk.0.attn_q.bias") || has("blk.0.attn_qkv.bias"),
                mlp_bias: has("blk.0.ffn_up.bias"),
            },
            rotary_dim,
            rope_theta: keys.positive("rope.freq_base")?,
            eps: keys.required_positive(rules.eps)?,
            tokens: [
                ("bos_token_id", token("tokenizer.ggml.bos_token_id")?),
                ("eos_token_id", token("tokenizer.ggml.eos_token_id")?),
                ("pad_token_id", token("tokenizer.ggml.padding_token_id")?),
            ],
        })
    }

    /// The configuration of a decoder in Hugging Face's usual keys: its extents, the RMS norms' epsilon and the rotary settings.
    pub(super) fn decoder_config(&self, keys: &ModelKeys<'_>, class: &str, model_type: &str) -> Result<Json> {
        let mut config = self.extents_config(class, model_type);
        config["rms_norm_eps"] = self.eps.into();
        if let Some(theta) = self.rope_theta {
            config["rope_theta"] = theta.into();
        }
        config["rope_scaling"] = rope::read_scaling(keys)?;
        Ok(config)
    }

    /// The extents and the tokens, in Hugging Face's usual keys.
    pub(super) fn extents_config(&self, class: &str, model_type: &str) -> Json {
        let extents = &self.extents;
        let mut config = json!({
            "architectures": [class],
            "model_type": model_type,
            "vocab_size": extents.vocab_size,
            "hidden_size": extents.hidden_size,
            "intermediate_size": extents.intermediate_size,
            "num_hidden_layers": extents.n_layers,
            "num_attention_heads": extents.n_heads,
            "max_position_embeddings": extents.max_positions,
            "tie_word_embeddings": extents.tie_word_embeddings,
        });
        self.add_tokens(&mut config);
        config
    }

    /// Adds the ids of special tokens to a configuration.
    pub(super) fn add_tokens(&self, config: &mut Json) {
        for (key, id) in self.tokens {
            config[key] = id.into();
        }
    }

    /// The model with the configuration `config`, whose scores are scaled by the usual factor.
    pub(super) fn model(&self, config: Json) -> ArchitectureModel {
        self.scaled_model(config, self.extents.head_dim)
    }

    /// The model with the configuration `config`, whose scores are divided by the root of `squared_divisor`.
    pub(super) fn scaled_model(&self, config: Json, squared_divisor: usize) -> ArchitectureModel {
        let score_scale = 1.0 / (squared_divisor as f64).sqrt();
        ArchitectureModel { extents: self.extents, config, score_scale }
    }
}

/// Hugging Face's name of the attention of each layer.
pub(super) fn layer_types(slides: &[bool]) -> Json {
    slides.iter().map(|&slides| if slides { "sliding_attention" } else { "full_attention" }).collect()
}
