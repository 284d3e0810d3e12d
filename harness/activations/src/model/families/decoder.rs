//! The shape that most families share: RMSNorm of inputs, a gated MLP, one rotary table, no windows. A family changes the fields that it
//! has in another way.

use actbench_kernels::{Activation, ScoreRule};

use super::entries::Entries;
use super::rope::{self, RopeRules};
use crate::model::rope_spec::RopeSpec;
use crate::model::spec::{
    AttentionSpec, DecoderSpec, EmbeddingSpec, LayerSpec, MlpSpec, NormKind, NormPlacement, NormSpec, QueryKeyNorm,
};
use crate::model::tensor_names::{Part, Stacking, TensorNames};

/// The names that most families share, with the parts of a Llama.
pub(super) const NAMES: TensorNames = TensorNames {
    base: "model.",
    aliases: &[],
    embedding: "model.embed_tokens.weight",
    positions: None,
    final_norm: "model.norm",
    head: "lm_head.weight",
    blocks: "model.layers.",
    parts: &[
        (Part::AttentionNorm, "input_layernorm"),
        (Part::Query, "self_attn.q_proj"),
        (Part::Key, "self_attn.k_proj"),
        (Part::Value, "self_attn.v_proj"),
        (Part::AttentionOutput, "self_attn.o_proj"),
        (Part::MlpNorm, "post_attention_layernorm"),
        (Part::Gate, "mlp.gate_proj"),
        (Part::Up, "mlp.up_proj"),
        (Part::Down, "mlp.down_proj"),
    ],
    stacking: Stacking::Whole,
    transposed: false,
    buffers: &["rotary_emb.inv_freq"],
};

/// What a family has where the file has no key. The extents that make up a model's size have no default, so that a file that was cut
/// is found.
pub(super) struct Defaults {
    /// Key/value heads; as many as query heads where this is none.
    pub(super) kv_heads: Option<usize>,
    /// The width of a head; `hidden_size / n_heads` where this is none.
    pub(super) head_dim: Option<usize>,
    pub(super) max_positions: usize,
    /// The key of the norms' constant.
    pub(super) eps_key: &'static str,
    pub(super) eps: f64,
    /// The key of the activation.
    pub(super) activation_key: &'static str,
    pub(super) activation: Activation,
    /// Whether the LM head is the embedding.
    pub(super) tied: bool,
}

impl Defaults {
    /// Those of transformers' Llama.
    pub(super) const LLAMA: Defaults = Defaults {
        kv_heads: None,
        head_dim: None,
        max_positions: 2048,
        eps_key: "rms_norm_eps",
        eps: 1e-6,
        activation_key: "hidden_act",
        activation: Activation::Silu,
        tied: false,
    };
}

/// Extents in the keys that most families share.
pub(super) struct Shape {
    pub(super) hidden_size: usize,
    pub(super) n_heads: usize,
    pub(super) n_kv_heads: usize,
    pub(super) head_dim: usize,
    pub(super) max_positions: usize,
}

/// Reads the extents that the rotary tables depend on.
pub(super) fn shape(entries: &Entries<'_>, defaults: &Defaults) -> Result<Shape, String> {
    let n_heads = entries.extent("num_attention_heads")?;
    let n_kv_heads = entries.kv_heads(n_heads, defaults.kv_heads)?;
    let hidden_size = entries.extent("hidden_size")?;
    let head_dim = entries.head_dim(hidden_size, n_heads, defaults.head_dim)?;
    let max_positions = entries.positions("max_position_embeddings", defaults.max_positions)?;
    Ok(Shape { hidden_size, n_heads, n_kv_heads, head_dim, max_positions })
}

/// Reads a decoder with one rotary table for all layers.
pub(super) fn read(
    entries: &Entries<'_>,
    family: &'static str,
    names: TensorNames,
    defaults: &Defaults,
    rules: &RopeRules,
) -> Result<DecoderSpec, String> {
    let shape = shape(entries, defaults)?;
    let rope = rope::read(entries, rules, shape.head_dim, shape.max_positions)?;
    with_ropes(entries, family, names, defaults, &shape, vec![rope])
}

/// Reads the rest of a decoder; all its layers have the first rotary table.
pub(super) fn with_ropes(
    entries: &Entries<'_>,
    family: &'static str,
    names: TensorNames,
    defaults: &Defaults,
    shape: &Shape,
    ropes: Vec<RopeSpec>,
) -> Result<DecoderSpec, String> {
    let n_layers = entries.extent("num_hidden_layers")?;
    Ok(DecoderSpec {
        family,
        names,
        vocab_size: entries.extent("vocab_size")?,
        hidden_size: shape.hidden_size,
        intermediate_size: entries.extent("intermediate_size")?,
        n_layers,
        n_heads: shape.n_heads,
        n_kv_heads: shape.n_kv_heads,
        head_dim: shape.head_dim,
        embedding: EmbeddingSpec::default(),
        norm: NormSpec { kind: NormKind::Rms, eps: entries.eps(defaults.eps_key, defaults.eps)? },
        norm_placement: NormPlacement::Inputs,
        parallel_residual: false,
        attention: AttentionSpec {
            scale: ScoreRule::of_head_dim(shape.head_dim).scale,
            scale_by_inverse_layer: false,
            soft_cap: None,
            qkv_bias: false,
            output_bias: false,
            query_key_norm: QueryKeyNorm::None,
        },
        mlp: MlpSpec {
            gated: true,
            activation: entries.activation(defaults.activation_key, defaults.activation)?,
            bias: false,
        },
        experts: None,
        ropes,
        layers: vec![LayerSpec { window: None, rope: Some(0), experts: false }; n_layers],
        tie_word_embeddings: entries.flag("tie_word_embeddings", defaults.tied)?,
        max_position_embeddings: shape.max_positions,
    })
}

/// Sets the biases of all four projections of attention to the flag `attention_bias`.
pub(super) fn read_attention_bias(entries: &Entries<'_>, spec: &mut DecoderSpec) -> Result<(), String> {
    let bias = entries.flag("attention_bias", false)?;
    (spec.attention.qkv_bias, spec.attention.output_bias) = (bias, bias);
    Ok(())
}

/// Gives the layers that `slides` marks the window `window`.
///
/// # Errors
/// A marked layer, and no window.
pub(super) fn set_windows(spec: &mut DecoderSpec, slides: &[bool], window: Option<usize>) -> Result<(), String> {
    if window.is_none() && slides.contains(&true) {
        return Err("layers of the type sliding_attention need a sliding_window".to_owned());
    }
    for (layer, slides) in spec.layers.iter_mut().zip(slides) {
        layer.window = window.filter(|_| *slides);
    }
    Ok(())
}
