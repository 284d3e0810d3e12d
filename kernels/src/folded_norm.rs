//! RMSNorm folded into the matmuls that read its result (FlashNorm, Graef et al. 2024): the norm's weights are in those of the
//! matmul, and a row's factor `1 / sqrt(mean(x^2) + eps)` is applied to its results. No normed row is written or read.
//!
//! The factor comes from sums of squares, `f32` `[rows, square_blocks(columns)]`: of the rounded values of each 64 columns, in an
//! order that depends on no tile and no other row, so that every way to a row of a stream gives the same bits.

/// Columns of a row whose squares are added to one sum; the last ones of a row may be fewer.
pub const SQUARES_COLUMNS: usize = 64;

/// The sums of squares of a row of `columns` columns.
pub const fn square_blocks(columns: usize) -> usize {
    columns.div_ceil(SQUARES_COLUMNS)
}

/// The norm of a matmul's input, whose weights [`Backend::fold_norm`](crate::Backend::fold_norm) has put into the matmul's.
#[derive(Debug)]
pub struct FoldedNorm<'a, T> {
    /// The sums of squares of the input's rows.
    pub squares: &'a T,
    /// The constant in the root.
    pub eps: f32,
}
