//! Launches of pooling: `pool.cu`, a block for 128 columns of a group, or for 128 times 16 bytes of them.

use super::names::typed;
use super::{Argument, CudaBackend, CudaTensor, Device, Launch, WIDE_BYTES, count};
use crate::backend::{PoolGroups, PoolMethod};
use crate::error::KernelError;

const OP: &str = "pool";

/// Threads of a block, one a column or 16 bytes of them.
const THREADS: u32 = 128;

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
        let is_wide = self.moves_wide(x.dtype, x.columns);
        let (kernel, of_a_thread) = match is_wide {
            true => (typed!("pool_wide", x.dtype), (WIDE_BYTES / x.dtype.size()) as u32),
            false => (typed!("pool", x.dtype), 1),
        };
        let launch = Launch {
            kernel: kernel.into(),
            grid: [count(OP, groups.len())?, columns.div_ceil(THREADS * of_a_thread), 1],
            threads: THREADS,
            shared_bytes: 0,
        };
        // The kernel's numbers for the methods.
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
