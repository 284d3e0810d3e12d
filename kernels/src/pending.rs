//! Copies to the host that run while the device continues.

use crate::error::KernelError;

/// A copy of rows to host memory that may still be in flight. Dropping it waits for the copy.
pub trait PendingCopy: Send {
    /// Waits for the copy and returns its bytes: rows in row-major order, native-endian, in the tensor's dtype. Can be
    /// called again.
    ///
    /// # Errors
    /// A failure of the device, including one of its earlier operations.
    fn wait(&mut self) -> Result<&[u8], KernelError>;
}

/// A copy that completed before it was returned: the [`PendingCopy`] of devices without asynchronous copies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CompletedCopy(pub Vec<u8>);

impl PendingCopy for CompletedCopy {
    fn wait(&mut self) -> Result<&[u8], KernelError> {
        Ok(&self.0)
    }
}
