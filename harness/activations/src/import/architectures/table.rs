//! Tables of tensors: ggml's names, Hugging Face's names, extents and layouts of one architecture.

use std::collections::BTreeMap;

/// The extents of a model, which determine its tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelExtents {
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// The context length of the training. Rows of the table of learned positions, if there is one.
    pub max_positions: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width between the projections of the MLP.
    pub intermediate_size: usize,
    /// Decoder blocks.
    pub n_layers: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key/value heads.
    pub n_kv_heads: usize,
    /// Elements of one head.
    pub head_dim: usize,
    /// Whether the LM head is the embedding.
    pub tie_word_embeddings: bool,
    /// Whether the attention projections have biases, in an architecture where that is optional.
    pub attention_bias: bool,
    /// Whether the projections of the MLP have biases, in an architecture where that is optional.
    pub mlp_bias: bool,
}

/// An extent of a tensor, by its role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// Tokens of the embedding.
    Vocabulary,
    /// Learned positions.
    Positions,
    /// The residual stream.
    Hidden,
    /// Between the projections of the MLP.
    Inner,
    /// Gate and up projection, one after the other.
    GateAndUp,
    /// All query heads.
    Query,
    /// All key heads, or all value heads.
    KeyValue,
    /// All query, key and value heads.
    QueryKeyValue,
    /// One head.
    Head,
}

impl Width {
    /// Elements in a model of the given extents. Metadata can ask for more than there are, so the result saturates.
    fn of(self, extents: &ModelExtents) -> usize {
        let heads = |count: usize| count.saturating_mul(extents.head_dim);
        match self {
            Width::Vocabulary => extents.vocab_size,
            Width::Positions => extents.max_positions,
            Width::Hidden => extents.hidden_size,
            Width::Inner => extents.intermediate_size,
            Width::GateAndUp => extents.intermediate_size.saturating_mul(2),
            Width::Query => heads(extents.n_heads),
            Width::KeyValue => heads(extents.n_kv_heads),
            Width::QueryKeyValue => heads(extents.n_heads).saturating_add(heads(extents.n_kv_heads.saturating_mul(2))),
            Width::Head => extents.head_dim,
        }
    }
}

/// Which modules have a bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BiasRule {
    /// None.
    Never,
    /// All.
    Always,
    /// As [`ModelExtents::attention_bias`].
    WithAttention,
    /// As [`ModelExtents::mlp_bias`].
    WithMlp,
}

/// How llama.cpp stores a tensor differently from Hugging Face.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TensorLayout {
    /// The same.
    Same,
    /// The two halves of each query head are interleaved, since llama.cpp rotates adjacent elements (`LlamaModel.permute`).
    QueryPairs,
    /// [`TensorLayout::QueryPairs`] of key heads.
    KeyPairs,
    /// All queries, then all keys, then all values; Hugging Face has query, key and value head by head (GPT-NeoX).
    PartsByHead,
    /// Transposed; Hugging Face has `[in_features, out_features]` (GPT-2's `Conv1D`). Biases are the same.
    Transposed,
    /// One is added; Hugging Face's norms add it in the forward pass (Gemma). Biases are the same.
    PlusOne,
}

impl TensorLayout {
    /// Whether rows have another order, those of the bias too.
    pub fn moves_rows(self) -> bool {
        matches!(self, TensorLayout::QueryPairs | TensorLayout::KeyPairs | TensorLayout::PartsByHead)
    }
}

/// A module with a weight and perhaps a bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TensorModule {
    /// ggml's name, without the block's prefix: `attn_q`.
    ggml: &'static str,
    /// Hugging Face's name, without the block's prefix: `self_attn.q_proj`.
    name: &'static str,
    /// The shape of the weight in the GGUF file, outermost first. The bias has the first extent.
    shape: &'static [Width],
    bias: BiasRule,
    layout: TensorLayout,
}

impl TensorModule {
    /// A module without bias, stored as Hugging Face has it.
    pub(super) const fn new(ggml: &'static str, name: &'static str, shape: &'static [Width]) -> Self {
        TensorModule { ggml, name, shape, bias: BiasRule::Never, layout: TensorLayout::Same }
    }

    /// The module with a bias.
    pub(super) const fn biased(self, bias: BiasRule) -> Self {
        TensorModule { bias, ..self }
    }

    /// The module in another layout.
    pub(super) const fn stored(self, layout: TensorLayout) -> Self {
        TensorModule { layout, ..self }
    }

    fn has_bias(&self, extents: &ModelExtents) -> bool {
        match self.bias {
            BiasRule::Never => false,
            BiasRule::Always => true,
            BiasRule::WithAttention => extents.attention_bias,
            BiasRule::WithMlp => extents.mlp_bias,
        }
    }
}

