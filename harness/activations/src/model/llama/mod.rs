//! The Llama forward pass (Touvron et al. 2023) as a composition of backend operations.
//!
//! Nothing here knows the device. Blocks past the deepest layer asked for are neither loaded nor run, and there is
//! no final norm and no LM head: a layer is the residual stream after its block. A `stage` is consecutive blocks on one
//! device; a model (`llama_model`) is one stage, or a `pipeline` of several, `split` by free memory.

mod llama_model;
mod load_options;
mod output_sink;
mod pipeline;
mod split;
mod stage;
mod weights;
mod workspace;

pub use llama_model::Llama;
pub use load_options::LoadOptions;
pub(super) use weights::{DecoderBlock, Projection};
