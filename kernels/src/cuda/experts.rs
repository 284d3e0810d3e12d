//! Launches of a mixture of experts, `route.cu` and `add_weighted_rows.cu`, one block a row.

use super::registry::{Operation, Variant};
use super::{Argument, CudaBackend, CudaTensor, Device, count};
use crate::error::KernelError;
use crate::routes::{RouteRule, Routes, WeightedRows};

impl<D: Device> CudaBackend<D> {
    /// The experts of each row of `logits`. Waits for the device.
    pub(super) fn route_rows(&self, logits: &CudaTensor<D::Buffer>, rule: RouteRule) -> Result<Routes, KernelError> {
        const OP: &str = "route";
        let top_k = rule.top_k;
        // The experts of a row, then the bits of their weights.
        let mut words = vec![0u32; logits.rows * 2 * top_k];
        if !words.is_empty() {
            let bytes = size_of_val(&words[..]);
            let mut routes = self.device.alloc(bytes)?;
            self.device.poison(&mut routes, 0..bytes)?;
            let launch = self.per_row(OP, Operation::Route, Variant::Plain, logits.dtype, logits.rows)?;
            let mut arguments = [
                Argument::Read(&logits.buffer),
                Argument::U32(count(OP, logits.columns)?),
                Argument::U32(count(OP, top_k)?),
                Argument::U32(u32::from(rule.renormalize)),
                Argument::U32(u32::from(rule.rounded)),
                Argument::Write(&mut routes),
            ];
            self.launch(&launch, &mut arguments)?;
            self.read(&routes, bytemuck::cast_slice_mut(&mut words))?;
        }
        let mut experts = Vec::with_capacity(logits.rows * top_k);
        let mut weights = Vec::with_capacity(logits.rows * top_k);
        for row in words.chunks_exact(2 * top_k) {
            let (chosen, bits) = row.split_at(top_k);
            experts.extend_from_slice(chosen);
            weights.extend(bits.iter().copied().map(f32::from_bits));
        }
        Routes::new(top_k, logits.columns, experts, weights)
    }

    /// `stream[i] = stream[i] + sum of weight * x[row]`.
    pub(super) fn add_sums(
        &self,
        x: &CudaTensor<D::Buffer>,
        sums: WeightedRows<'_>,
        stream: &mut CudaTensor<D::Buffer>,
    ) -> Result<(), KernelError> {
        const OP: &str = "add weighted rows";
        let rows = self.upload(sums.rows)?;
        let weights = self.upload(bytemuck::cast_slice(sums.weights))?;
        let variant = self.row_variant(x.dtype, x.columns);
        let launch = self.per_row(OP, Operation::AddWeightedRows, variant, x.dtype, sums.n_results())?;
        let mut arguments = [
            Argument::Read(&x.buffer),
            Argument::Read(&*rows),
            Argument::Read(&*weights),
            Argument::U32(count(OP, sums.per_row)?),
            Argument::U32(count(OP, x.columns)?),
            Argument::Write(&mut stream.buffer),
        ];
        self.launch(&launch, &mut arguments)
    }
}
