//! Models: where they are, what shape they have, their weights, and their forward pass.
//!
//! `locate` finds a model's directory or preset, `config` and `weights` read and check it, `adapter` changes its weights, `memory_model` and `flops` count
//! what it takes from the configuration alone. `families` reads the configuration of each family into a `spec`, which `decoder`
//! composes from backend operations into a forward pass on one device or over several, `replicas` runs a copy on each of several, `host_streams` runs
//! several batches at a time on one in host memory, and `config_only` is a model without weights, for plans that
//! are only explained. Plans and the eager baseline see [`ActivationModel`] alone and know no device.

pub mod activation_model;
pub mod adapter;
pub mod batch;
pub mod config_only;
pub mod context;
pub mod decoder;
pub mod families;
mod flops;
pub mod host_streams;
mod loader;
pub mod locate;
pub mod memory_model;
pub mod open;
mod parameters;
mod part_view;
pub mod replicas;
pub mod rope_spec;
pub mod session;
pub mod spec;
mod stream_session;
mod submitter;
pub mod tensor_names;
pub mod tensor_shapes;
mod tensors;
mod threads;
pub mod weights;

/// What a layer number counts, for help, reports and the metadata of files. `scripts/check_layers.py` compares it with
/// transformers.
pub const LAYER_NUMBERING: &str = "layer N is the output of decoder block N, counted from 0; it is hidden_states[N + 1] in \
                                   transformers, except for the last block, where hidden_states[-1] has the final norm applied";

pub use activation_model::{ActivationModel, check_layer, run_batch};
pub use batch::{LastLayerTokens, LayerOutput, ModelStep, StepOutput, TokenBatch};
pub use session::{LayerBytes, LayerVectors, ModelSession, SessionEvent, StepwiseSession, run_steps};
pub use submitter::run_submitted;
