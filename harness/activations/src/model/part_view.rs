//! A part of a stored tensor: rows of a stacked projection, in the order and the orientation that backends take.

use std::ops::Range;

use actbench_kernels::HostTensor;
use bytes::Bytes;

use super::tensor_names::Stacking;
use crate::error::Result;

/// Where a part's outputs are in a stored projection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PartView {
    /// Outputs of the part before, this one and those after, in the order in which they are stacked.
    pub(super) widths: Vec<usize>,
    /// The index of the part among them.
    pub(super) index: usize,
    /// How they are stacked.
    pub(super) stacking: Stacking,
    /// Heads, for [`Stacking::ByHead`].
    pub(super) n_heads: usize,
    /// Whether outputs are the columns of the stored matrix.
    pub(super) transposed: bool,
}

impl PartView {
    /// Outputs of all parts.
    pub(super) fn total(&self) -> usize {
        self.widths.iter().sum()
    }

    /// The part of `whole`, a matrix or a vector with one element an output: `[width, in_features]` or `[width]`.
    ///
    /// # Errors
    /// Never for a tensor of the stored shape.
    pub(super) fn cut(&self, whole: &HostTensor) -> Result<HostTensor> {
        let matrix = whole.shape().len() == 2;
        if matrix && self.transposed {
            return transposed(whole, &self.outputs());
        }
        if self.widths.len() == 1 {
            return Ok(whole.clone());
        }
        let outputs = self.outputs();
        if let [range] = &outputs[..] {
            // One range shares the mapped pages and the file.
            return Ok(whole.rows(range.clone())?);
        }
        let inputs = if matrix { whole.shape()[1] } else { 1 };
        let row_bytes = inputs * whole.dtype().size();
        let rows = outputs.iter().map(|range| &whole.bytes()[range.start * row_bytes..range.end * row_bytes]);
        let bytes = Bytes::from(rows.collect::<Vec<_>>().concat());
        let width = self.widths[self.index];
        let shape = if matrix { vec![width, inputs] } else { vec![width] };
        Ok(HostTensor::new(whole.dtype(), shape, bytes)?)
    }

    /// The part's outputs among all.
    fn outputs(&self) -> Vec<Range<usize>> {
        let before: usize = self.widths[..self.index].iter().sum();
        let width = self.widths[self.index];
        match self.stacking {
            Stacking::ByHead if self.widths.len() > 1 => {
                let (in_head, head, total) = (before / self.n_heads, width / self.n_heads, self.total() / self.n_heads);
                (0..self.n_heads).map(|index| index * total + in_head..index * total + in_head + head).collect()
            }
            Stacking::ByHead | Stacking::Whole => std::iter::once(before..before + width).collect(),
        }
    }
}

/// The columns `ranges` of `[in_features, outputs]` as rows.
fn transposed(whole: &HostTensor, ranges: &[Range<usize>]) -> Result<HostTensor> {
    let (rows, columns) = (whole.shape()[0], whole.shape()[1]);
    let size = whole.dtype().size();
    let outputs: Vec<usize> = ranges.iter().cloned().flatten().collect();
    let mut bytes = vec![0; outputs.len() * rows * size];
    for (out, column) in bytes.chunks_exact_mut((rows * size).max(1)).zip(&outputs) {
        for (row, element) in out.chunks_exact_mut(size).enumerate() {
            let from = (row * columns + column) * size;
            element.copy_from_slice(&whole.bytes()[from..from + size]);
        }
    }
    Ok(HostTensor::new(whole.dtype(), vec![outputs.len(), rows], Bytes::from(bytes))?)
}

#[cfg(test)]
mod tests {
    use actbench_kernels::DType;

    use super::*;

    fn matrix(rows: usize, columns: usize) -> HostTensor {
        let values: Vec<f32> = (0..rows * columns).map(|value| value as f32).collect();
        HostTensor::from_f32(DType::Bf16, vec![rows, columns], &values).unwrap()
    }

    fn cut(view: &PartView, whole: &HostTensor) -> (Vec<usize>, Vec<f32>) {
        let part = view.cut(whole).unwrap();
        (part.shape().to_vec(), part.to_f32_vec())
    }

    fn view(widths: &[usize], index: usize, stacking: Stacking, transposed: bool) -> PartView {
        PartView { widths: widths.to_vec(), index, stacking, n_heads: 2, transposed }
    }

    #[test]
    fn stacked_rows_and_biases_are_cut() {
        let second = view(&[2, 1, 1], 1, Stacking::Whole, false);
        assert_eq!(cut(&second, &matrix(4, 2)), (vec![1, 2], vec![4.0, 5.0]));
        let bias = HostTensor::from_f32(DType::F32, vec![4], &[0.0, 1.0, 2.0, 3.0]).unwrap();
        assert_eq!(cut(&second, &bias), (vec![1], vec![2.0]));
    }

    #[test]
    fn rows_are_collected_head_by_head() {
        // Two heads of two rows each for query, key and value: q0 q0 k0 k0 v0 v0 q1 q1 k1 k1 v1 v1.
        let key = view(&[4, 4, 4], 1, Stacking::ByHead, false);
        assert_eq!(cut(&key, &matrix(12, 1)), (vec![4, 1], vec![2.0, 3.0, 8.0, 9.0]));
        let bias = HostTensor::from_f32(DType::F32, vec![12], &(0..12).map(|i| i as f32).collect::<Vec<_>>()).unwrap();
        assert_eq!(cut(&key, &bias), (vec![4], vec![2.0, 3.0, 8.0, 9.0]));
    }

    #[test]
    fn columns_become_rows() {
        let second = view(&[2, 1], 1, Stacking::Whole, true);
        assert_eq!(cut(&second, &matrix(2, 3)), (vec![1, 2], vec![2.0, 5.0]));
        assert_eq!(cut(&view(&[3], 0, Stacking::Whole, true), &matrix(2, 3)).1, [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
    }
}
