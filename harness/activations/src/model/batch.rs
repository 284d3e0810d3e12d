//! A batch of tokens for one forward pass, and which of its outputs leave the device.

use actbench_kernels::backend::AttentionSegment;
use actbench_kernels::{AttentionLayout, PoolGroups, PoolMethod};

/// Tokens for one forward pass, and the prefix tokens that stay cached from the batch before.
///
/// Token indices within a batch count its own tokens first, `0..ids.len()`, and then the `n_cached` tokens cached from
/// the batch before: the path of a prefix tree that both batches share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenBatch {
    /// Token id of each own token.
    pub ids: Vec<u32>,
    /// Position of each own token in its sequence; as long as `ids`.
    pub positions: Vec<u32>,
    /// Which tokens each own token attends to, cached tokens included.
    pub layout: AttentionLayout,
    /// Prefix tokens that the batch before of the same session and stream was asked to keep.
    pub n_cached: usize,
    /// Tokens, own or cached, to keep for the next batch.
    pub keep: Vec<u32>,
    /// The tokens that the last layer is computed for; all of them where this is none.
    pub last_layer: Option<LastLayerTokens>,
}

impl TokenBatch {
    /// Whole sequences one after another, without padding, cached tokens or pruning.
    pub fn of_sequences<'a>(sequences: impl IntoIterator<Item = &'a [u32]>) -> Self {
        let mut batch = TokenBatch::default();
        for tokens in sequences {
            let (first, len) = (batch.ids.len(), tokens.len());
            batch.ids.extend(tokens);
            batch.positions.extend(0..len as u32);
            let segment = AttentionSegment { query_row: first, start_position: 0, len, keys: vec![(first, len)] };
            batch.layout.segments.push(segment);
        }
        batch
    }
}

/// The tokens that are left after pruning the last layer that is asked for.
///
/// They have indices of their own there: the own tokens left, then the cached tokens left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LastLayerTokens {
    /// The own tokens left, as increasing indices of the batch.
    pub tokens: Vec<u32>,
    /// Which tokens they attend to: queries by index among the tokens left, keys by index of the batch.
    pub layout: AttentionLayout,
    /// How many of the cached tokens are left.
    pub n_cached: usize,
    /// Tokens left, by index among them, to keep for the next batch.
    pub keep: Vec<u32>,
}

/// Which output leaves the device for each layer asked for.
#[derive(Clone, Copy, Debug)]
pub enum LayerOutput<'a> {
    /// Every token of the batch, own and cached: `[tokens, hidden]`.
    Tokens,
    /// One vector a group of tokens: `[groups, hidden]`.
    Pooled {
        /// The tokens of each group.
        groups: &'a PoolGroups,
        /// The same groups by index among [`LastLayerTokens`]; for the last layer of a batch that has them.
        last_layer_groups: Option<&'a PoolGroups>,
        /// How the tokens of a group are pooled.
        method: PoolMethod,
    },
}

impl LayerOutput<'_> {
    /// The owned form.
    pub fn to_owned(self) -> StepOutput {
        match self {
            LayerOutput::Tokens => StepOutput::Tokens,
            LayerOutput::Pooled { groups, last_layer_groups, method } => {
                StepOutput::Pooled { groups: groups.clone(), last_layer_groups: last_layer_groups.cloned(), method }
            }
        }
    }
}

/// A batch to run with the output that it is run for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelStep {
    /// Identifies the step where its outputs are received.
    pub id: u64,
    /// The tokens.
    pub batch: TokenBatch,
    /// The output of each layer.
    pub output: StepOutput,
}

/// [`LayerOutput`], owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepOutput {
    /// See [`LayerOutput::Tokens`].
    Tokens,
    /// See [`LayerOutput::Pooled`].
    Pooled {
        /// The tokens of each group: a group is one output vector, and an index may be in several groups.
        groups: PoolGroups,
        /// The same groups, as many, by index among [`LastLayerTokens`].
        last_layer_groups: Option<PoolGroups>,
        /// How the tokens of a group are pooled.
        method: PoolMethod,
    },
}

impl StepOutput {
    /// The borrowed form.
    pub fn as_layer_output(&self) -> LayerOutput<'_> {
        match self {
            StepOutput::Tokens => LayerOutput::Tokens,
            StepOutput::Pooled { groups, last_layer_groups, method } => {
                LayerOutput::Pooled { groups, last_layer_groups: last_layer_groups.as_ref(), method: *method }
            }
        }
    }
}
