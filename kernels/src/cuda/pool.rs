//! Launches of pooling: `pool.cu`, a block for 128 columns of a group, or for 128 vectors of 16 bytes.

use super::registry::{Operation, Variant, require};
use super::{Argument, CudaBackend, CudaTensor, Device, WIDE_BYTES, count};
use crate::backend::{PoolGroups, PoolMethod};
use crate::error::KernelError;

const OP: &str = "pool";

impl<D: Device> CudaBackend<D> {
    /// `out[g] = pool(x[rows of group g])`.
    pub(super) fn pool_groups(
        &self,
        x: &CudaTensor<D::Buffer>,
        groups: &PoolGroups,
        method: PoolMethod,
        out: &mut CudaTensor<D::Buffer>,
    ) -> Result<(), KernelError> {
        self.poison(out, 0..groups.len())?;
        let mut offsets = vec![0u32];
        let mut rows = Vec::with_capacity(groups.n_rows());
        for group in 0..groups.len() {
            rows.extend_from_slice(groups.rows_of(group));
            offsets.push(count(OP, rows.len())?);
        }
        let (offsets, rows) = (self.upload(&offsets)?, self.upload(&rows)?);
        let columns = count(OP, x.columns)?;
        let (variant, columns_per_thread) = if self.moves_wide(x.dtype, x.columns) {
            (Variant::Wide, (WIDE_BYTES / x.dtype.size()) as u32)
        } else {
            (Variant::Plain, 1)
        };
        let kernel = require(OP, Operation::Pool, variant, x.dtype)?;
        let launch =
            kernel.launch([count(OP, groups.len())?, columns.div_ceil(kernel.threads * columns_per_thread), 1]);
        // `enum Method` of the kernel.
        let method = match method {
            PoolMethod::Mean => 0,
            PoolMethod::Max => 1,
            PoolMethod::Last => 2,
            PoolMethod::Sum => 3,
        };
        let mut arguments = [
            Argument::Read(&x.buffer),
            Argument::Read(&*offsets),
            Argument::Read(&*rows),
            Argument::U32(columns),
            Argument::U32(method),
            Argument::Write(&mut out.buffer),
        ];
        self.launch(&launch, &mut arguments)
    }
}
