//! Models: where they are, what shape they have, their weights, and their forward pass.
//!
//! `locate` finds a model's folder or preset, `config` and `weights` read and check it, `llama` composes backend
//! operations into a forward pass. Callers outside see [`ActivationModel`] alone and know no device.

use actbench_kernels::{AttentionLayout, DType, PoolGroups, PoolMethod};

use crate::error::Result;

pub mod config;
pub mod llama;
pub mod locate;
pub mod weights;

/// Rows of tokens for one forward pass.
#[derive(Clone, Debug, Default)]
pub struct TokenBatch {
    /// Token id of each row.
    pub ids: Vec<u32>,
    /// Position of each row in its sequence.
    pub positions: Vec<u32>,
    /// What each row attends to.
    pub layout: AttentionLayout,
}

/// What leaves the device for each layer asked for.
#[derive(Clone, Copy, Debug)]
pub enum LayerOutput<'a> {
    /// Every row of the batch, `[rows, hidden]`.
    Rows,
    /// Pooled rows, `[groups, hidden]`.
    Pooled {
        /// Which rows make which output row.
        groups: &'a PoolGroups,
        /// How they are pooled.
        method: PoolMethod,
    },
}

/// Receives `(layer, bytes)` for each layer asked for, in increasing order: native-endian rows in the model's dtype.
pub type LayerSink<'a> = dyn FnMut(usize, &[u8]) -> Result<()> + 'a;

/// What a plan needs of a loaded model, whatever device runs it.
pub trait ActivationModel: Send + Sync {
    /// Decoder blocks in the model.
    fn n_layers(&self) -> usize;

    /// Width of the residual stream.
    fn hidden_size(&self) -> usize;

    /// Token ids must be below this.
    fn vocab_size(&self) -> usize;

    /// Storage type of activations.
    fn dtype(&self) -> DType;

    /// Digest of everything that decides the activations but the tokens: architecture, weights, dtype, arithmetic.
    fn fingerprint(&self) -> &str;

    /// What the model and its device are, for people.
    fn describe(&self) -> String;

    /// Multiply-adds, times two, of one token through blocks `0..n_blocks`, attention apart.
    fn flops_per_token(&self, n_blocks: usize) -> u64;

    /// Runs `batch` through the blocks up to the deepest of `layers` and no further, and hands out the output of each
    /// block in `layers` (increasing, distinct).
    ///
    /// # Errors
    /// A token or a layer out of range, or a failure of the device or of `sink`.
    fn run(
        &self,
        batch: &TokenBatch,
        layers: &[usize],
        output: LayerOutput<'_>,
        sink: &mut LayerSink<'_>,
    ) -> Result<()>;
}
