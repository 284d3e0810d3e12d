//! The weights of a decoder block as the backend prepared them.

use actbench_kernels::{Backend, DType};

use crate::model::spec::DecoderSpec;

/// The weights of one decoder block; norms that its family does not have are none.
pub(in crate::model) struct DecoderBlock<B: Backend> {
    /// Of attention's input.
    pub(in crate::model) attention_norm: Option<Norm<B>>,
    /// The query projection, below it the key projection, and below that the value projection.
    pub(in crate::model) qkv: Projection<B>,
    pub(in crate::model) query_norm: Option<B::Vector>,
    pub(in crate::model) key_norm: Option<B::Vector>,
    pub(in crate::model) attention_output: Projection<B>,
    /// RMSNorm weights.
    pub(in crate::model) attention_output_norm: Option<B::Vector>,
    /// Of the MLP's input.
    pub(in crate::model) mlp_norm: Option<Norm<B>>,
    pub(in crate::model) feed_forward: FeedForward<B>,
    /// RMSNorm weights.
    pub(in crate::model) mlp_output_norm: Option<B::Vector>,
}

/// What follows attention in a block.
pub(in crate::model) enum FeedForward<B: Backend> {
    Mlp(Mlp<B>),
    Experts(Experts<B>),
}

/// An MLP, or an expert.
pub(in crate::model) struct Mlp<B: Backend> {
    /// Gate and up projection, or the one projection of an MLP without gate.
    pub(in crate::model) input: Projection<B>,
    pub(in crate::model) down: Projection<B>,
}

/// A mixture of experts.
pub(in crate::model) struct Experts<B: Backend> {
    /// `[experts, hidden_size]`.
    pub(in crate::model) router: Projection<B>,
    /// By number.
    pub(in crate::model) mlps: Vec<Mlp<B>>,
}

/// A norm of the residual stream.
pub(in crate::model) enum Norm<B: Backend> {
    /// RMSNorm, with 1 already added to the weights of a family that stores them without.
    Rms(B::Vector),
    /// RMSNorm whose weights are in those of the projections that read it.
    Folded,
    /// LayerNorm.
    Layer { scale: B::Vector, bias: B::Vector },
}

/// Whether RMSNorms of inputs are folded into the projections that read them. Not with a parallel residual: there the MLP reads a
/// stream that attention has not been added to, and the sums of squares would be those of another one.
pub(in crate::model) fn folds_norms<B: Backend>(backend: &B, spec: &DecoderSpec, dtype: DType) -> bool {
    !spec.parallel_residual && backend.folds_norms(dtype, spec.hidden_size)
}

/// A weight matrix, `[out_features, in_features]`, and its bias where the model has one.
pub(in crate::model) struct Projection<B: Backend> {
    pub(in crate::model) weight: B::Linear,
    pub(in crate::model) bias: Option<B::Vector>,
}
