//! Copies to the host that run while the device continues.

use crate::error::KernelError;

/// A copy of rows to host memory that may still be in flight. Dropping it waits for the copy.
pub trait PendingCopy: Send {
    /// The bytes of the whole copy.
    fn n_bytes(&self) -> usize;

    /// Waits until the first `n_bytes` bytes have landed, or all of a shorter copy. Returns all that have landed: the first
    /// bytes of the rows in row-major order, native-endian, in the tensor's dtype. Can be called again.
    ///
    /// # Errors
    /// A failure of the device, including one of its earlier operations.
    fn wait_for(&mut self, n_bytes: usize) -> Result<&[u8], KernelError>;

    /// Waits for the whole copy and returns its bytes.
    ///
    /// # Errors
    /// As for [`PendingCopy::wait_for`].
    fn wait(&mut self) -> Result<&[u8], KernelError> {
        self.wait_for(self.n_bytes())
    }
}

/// A copy that completed before it was returned: the [`PendingCopy`] of devices without asynchronous copies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CompletedCopy(pub Vec<u8>);

impl PendingCopy for CompletedCopy {
    fn n_bytes(&self) -> usize {
        self.0.len()
    }

    fn wait_for(&mut self, _n_bytes: usize) -> Result<&[u8], KernelError> {
        Ok(&self.0)
    }
}
