//! Launches of the row-wise kernels `gather_rows.cu`, `embed.cu` and `rope.cu`, one block a row. Rows of a multiple of 16
//! bytes go to the wide kernels.

use super::registry::{Operation, Variant, require};
use super::{Argument, CudaBackend, CudaTensor, CudaVector, Device, Launch, WIDE_BYTES, count};
use crate::dtype::DType;
use crate::error::KernelError;

impl<D: Device> CudaBackend<D> {
    /// A launch of one block a row.
    pub(super) fn per_row(
        &self,
        op: &'static str,
        operation: Operation,
        variant: Variant,
        dtype: DType,
        rows: usize,
    ) -> Result<Launch, KernelError> {
        Ok(require(op, operation, variant, dtype)?.launch([count(op, rows)?, 1, 1]))
    }

    /// The wide kernel for rows of `columns` elements, if they are a multiple of 16 bytes.
    pub(super) fn row_variant(&self, dtype: DType, columns: usize) -> Variant {
        if self.moves_wide(dtype, columns) { Variant::Wide } else { Variant::Plain }
    }

    /// The launch that copies rows of `columns` elements, and the row length in the kernel's units.
    fn row_copy(
        &self,
        op: &'static str,
        dtype: DType,
        columns: usize,
        rows: usize,
    ) -> Result<(Launch, u32), KernelError> {
        let variant = self.row_variant(dtype, columns);
        let units = if variant == Variant::Wide { columns * dtype.size() / WIDE_BYTES } else { columns };
        Ok((self.per_row(op, Operation::GatherRows, variant, dtype, rows)?, count(op, units)?))
    }

    /// `out[i] = x[rows[i]]`.
    pub(super) fn gather(
        &self,
        op: &'static str,
        x: &CudaTensor<D::Buffer>,
        rows: &[u32],
        out: &mut CudaTensor<D::Buffer>,
    ) -> Result<(), KernelError> {
        self.poison(out, 0..rows.len())?;
        let table = self.upload(rows)?;
        let (launch, columns) = self.row_copy(op, x.dtype, x.columns, rows.len())?;
        let mut arguments = [
            Argument::Read(&x.buffer),
            Argument::Read(&*table),
            Argument::U64(0),
            Argument::U32(columns),
            Argument::Write(&mut out.buffer),
            Argument::U64(0),
        ];
        self.launch(&launch, &mut arguments)
    }

    /// Copies rows `from..from + len` of `x` to rows `to..to + len` of `out`.
    pub(super) fn copy(
        &self,
        x: &CudaTensor<D::Buffer>,
        from: usize,
        len: usize,
        out: &mut CudaTensor<D::Buffer>,
        to: usize,
    ) -> Result<(), KernelError> {
        const OP: &str = "copy rows";
        self.poison(out, to..to + len)?;
        let (launch, columns) = self.row_copy(OP, x.dtype, x.columns, len)?;
        let mut arguments = [
            Argument::Read(&x.buffer),
            Argument::Null,
            Argument::U64(from as u64),
            Argument::U32(columns),
            Argument::Write(&mut out.buffer),
            Argument::U64(to as u64),
        ];
        self.launch(&launch, &mut arguments)
    }

    /// `out[i] = factor * table[tokens[i]]`.
    pub(super) fn embed_scaled(
        &self,
        table: &CudaTensor<D::Buffer>,
        tokens: &[u32],
        factor: f32,
        out: &mut CudaTensor<D::Buffer>,
    ) -> Result<(), KernelError> {
        self.poison(out, 0..tokens.len())?;
        self.launch_embed("embed", Operation::EmbedScaled, table, tokens, factor, out)
    }

    /// `stream[i] = stream[i] + table[rows[i]]`.
    pub(super) fn add_rows(
        &self,
        table: &CudaTensor<D::Buffer>,
        rows: &[u32],
        stream: &mut CudaTensor<D::Buffer>,
    ) -> Result<(), KernelError> {
        // The kernel ignores the factor.
        self.launch_embed("add embedding", Operation::AddEmbedding, table, rows, 1.0, stream)
    }

    fn launch_embed(
        &self,
        op: &'static str,
        operation: Operation,
        table: &CudaTensor<D::Buffer>,
        rows: &[u32],
        factor: f32,
        out: &mut CudaTensor<D::Buffer>,
    ) -> Result<(), KernelError> {
        let indices = self.upload(rows)?;
        let variant = self.row_variant(table.dtype, table.columns);
        let launch = self.per_row(op, operation, variant, table.dtype, rows.len())?;
        let mut arguments = [
            Argument::Read(&table.buffer),
            Argument::Read(&*indices),
            Argument::U32(count(op, table.columns)?),
            Argument::F32(factor),
            Argument::Write(&mut out.buffer),
        ];
        self.launch(&launch, &mut arguments)
    }

    /// Rotates a part of the first `n_heads` heads of every row that has a position.
    #[expect(clippy::too_many_arguments, reason = "the arguments of the operation")]
    pub(super) fn rotate_rows(
        &self,
        x: &mut CudaTensor<D::Buffer>,
        n_heads: usize,
        head_dim: usize,
        rotary_dim: usize,
        positions: &[u32],
        cos: &CudaVector<D::Buffer>,
        sin: &CudaVector<D::Buffer>,
    ) -> Result<(), KernelError> {
        const OP: &str = "rope";
        let table = self.upload(positions)?;
        // Both halves of the rotated part of each head in every row begin at a multiple of 16 bytes.
        let is_wide = [rotary_dim / 2, head_dim, x.columns].iter().all(|columns| self.moves_wide(x.dtype, *columns));
        let variant = if is_wide { Variant::Wide } else { Variant::Plain };
        let launch = self.per_row(OP, Operation::Rope, variant, x.dtype, positions.len())?;
        let mut arguments = [
            Argument::Write(&mut x.buffer),
            Argument::Read(&*table),
            Argument::Read(&cos.buffer),
            Argument::Read(&sin.buffer),
            Argument::U32(count(OP, x.columns)?),
            Argument::U32(count(OP, n_heads)?),
            Argument::U32(count(OP, head_dim)?),
            Argument::U32(count(OP, rotary_dim)?),
        ];
        self.launch(&launch, &mut arguments)
    }
}
