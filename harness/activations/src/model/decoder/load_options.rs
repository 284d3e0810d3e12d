//! Which part of a model is loaded.

use actbench_kernels::DType;

/// Which part of a model is loaded, and in which type.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Storage type of weights and activations; weights in another type are converted once.
    pub dtype: DType,
    /// Blocks to load, from the first on: one more than the deepest layer that will be asked for.
    pub n_blocks: usize,
    /// Tokens of the longest sequence that will be run.
    pub max_positions: usize,
}