/// The tensors of an architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TensorTable {
    /// One model of the architecture, in messages: `Llama`.
    pub title: &'static str,
    /// Modules outside of blocks.
    pub(super) outer: &'static [TensorModule],
    /// Hugging Face's prefix of blocks, before the number: `model.layers.`.
    pub(super) blocks: &'static str,
    /// Modules of a block.
    pub(super) modules: &'static [TensorModule],
    /// Tensors that become part of the configuration.
    pub(super) of_config: &'static [&'static str],
}

impl TensorTable {
    /// Whether ggml's tensor `name` is part of the configuration, and not of the weights.
    pub fn is_of_config(&self, name: &str) -> bool {
        self.of_config.contains(&name)
    }

    /// Hugging Face's name and the layout of ggml's tensor `name`.
    pub fn find(&self, name: &str) -> Option<(String, TensorLayout)> {
        let (prefix, modules, rest) = match name.strip_prefix("blk.") {
            None => (String::new(), self.outer, name),
            Some(rest) => {
                let (layer, rest) = rest.split_once('.')?;
                let layer: usize = layer.parse().ok()?;
                (format!("{}{layer}.", self.blocks), self.modules, rest)
            }
        };
        let (module, part) = rest.split_once('.')?;
        let module = modules.iter().find(|known| known.ggml == module)?;
        let layout = match part {
            "weight" => module.layout,
            "bias" if module.bias == BiasRule::Never => return None,
            "bias" if module.layout.moves_rows() => module.layout,
            "bias" => TensorLayout::Same,
            _ => return None,
        };
        Some((format!("{prefix}{}.{part}", module.name), layout))
    }

    /// The shapes, in the GGUF file, of all tensors of a model, by Hugging Face's names.
    pub fn shapes(&self, extents: &ModelExtents) -> BTreeMap<String, Vec<usize>> {
        let mut shapes = BTreeMap::new();
        let mut add = |prefix: &str, module: &TensorModule| {
            let shape: Vec<usize> = module.shape.iter().map(|width| width.of(extents)).collect();
            if module.has_bias(extents) {
                shapes.insert(format!("{prefix}{}.bias", module.name), shape[..1].to_vec());
            }
            shapes.insert(format!("{prefix}{}.weight", module.name), shape);
        };
        let is_head = |module: &&TensorModule| module.ggml == "output";
        self.outer
            .iter()
            .filter(|module| !(extents.tie_word_embeddings && is_head(module)))
            .for_each(|module| add("", module));
        for layer in 0..extents.n_layers {
            let prefix = format!("{}{layer}.", self.blocks);
            self.modules.iter().for_each(|module| add(&prefix, module));
        }
        shapes
    }
}

/// The embedding of most architectures.
pub(super) const EMBEDDING: TensorModule =
    TensorModule::new("token_embd", "model.embed_tokens", &[Width::Vocabulary, Width::Hidden]);

/// The norm after the last block of most architectures.
pub(super) const FINAL_NORM: TensorModule = TensorModule::new("output_norm", "model.norm", &[Width::Hidden]);

/// The LM head.
pub(super) const HEAD: TensorModule = TensorModule::new("output", "lm_head", &[Width::Vocabulary, Width::Hidden]);

/// The modules outside of blocks of most architectures.
pub(super) const OUTER: &[TensorModule] = &[EMBEDDING, FINAL_NORM, HEAD];

/// The query projection of most architectures.
pub(super) const QUERY: TensorModule = TensorModule::new("attn_q", "self_attn.q_proj", &[Width::Query, Width::Hidden]);

/// The key projection of most architectures.
pub(super) const KEY: TensorModule = TensorModule::new("attn_k", "self_attn.k_proj", &[Width::KeyValue, Width::Hidden]);

/// The value projection of most architectures.
pub(super) const VALUE: TensorModule =
    TensorModule::new("attn_v", "self_attn.v_proj", &[Width::KeyValue, Width::Hidden]);

/// The output projection of attention of most architectures.
pub(super) const ATTENTION_OUTPUT: TensorModule =
    TensorModule::new("attn_output", "self_attn.o_proj", &[Width::Hidden, Width::Query]);

/// The norm of the block's input of most architectures.
pub(super) const INPUT_NORM: TensorModule = TensorModule::new("attn_norm", "input_layernorm", &[Width::Hidden]);

/// The norm of the MLP's input of most architectures.
pub(super) const MLP_NORM: TensorModule = TensorModule::new("ffn_norm", "post_attention_layernorm", &[Width::Hidden]);

/// The gate projection of most architectures.
pub(super) const GATE: TensorModule = TensorModule::new("ffn_gate", "mlp.gate_proj", &[Width::Inner, Width::Hidden]);

/// The up projection of most architectures.
pub(super) const UP: TensorModule = TensorModule::new("ffn_up", "mlp.up_proj", &[Width::Inner, Width::Hidden]);

/// The down projection of most architectures.
pub(super) const DOWN: TensorModule = TensorModule::new("ffn_down", "mlp.down_proj", &[Width::Hidden, Width::Inner]);
