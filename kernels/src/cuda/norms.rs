//! Launches of the norms, `rms_norm.cu`, `rms_norm_heads.cu` and `layer_norm.cu`. Rows and heads of a multiple of 16 bytes go to
//! the wide kernels.

use super::registry::{Operation, Variant, require};
use super::{Argument, CudaBackend, CudaTensor, CudaVector, Device, count};
use crate::error::KernelError;

/// Threads of a warp, which normalizes one head in `rms_norm_heads_wide`.
const WARP: usize = 32;

impl<D: Device> CudaBackend<D> {
    /// RMSNorm of every row, stored for [`Operation::RmsNorm`] and added to `out` for [`Operation::RmsNormResidual`].
    pub(super) fn rms_norm_rows(
        &self,
        op: &'static str,
        operation: Operation,
        x: &CudaTensor<D::Buffer>,
        scale: &CudaVector<D::Buffer>,
        eps: f32,
        out: &mut CudaTensor<D::Buffer>,
    ) -> Result<(), KernelError> {
        let variant = self.row_variant(x.dtype, x.columns);
        let launch = self.per_row(op, operation, variant, x.dtype, x.rows)?;
        let mut arguments = [
            Argument::Read(&x.buffer),
            Argument::Read(&scale.buffer),
            Argument::U32(count(op, x.columns)?),
            Argument::F32(eps),
            Argument::Write(&mut out.buffer),
        ];
        self.launch(&launch, &mut arguments)
    }

    /// RMSNorm of the first `n_heads` heads of `scale.len` columns of every row, in place.
    pub(super) fn rms_norm_of_heads(
        &self,
        x: &mut CudaTensor<D::Buffer>,
        n_heads: usize,
        scale: &CudaVector<D::Buffer>,
        eps: f32,
    ) -> Result<(), KernelError> {
        const OP: &str = "rms norm of heads";
        let is_wide = self.moves_wide(x.dtype, scale.len) && self.moves_wide(x.dtype, x.columns);
        let variant = if is_wide { Variant::Wide } else { Variant::Plain };
        let kernel = require(OP, Operation::RmsNormHeads, variant, x.dtype)?;
        let norms = x.rows * n_heads;
        let norms_per_block = if is_wide { kernel.threads as usize / WARP } else { 1 };
        let launch = kernel.launch([count(OP, norms.div_ceil(norms_per_block))?, 1, 1]);
        let mut arguments = [
            Argument::Write(&mut x.buffer),
            Argument::Read(&scale.buffer),
            Argument::U32(count(OP, norms)?),
            Argument::U32(count(OP, x.columns)?),
            Argument::U32(count(OP, n_heads)?),
            Argument::U32(count(OP, scale.len)?),
            Argument::F32(eps),
        ];
        self.launch(&launch, &mut arguments)
    }

    /// LayerNorm of every row.
    pub(super) fn layer_norm_rows(
        &self,
        x: &CudaTensor<D::Buffer>,
        scale: &CudaVector<D::Buffer>,
        bias: &CudaVector<D::Buffer>,
        eps: f32,
        out: &mut CudaTensor<D::Buffer>,
    ) -> Result<(), KernelError> {
        const OP: &str = "layer norm";
        self.poison(out, 0..x.rows)?;
        let variant = self.row_variant(x.dtype, x.columns);
        let launch = self.per_row(OP, Operation::LayerNorm, variant, x.dtype, x.rows)?;
        let mut arguments = [
            Argument::Read(&x.buffer),
            Argument::Read(&scale.buffer),
            Argument::Read(&bias.buffer),
            Argument::U32(count(OP, x.columns)?),
            Argument::F32(eps),
            Argument::Write(&mut out.buffer),
        ];
        self.launch(&launch, &mut arguments)
    }
}
