//! Copies to the host that are under way while the device goes on.

use crate::error::KernelError;

/// Rows on their way to the host.
pub trait PendingCopy: Send {
    /// Waits until they are there. May be asked again.
    ///
    /// # Errors
    /// A failure of the device, also of what it did before the copy.
    fn wait(&mut self) -> Result<&[u8], KernelError>;
}

/// A copy that is over: what devices without copies of their own give.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arrived(pub Vec<u8>);

impl PendingCopy for Arrived {
    fn wait(&mut self) -> Result<&[u8], KernelError> {
        Ok(&self.0)
    }
}
