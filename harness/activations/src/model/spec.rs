//! A decoder described by data: everything that the forward pass, its memory, its work and its predictions depend on.
//!
//! `families` turns a `config.json` into this, `decoder` computes it. Nothing else knows one family from another.

use std::collections::BTreeSet;

use actbench_kernels::{Activation, AttentionShape, DType, RouteRule, ScoreRule};

use super::rope_spec::RopeSpec;
use super::tensor_names::TensorNames;

/// A decoder's shape and parts, valid by construction: every extent is positive, heads divide as they must, and each block has
/// its entry in `layers`.
#[derive(Clone, Debug, PartialEq)]
pub struct DecoderSpec {
    /// The family, by transformers' `model_type`: `llama`.
    pub family: &'static str,
    /// The names of its tensors.
    pub names: TensorNames,
    /// Token ids are below this.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width between the two projections of the MLP, in blocks without experts.
    pub intermediate_size: usize,
    /// Decoder blocks.
    pub n_layers: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key/value heads; divides `n_heads`.
    pub n_kv_heads: usize,
    /// Elements of one head; even. Not always `hidden_size / n_heads`.
    pub head_dim: usize,
    /// What is added to or multiplied with the embedding.
    pub embedding: EmbeddingSpec,
    /// All norms of the residual stream and of the blocks' outputs.
    pub norm: NormSpec,
    /// Where a block has them.
    pub norm_placement: NormPlacement,
    /// Whether attention and MLP both read the block's input and are added together (GPT-J, GPT-NeoX).
    pub parallel_residual: bool,
    /// Attention, the same in all blocks but for [`DecoderSpec::layers`].
    pub attention: AttentionSpec,
    /// The MLP; that of an expert in blocks with experts.
    pub mlp: MlpSpec,
    /// The experts of blocks that have them, in the place of an MLP. The outputs of such blocks are not normed.
    pub experts: Option<ExpertsSpec>,
    /// The rotary tables that blocks refer to.
    pub ropes: Vec<RopeSpec>,
    /// What differs from block to block; one entry a block.
    pub layers: Vec<LayerSpec>,
    /// Whether the embedding and the LM head are one matrix.
    pub tie_word_embeddings: bool,
    /// Positions the model was trained on. Longer sequences are computed too, as in transformers, unless the model has no more
    /// positions.
    pub max_position_embeddings: usize,
}

/// What is added to or multiplied with the embedding.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct EmbeddingSpec {
    /// The factor of the embedding, before it is rounded to the run's dtype (Gemma: `sqrt(hidden_size)`).
    pub scale: Option<f64>,
    /// The rows of a table of learned positions, which are added (GPT-2).
    pub learned_positions: Option<usize>,
}

/// The kind of a norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// RMSNorm, `x / rms(x) * w`.
    Rms,
    /// RMSNorm whose weights are stored without 1, `x / rms(x) * (1 + w)` (Gemma).
    RmsPlusOne,
    /// LayerNorm with weight and bias.
    Layer,
}

impl NormKind {
    /// The weight of a norm that scales nothing, with which transformers initializes a norm that its file lacks.
    pub fn initial_weight(self) -> f32 {
        match self {
            NormKind::Rms | NormKind::Layer => 1.0,
            NormKind::RmsPlusOne => 0.0,
        }
    }
}

/// A norm and its constant.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NormSpec {
    /// The kind.
    pub kind: NormKind,
    /// Added to the mean square or the variance.
    pub eps: f32,
}

/// Where a block has norms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormPlacement {
    /// Of the inputs of attention and MLP.
    Inputs,
    /// Of the outputs of attention and MLP, before they are added (OLMo 2).
    Outputs,
    /// Of both (Gemma 2).
    Both,
}

impl NormPlacement {
    /// Whether inputs are normed.
    pub fn has_inputs(self) -> bool {
        self != NormPlacement::Outputs
    }

    /// Whether outputs are normed.
    pub fn has_outputs(self) -> bool {
        self != NormPlacement::Inputs
    }
}

/// A norm of queries and keys before they are rotated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryKeyNorm {
    /// None.
    None,
    /// Each head by itself; all heads share the weights (Qwen 3).
    PerHead,
    /// The whole projection (OLMo 2).
    Whole,
}

/// Attention.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionSpec {
    /// The factor of the product of query and key.
    pub scale: f32,
    /// Whether block `n`, counted from 1, has an `n`th of that factor (`scale_attn_by_inverse_layer_idx` of GPT-2).
    pub scale_by_inverse_layer: bool,
    /// Replaces a score by `cap * tanh(score / cap)`.
    pub soft_cap: Option<f32>,
    /// Whether the query, key and value projections have biases.
    pub qkv_bias: bool,
    /// Whether the output projection has a bias.
    pub output_bias: bool,
    /// The norm of queries and keys.
    pub query_key_norm: QueryKeyNorm,
}

/// The MLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MlpSpec {
    /// Whether a gate is multiplied with a second projection; otherwise there is one projection.
    pub gated: bool,
    /// The activation, of the gate where there is one.
    pub activation: Activation,
    /// Whether its projections have biases.
    pub bias: bool,
}

