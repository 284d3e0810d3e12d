//! Launches of what works on each row alone: `gather_rows.cu`, `rms_norm.cu` and `rope.cu`, one block a row. Rows of a
//! multiple of 16 bytes have kernels of their own, but for plain ones.

use super::names::typed;
use super::{Argument, CudaBackend, CudaTensor, CudaVector, Device, Launch, WIDE_BYTES, count};
use crate::dtype::DType;
use crate::error::KernelError;

/// A launch of one block of 128 threads a row.
fn per_row(op: &'static str, kernel: &'static str, rows: usize) -> Result<Launch, KernelError> {
    Ok(Launch { kernel: kernel.into(), grid: [count(op, rows)?, 1, 1], threads: 128, shared_bytes: 0 })
}

impl<D: Device> CudaBackend<D> {
    /// The launch that moves rows of `columns` elements, and what it counts them in.
    fn moving(
        &self,
        op: &'static str,
        dtype: DType,
        columns: usize,
        rows: usize,
    ) -> Result<(Launch, u32), KernelError> {
        match self.moves_wide(dtype, columns) {
            true => {
                let launch = per_row(op, "gather_rows_wide", rows)?;
                Ok((launch, count(op, columns * dtype.size() / WIDE_BYTES)?))
            }
            false => Ok((per_row(op, typed!("gather_rows", dtype), rows)?, count(op, columns)?)),
        }
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
        let (launch, columns) = self.moving(op, x.dtype, x.columns, rows.len())?;
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

    /// Rows `from..from + len` of `x` to the rows of `out` from `to` on.
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
        let (launch, columns) = self.moving(OP, x.dtype, x.columns, len)?;
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

    /// RMSNorm of every row.
    pub(super) fn norm_rows(
        &self,
        x: &CudaTensor<D::Buffer>,
        scale: &CudaVector<D::Buffer>,
        eps: f32,
        out: &mut CudaTensor<D::Buffer>,
    ) -> Result<(), KernelError> {
        const OP: &str = "rms norm";
        self.poison(out, 0..x.rows)?;
        let launch = match self.moves_wide(x.dtype, x.columns) {
            true => Launch { threads: 256, ..per_row(OP, typed!("rms_norm_wide", x.dtype), x.rows)? },
            false => per_row(OP, typed!("rms_norm", x.dtype), x.rows)?,
        };
        let mut arguments = [
            Argument::Read(&x.buffer),
            Argument::Read(&scale.buffer),
            Argument::U32(count(OP, x.columns)?),
            Argument::F32(eps),
            Argument::Write(&mut out.buffer),
        ];
        self.launch(&launch, &mut arguments)
    }

    /// Rotary positions of the first `n_heads` heads of every row that has a position.
    pub(super) fn rotate_rows(
        &self,
        x: &mut CudaTensor<D::Buffer>,
        n_heads: usize,
        head_dim: usize,
        positions: &[u32],
        cos: &CudaVector<D::Buffer>,
        sin: &CudaVector<D::Buffer>,
    ) -> Result<(), KernelError> {
        const OP: &str = "rope";
        let table = self.upload(positions)?;
        // Both halves of each head in every row begin at a multiple of what is moved at once.
        let is_wide = self.moves_wide(x.dtype, head_dim / 2) && self.moves_wide(x.dtype, x.columns);
        let kernel = if is_wide { typed!("rope_wide", x.dtype) } else { typed!("rope", x.dtype) };
        let launch = per_row(OP, kernel, positions.len())?;
        let mut arguments = [
            Argument::Write(&mut x.buffer),
            Argument::Read(&*table),
            Argument::Read(&cos.buffer),
            Argument::Read(&sin.buffer),
            Argument::U32(count(OP, x.columns)?),
            Argument::U32(count(OP, n_heads)?),
            Argument::U32(count(OP, head_dim)?),
        ];
        self.launch(&launch, &mut arguments)
    }
}
