//! The forward pass of a decoder as a composition of backend operations, interpreted from its `DecoderSpec`.
//!
//! Nothing here knows the device or a family's name. Blocks past the deepest layer asked for are neither loaded nor run, and
//! there is no final norm and no LM head: a layer is the residual stream after its block. A `stage` is consecutive blocks on one
//! device, `block` the pass through one of them; a model (`decoder_model`) is one stage, or a `pipeline` of several, `split` by
//! free memory. A session is a `stage_pass` with copies that overlap (`stage_session`), or one on a thread for each stage (`pipeline`).

mod block;
mod decoder_model;
mod load_options;
mod pipeline;
mod rope_table;
mod split;
mod stage;
mod stage_pass;
mod stage_session;
mod stream_squares;
mod weights;
mod workspace;

pub use decoder_model::Decoder;
pub use load_options::LoadOptions;
pub(super) use weights::{DecoderBlock, Experts, FeedForward, Mlp, Norm, Projection, folds_norms};
