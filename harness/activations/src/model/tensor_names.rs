//! The names of a family's tensors, and where a part of a block is in them.

/// The names of a family's tensors, as transformers has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TensorNames {
    /// The base model's prefix, which a file may lack: `model.`.
    pub base: &'static str,
    /// Prefixes in files, each with the one that replaces it. The first that matches counts.
    pub aliases: &'static [(&'static str, &'static str)],
    /// The embedding: `model.embed_tokens.weight`.
    pub embedding: &'static str,
    /// The table of learned positions, where the family has one.
    pub positions: Option<&'static str>,
    /// The norm after the last block, without `.weight`.
    pub final_norm: &'static str,
    /// The LM head.
    pub head: &'static str,
    /// What stands before the number of a block: `model.layers.`.
    pub blocks: &'static str,
    /// The module of each part that a block can have, without the block's prefix and `.weight` or `.bias`. Parts that share a
    /// module are listed in the order in which it stacks them. A `*` stands for the number of an expert.
    pub parts: &'static [(Part, &'static str)],
    /// How parts that share a module are stacked.
    pub stacking: Stacking,
    /// Whether projections are stored as `[in_features, out_features]` (the `Conv1D` of GPT-2).
    pub transposed: bool,
    /// Buffers in a block's files that are no weights, by the end of their names: old causal masks and rotary tables.
    pub buffers: &'static [&'static str],
}

/// A part of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Part {
    /// The norm of attention's input.
    AttentionNorm,
    /// The query projection.
    Query,
    /// The key projection.
    Key,
    /// The value projection.
    Value,
    /// The norm of queries.
    QueryNorm,
    /// The norm of keys.
    KeyNorm,
    /// The output projection of attention.
    AttentionOutput,
    /// The norm of attention's output.
    AttentionOutputNorm,
    /// The norm of the MLP's input.
    MlpNorm,
    /// The gate projection.
    Gate,
    /// The up projection; the only one of an MLP without gate.
    Up,
    /// The down projection.
    Down,
    /// The norm of the MLP's output.
    MlpOutputNorm,
    /// The projection whose outputs choose experts.
    Router,
    /// The gate projection of an expert.
    ExpertGate,
    /// The up projection of an expert.
    ExpertUp,
    /// The down projection of an expert.
    ExpertDown,
}

impl Part {
    /// Whether each expert has its own.
    pub fn is_of_expert(self) -> bool {
        matches!(self, Part::ExpertGate | Part::ExpertUp | Part::ExpertDown)
    }
}

/// How parts that share a module are stacked in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stacking {
    /// One part after the other.
    Whole,
    /// Head by head: the first head's rows of each part, then the second's (GPT-NeoX).
    ByHead,
}

impl TensorNames {
    /// The module of `part` in block `layer`: `model.layers.3.mlp.up_proj`. None if the family has no such part.
    pub fn module(&self, layer: usize, part: Part) -> Option<String> {
        let (_, module) = self.parts.iter().find(|(own, _)| *own == part)?;
        Some(format!("{}{layer}.{module}", self.blocks))
    }

    /// As [`TensorNames::module`], for a part of expert `expert`.
    pub fn expert_module(&self, layer: usize, expert: usize, part: Part) -> Option<String> {
        Some(self.module(layer, part)?.replacen('*', &expert.to_string(), 1))
    }

    /// Whether `module`, without the block's prefix, is that of a part that `is_wanted`.
    pub fn has_module(&self, module: &str, is_wanted: impl Fn(Part) -> bool) -> bool {
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        self.parts.iter().filter(|(part, _)| is_wanted(*part)).any(|(_, own)| match own.split_once('*') {
            None => *own == module,
            Some((before, after)) => {
                module.strip_prefix(before).and_then(|rest| rest.strip_suffix(after)).is_some_and(is_number)
            }
        })
    }

    /// The parts that share the module of `part`, in the order in which it stacks them.
    pub fn sharing(&self, part: Part) -> impl Iterator<Item = Part> + '_ {
        let module = self.parts.iter().find(|(own, _)| *own == part).map(|(_, module)| *module);
        self.parts.iter().filter(move |(_, other)| Some(*other) == module).map(|(part, _)| *part)
    }
}