/// A mixture of experts (Shazeer et al. 2017): a router chooses some of many MLPs for each token, and their outputs are added with
/// the router's weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpertsSpec {
    /// Experts of a block.
    pub n: usize,
    /// Width between the two projections of an expert.
    pub intermediate_size: usize,
    /// How the router chooses.
    pub rule: RouteRule,
}

/// What differs from block to block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerSpec {
    /// A row sees so many positions, its own included; all where this is none.
    pub window: Option<usize>,
    /// Index of the rotary table; none where positions are not rotated.
    pub rope: Option<usize>,
    /// Whether the block has experts.
    pub experts: bool,
}

impl DecoderSpec {
    /// Columns of the query projection's output.
    pub fn query_width(&self) -> usize {
        self.n_heads * self.head_dim
    }

    /// Columns of the key projection's output.
    pub fn kv_width(&self) -> usize {
        self.n_kv_heads * self.head_dim
    }

    /// Family, depth, width and type, for people: `llama, 30 layers x 576 in bf16`.
    pub fn describe(&self, dtype: DType) -> String {
        format!("{}, {} layers x {} in {dtype}", self.family, self.n_layers, self.hidden_size)
    }

    /// The heads.
    pub fn attention_shape(&self) -> AttentionShape {
        AttentionShape { n_heads: self.n_heads, n_kv_heads: self.n_kv_heads, head_dim: self.head_dim }
    }

    /// What block `layer` does to scores; that of the last block beyond it.
    pub fn score_rule(&self, layer: usize) -> ScoreRule {
        let AttentionSpec { scale, scale_by_inverse_layer, soft_cap, .. } = self.attention;
        let layer = layer.min(self.layers.len().saturating_sub(1));
        let window = self.layers.get(layer).and_then(|layer| layer.window);
        let divisor = if scale_by_inverse_layer { layer + 1 } else { 1 };
        ScoreRule { scale: scale / divisor as f32, window, soft_cap }
    }

    /// The experts of block `layer`, or of the last block beyond it; none if it has an MLP.
    pub fn experts_of(&self, layer: usize) -> Option<&ExpertsSpec> {
        let layer = self.layers.get(layer).or(self.layers.last())?;
        self.experts.as_ref().filter(|_| layer.experts)
    }

    /// Columns of the first matmul of an MLP of width `intermediate_size`: gate and up side by side, or the one projection.
    pub fn mlp_inner_width(&self, intermediate_size: usize) -> usize {
        if self.mlp.gated { 2 * intermediate_size } else { intermediate_size }
    }

    /// Weights of the projections of block `layer`; the norms are left out.
    pub fn linear_weights(&self, layer: usize) -> u64 {
        self.weights_with_experts(layer, |experts| experts.n)
    }

    /// Operations of one token through the projections of block `layer`, two a multiply-add.
    pub fn linear_flops(&self, layer: usize) -> u64 {
        2 * self.weights_with_experts(layer, |experts| experts.rule.top_k)
    }

    /// Weights of the projections of block `layer` with so many of its experts.
    fn weights_with_experts(&self, layer: usize, counted: impl Fn(&ExpertsSpec) -> usize) -> u64 {
        let attention = self.hidden_size * (2 * self.query_width() + 2 * self.kv_width());
        let mlp = |width: usize| self.hidden_size * (self.mlp_inner_width(width) + width);
        let mlp = match self.experts_of(layer) {
            None => mlp(self.intermediate_size),
            Some(experts) => self.hidden_size * experts.n + counted(experts) * mlp(experts.intermediate_size),
        };
        (attention + mlp) as u64
    }

    /// Norms of the residual stream's width in a block.
    pub fn norms_per_block(&self) -> usize {
        2 * (usize::from(self.norm_placement.has_inputs()) + usize::from(self.norm_placement.has_outputs()))
    }

    /// The longest row whose rotations are those of transformers, and why a longer one has others.
    pub fn longest_row(&self) -> Option<(usize, String)> {
        let by_rope = self.ropes.iter().filter_map(RopeSpec::longest_row).min_by_key(|(longest, _)| *longest);
        let by_table = self.embedding.learned_positions.map(|rows| (rows, "it has no more positions".to_owned()));
        by_rope.into_iter().chain(by_table).min_by_key(|(longest, _)| *longest)
    }

    /// Checks that a row of `tokens` tokens is computed as transformers does.
    ///
    /// # Errors
    /// The row is longer than [`DecoderSpec::longest_row`]. The text is a clause whose subject is the row.
    pub fn check_row_length(&self, tokens: usize) -> Result<(), String> {
        match self.longest_row() {
            Some((longest, why)) if tokens > longest => {
                Err(format!("has {tokens} tokens, and this model takes at most {longest}, because {why}"))
            }
            _ => Ok(()),
        }
    }

    /// The distinct windows of the blocks, in order; none for the whole row.
    pub fn windows(&self) -> BTreeSet<Option<usize>> {
        self.layers.iter().map(|layer| layer.window).collect()
    }
}
