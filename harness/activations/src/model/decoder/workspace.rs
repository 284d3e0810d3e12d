//! The buffers that a stage keeps between batches.

use actbench_kernels::{Backend, DType, KernelError};

use super::stream_squares::StreamSquares;
use super::weights::folds_norms;
use crate::error::{Error, Result};
use crate::model::TokenBatch;
use crate::model::memory_model::{ExpertColumns, WorkspaceColumns};
use crate::model::spec::DecoderSpec;

/// Activations of a batch; every buffer grows to the largest batch and is then kept.
pub(super) struct Workspace<B: Backend> {
    pub(super) stream: B::Tensor,
    /// Of the stream, if norms are folded.
    pub(super) squares: Option<StreamSquares<B>>,
    /// The tokens of `stream` or `normed` that are left after pruning the last layer.
    pub(super) pruned: B::Tensor,
    pub(super) normed: B::Tensor,
    /// The norm of the block's input for the MLP, with a parallel residual alone.
    pub(super) parallel_normed: B::Tensor,
    has_parallel_residual: bool,
    pub(super) query: B::Tensor,
    pub(super) key_value: B::Tensor,
    pub(super) attended: B::Tensor,
    pub(super) gated: B::Tensor,
    /// Of blocks with experts, if the model has them.
    pub(super) experts: Option<ExpertBuffers<B>>,
    /// A layer's output: its own tokens, then the cached ones.
    pub(super) joined: B::Tensor,
    pub(super) pooled: B::Tensor,
    pub(super) host: Vec<u8>,
    pub(super) prefix_cache: PrefixCache<B>,
}

/// Activations of the experts of a block.
pub(super) struct ExpertBuffers<B: Backend> {
    /// Of the router, for all tokens.
    pub(super) logits: B::Tensor,
    /// A row for each expert of each token, sorted by expert: its input, then its output.
    pub(super) slots: B::Tensor,
    /// The rows of one expert.
    pub(super) input: B::Tensor,
    /// The activated rows of one expert.
    pub(super) gated: B::Tensor,
    /// The output of one expert.
    pub(super) output: B::Tensor,
}

impl<B: Backend> ExpertBuffers<B> {
    fn new(backend: &B, hidden: usize, columns: ExpertColumns, dtype: DType) -> Result<Self> {
        Ok(ExpertBuffers {
            logits: backend.alloc(dtype, 0, columns.router)?,
            slots: backend.alloc(dtype, 0, hidden)?,
            input: backend.alloc(dtype, 0, hidden)?,
            gated: backend.alloc(dtype, 0, columns.gated)?,
            output: backend.alloc(dtype, 0, hidden)?,
        })
    }

    /// Makes space for `n_rows` rows of one expert.
    pub(super) fn resize(&mut self, backend: &B, n_rows: usize) -> std::result::Result<(), KernelError> {
        for tensor in [&mut self.input, &mut self.gated, &mut self.output] {
            backend.resize(tensor, n_rows)?;
        }
        Ok(())
    }
}

/// Prefix tokens kept for the next batch.
pub(super) struct PrefixCache<B: Backend> {
    n_tokens: usize,
    /// How many of them are left in the last layer.
    n_last_layer_tokens: usize,
    /// Keys and values of each block.
    pub(super) key_values: Vec<B::Tensor>,
    /// Outputs of each block that was asked for.
    pub(super) outputs: Vec<B::Tensor>,
}

impl<B: Backend> Workspace<B> {
    /// Empty buffers for `n_blocks` blocks.
    pub(super) fn new(backend: &B, spec: &DecoderSpec, dtype: DType, n_blocks: usize) -> Result<Self> {
        let columns = WorkspaceColumns::of(spec);
        let alloc = |columns: usize| backend.alloc(dtype, 0, columns);
        let alloc_per_block =
            |columns: usize| (0..n_blocks).map(|_| alloc(columns)).collect::<std::result::Result<Vec<_>, _>>();
        Ok(Workspace {
            stream: alloc(columns.hidden)?,
            squares: folds_norms(backend, spec, dtype)
                .then(|| StreamSquares::new(backend, columns.hidden))
                .transpose()?,
            normed: alloc(columns.hidden)?,
            parallel_normed: alloc(columns.hidden)?,
            has_parallel_residual: spec.parallel_residual,
            query: alloc(columns.query)?,
            key_value: alloc(columns.key_value)?,
            attended: alloc(columns.query)?,
            gated: alloc(columns.gated)?,
            experts: columns
                .experts
                .map(|experts| ExpertBuffers::new(backend, columns.hidden, experts, dtype))
                .transpose()?,
            pruned: alloc(columns.hidden)?,
            joined: alloc(columns.hidden)?,
            pooled: alloc(columns.hidden)?,
            host: Vec::new(),
            prefix_cache: PrefixCache {
                n_tokens: 0,
                n_last_layer_tokens: 0,
                key_values: alloc_per_block(columns.key_value)?,
                outputs: alloc_per_block(columns.hidden)?,
            },
        })
    }

    /// Makes room for the activations of `n_tokens` own tokens.
    pub(super) fn resize(&mut self, backend: &B, n_tokens: usize) -> Result<()> {
        for tensor in [&mut self.stream, &mut self.normed, &mut self.query, &mut self.attended, &mut self.gated] {
            backend.resize(tensor, n_tokens)?;
        }
        if let Some(squares) = &mut self.squares {
            squares.resize(backend, n_tokens)?;
        }
        if self.has_parallel_residual {
            backend.resize(&mut self.parallel_normed, n_tokens)?;
        }
        Ok(())
    }
}

impl<B: Backend> PrefixCache<B> {
    /// Refuses a batch whose cached tokens are not those that the batch before was asked to keep.
    pub(super) fn check(&self, batch: &TokenBatch) -> Result<()> {
        let n_last_layer = batch.last_layer.as_ref().map_or(0, |last| last.n_cached);
        let needed = (batch.n_cached, n_last_layer);
        if needed == (0, 0) || needed == (self.n_tokens, self.n_last_layer_tokens) {
            return Ok(());
        }
        Err(Error::internal("a batch continues another session: its prefix tokens are not cached in this one"))
    }

    /// Notes what `batch`, which has run, was asked to keep.
    pub(super) fn note_kept(&mut self, batch: &TokenBatch) {
        self.n_tokens = batch.keep.len();
        self.n_last_layer_tokens = batch.last_layer.as_ref().map_or(0, |last| last.keep.len());
    }

    /// Forgets all prefix tokens.
    pub(super) fn clear(&mut self) {
        (self.n_tokens, self.n_last_layer_tokens) = (0, 0);
    }
}
