//! The sums of squares of the residual stream's rows, for norms that are folded into the projections that read it.

use actbench_kernels::{Backend, DType, KernelError, square_blocks};

/// The sums of squares of the stream. Matmuls that add to the stream write them; they are computed by an operation of their own
/// after everything else that changes it.
pub(super) struct StreamSquares<B: Backend> {
    sums: B::Tensor,
    /// Of the tokens that are left after pruning the last layer.
    pruned: B::Tensor,
    /// Whether `sums` are those of the stream as it is.
    is_current: bool,
}

impl<B: Backend> StreamSquares<B> {
    /// Empty ones of a stream of `hidden` columns.
    pub(super) fn new(backend: &B, hidden: usize) -> Result<Self, KernelError> {
        let alloc = || backend.alloc(DType::F32, 0, square_blocks(hidden));
        Ok(StreamSquares { sums: alloc()?, pruned: alloc()?, is_current: false })
    }

    /// Bytes for a token of a stream of `hidden` columns.
    pub(super) fn token_bytes(hidden: usize) -> u64 {
        (2 * square_blocks(hidden) * size_of::<f32>()) as u64
    }

    /// Makes room for those of `n_tokens` tokens, whose stream is new.
    pub(super) fn resize(&mut self, backend: &B, n_tokens: usize) -> Result<(), KernelError> {
        self.is_current = false;
        backend.resize(&mut self.sums, n_tokens)
    }

    /// Notes that the stream has changed.
    pub(super) fn invalidate(&mut self) {
        self.is_current = false;
    }

    /// Computes them if `stream` has changed.
    pub(super) fn update(&mut self, backend: &B, stream: &B::Tensor) -> Result<(), KernelError> {
        if !self.is_current {
            backend.square_sums(stream, &mut self.sums)?;
            self.is_current = true;
        }
        Ok(())
    }

    /// Calls `add`, which adds to the stream and writes its sums of squares.
    pub(super) fn written_by(
        &mut self,
        add: impl FnOnce(&mut B::Tensor) -> Result<(), KernelError>,
    ) -> Result<(), KernelError> {
        self.is_current = false;
        add(&mut self.sums)?;
        self.is_current = true;
        Ok(())
    }

    /// Keeps those of `tokens` alone.
    pub(super) fn prune(&mut self, backend: &B, tokens: &[u32]) -> Result<(), KernelError> {
        if !self.is_current {
            return backend.resize(&mut self.sums, tokens.len());
        }
        backend.resize(&mut self.pruned, tokens.len())?;
        backend.gather_rows(&self.sums, tokens, &mut self.pruned)?;
        std::mem::swap(&mut self.sums, &mut self.pruned);
        Ok(())
    }

    /// Those of the stream as it was at the last update.
    pub(super) fn sums(&self) -> &B::Tensor {
        &self.sums
    }
}
