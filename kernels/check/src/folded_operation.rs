//! The operations of norms that are folded into GEMMs.

use actbench_kernels::{DType, square_blocks};

/// The type in which norms are folded.
pub const DTYPE: DType = DType::Bf16;

/// An operation of folded norms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Folded {
    /// The sums of squares of a stream to which a GEMM adds.
    ResidualSquares,
    /// A GEMM that scales its rows.
    Projection,
    /// A gated GEMM that scales its rows.
    GatedProjection,
    /// A norm's weights in those of a GEMM, which shows them by the product with an identity.
    Weights,
    /// The sums of squares of rows.
    SquareSums,
}

impl Folded {
    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Folded::ResidualSquares => "squares of linear residual",
            Folded::Projection => "linear of a folded norm",
            Folded::GatedProjection => "linear gated silu of a folded norm",
            Folded::Weights => "fold norm",
            Folded::SquareSums => "square sums",
        }
    }

    /// Columns of the result of a GEMM of `k` inputs and `n` outputs.
    pub fn columns(self, k: usize, n: usize) -> usize {
        match self {
            Folded::ResidualSquares => square_blocks(n),
            Folded::Projection | Folded::GatedProjection | Folded::Weights => n,
            Folded::SquareSums => square_blocks(k),
        }
    }
}
