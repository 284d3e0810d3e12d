//! RMSNorm folded into matmuls: launches of `fold_norm.cu` and `square_sums.cu`, one block a row. The GEMMs themselves are in
//! `linear`.

use super::checks::Conversion;
use super::registry::{Operation, Variant, require};
use super::tiles::fits_tensor_cores;
use super::{Argument, CudaBackend, CudaTensor, CudaVector, CudaWeights, Device, count};
use crate::check;
use crate::dtype::DType;
use crate::error::KernelError;

/// What a GEMM does with sums of squares.
pub(super) enum RowSquares<'a, B> {
    /// Nothing.
    None,
    /// It scales its rows by those of its input, with the constant in the root.
    Scale(&'a CudaTensor<B>, f32),
    /// It writes those of the rows that it stores.
    Write(&'a mut CudaTensor<B>),
}

impl<'a, B> RowSquares<'a, B> {
    /// The last two arguments of a GEMM's kernel.
    pub(super) fn arguments(self) -> [Argument<'a, B>; 2] {
        match self {
            RowSquares::None => [Argument::Null, Argument::F32(0.0)],
            RowSquares::Scale(squares, eps) => [Argument::Read(&squares.buffer), Argument::F32(eps)],
            RowSquares::Write(squares) => [Argument::Write(&mut squares.buffer), Argument::F32(0.0)],
        }
    }
}

impl<D: Device> CudaBackend<D> {
    /// Whether norms of rows of `width` elements are folded. Not in f16: products of weights could exceed its range, and a model
    /// that loads today would be refused.
    pub(super) fn can_fold_norms(&self, dtype: DType, width: usize) -> bool {
        let fits = u32::try_from(width).is_ok_and(|width| width > 0 && fits_tensor_cores(dtype, width));
        dtype == DType::Bf16 && self.uses_tensor_cores() && fits
    }

    /// Multiplies each column of `weight` by its element of `scale`.
    pub(super) fn scale_columns(
        &self,
        weight: &mut CudaWeights<D::Buffer>,
        scale: &CudaVector<D::Buffer>,
    ) -> Result<(), KernelError> {
        const OP: &str = "fold norm";
        let shape = weight.shape;
        check::width(OP, "scale", scale.len, shape.in_features)?;
        if !self.can_fold_norms(shape.dtype, shape.in_features) {
            return Err(KernelError::shape(OP, format!("{} columns of {}", shape.in_features, shape.dtype)));
        }
        let rows = if shape.gated { 2 * shape.out_features } else { shape.out_features };
        let launch = self.per_row(OP, Operation::FoldNorm, Variant::Wide, shape.dtype, rows)?;
        self.with_note(Conversion { op: OP, first_element: 0 }, |notes, check| {
            let mut arguments = [
                Argument::Write(&mut weight.buffer),
                Argument::Read(&scale.buffer),
                Argument::U64(shape.in_features as u64),
                Argument::Write(notes),
                Argument::U64(check as u64),
            ];
            self.launch(&launch, &mut arguments)
        })
    }

    /// The sums of squares of the first `rows` rows of `x`.
    pub(super) fn sum_squares(
        &self,
        x: &CudaTensor<D::Buffer>,
        rows: usize,
        squares: &mut CudaTensor<D::Buffer>,
    ) -> Result<(), KernelError> {
        const OP: &str = "square sums";
        self.poison(squares, 0..rows)?;
        let launch = require(OP, Operation::SquareSums, Variant::Plain, x.dtype)?.launch([count(OP, rows)?, 1, 1]);
        let mut arguments =
            [Argument::Read(&x.buffer), Argument::U32(count(OP, x.columns)?), Argument::Write(&mut squares.buffer)];
        self.launch(&launch, &mut arguments)
    }
}
