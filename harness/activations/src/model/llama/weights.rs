//! The weights of a decoder block as the backend prepared them.

use actbench_kernels::Backend;

/// The weights of one decoder block.
pub(in crate::model) struct DecoderBlock<B: Backend> {
    pub(in crate::model) attention_norm: B::Vector,
    pub(in crate::model) query: Projection<B>,
    /// The key projection, and below it the value projection.
    pub(in crate::model) key_value: Projection<B>,
    pub(in crate::model) attention_output: Projection<B>,
    pub(in crate::model) mlp_norm: B::Vector,
    pub(in crate::model) gate_up: Projection<B>,
    pub(in crate::model) down: Projection<B>,
}

/// A weight matrix, `[out_features, in_features]`, and its bias where the model has one.
pub(in crate::model) struct Projection<B: Backend> {
    pub(in crate::model) weight: B::Linear,
    pub(in crate::model) bias: Option<B::Vector>,
}
