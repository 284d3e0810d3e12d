//! The activations that a stage keeps between batches, and how much memory a row of them takes.

use actbench_kernels::{Backend, DType};

use crate::error::Result;
use crate::model::config::ModelConfig;

/// Activations, kept between batches.
pub(super) struct Workspace<B: Backend> {
    pub(super) stream: B::Tensor,
    /// The rows of `stream` or `normed` that the deepest layer goes on with, where it does not take all.
    pub(super) few: B::Tensor,
    pub(super) normed: B::Tensor,
    pub(super) query: B::Tensor,
    pub(super) key_value: B::Tensor,
    pub(super) attended: B::Tensor,
    pub(super) gated: B::Tensor,
    /// A layer's output with the carried rows behind the own ones.
    pub(super) joined: B::Tensor,
    pub(super) pooled: B::Tensor,
    pub(super) host: Vec<u8>,
    pub(super) kept: Kept<B>,
}

/// Rows kept for the next batch of the same walk.
pub(super) struct Kept<B: Backend> {
    pub(super) walk: u64,
    pub(super) rows: usize,
    pub(super) deepest_rows: usize,
    /// Keys and values of each block.
    pub(super) key_values: Vec<B::Tensor>,
    /// Outputs of each block that was asked for.
    pub(super) outputs: Vec<B::Tensor>,
}

impl<B: Backend> Workspace<B> {
    /// For `n_blocks` blocks, of no rows yet.
    pub(super) fn new(backend: &B, config: &ModelConfig, dtype: DType, n_blocks: usize) -> Result<Self> {
        let alloc = |columns: usize| backend.alloc(dtype, 0, columns);
        let of_blocks =
            |columns: usize| (0..n_blocks).map(|_| alloc(columns)).collect::<std::result::Result<Vec<_>, _>>();
        Ok(Workspace {
            stream: alloc(config.hidden_size)?,
            normed: alloc(config.hidden_size)?,
            query: alloc(config.query_width())?,
            key_value: alloc(2 * config.kv_width())?,
            attended: alloc(config.query_width())?,
            gated: alloc(config.intermediate_size)?,
            few: alloc(config.hidden_size)?,
            joined: alloc(config.hidden_size)?,
            pooled: alloc(config.hidden_size)?,
            host: Vec::new(),
            kept: Kept {
                walk: 0,
                rows: 0,
                deepest_rows: 0,
                key_values: of_blocks(2 * config.kv_width())?,
                outputs: of_blocks(config.hidden_size)?,
            },
        })
    }
}

/// Bytes that one row of a batch takes: the tensors of a workspace, copies of it on their way to the host, and tables.
pub(super) fn row_bytes(config: &ModelConfig, dtype: DType) -> u64 {
    let of_stream = 4 + super::outlet::UNDER_WAY + 1;
    let columns =
        of_stream * config.hidden_size + 2 * config.query_width() + 2 * config.kv_width() + config.intermediate_size;
    (columns * dtype.size() + 16 * size_of::<u32>()) as u64
}

/// Bytes that the rows which pass to the next batch can take: one whole sequence, in each block.
pub(super) fn kept_bytes(config: &ModelConfig, dtype: DType, n_blocks: usize, max_positions: usize) -> u64 {
    let columns = 2 * config.kv_width() + config.hidden_size;
    (n_blocks * max_positions * columns * dtype.size()) as u64
}
