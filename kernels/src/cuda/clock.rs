//! What a measurement needs of a device beside running kernels: marks in its order of work, and the time between two.

use std::sync::Arc;

use super::Device;
use crate::error::KernelError;

/// A device that can tell how long its own work took.
///
/// A GPU answers with events on its stream, the emulator with the clock of the CPU that it runs on: what is built on
/// this is tested without a GPU, and its figures there say nothing of one.
pub trait DeviceClock: Device {
    /// A moment in the device's order of work.
    type Mark: Send + Sync;

    /// The moment at which everything that was launched so far has ended. Returns before that.
    ///
    /// # Errors
    /// A failure of the device.
    fn mark(&self) -> Result<Self::Mark, KernelError>;

    /// Milliseconds from one mark to a later one. Waits for both.
    ///
    /// # Errors
    /// A failure of the device, also of what was launched before the marks.
    fn milliseconds(&self, from: &Self::Mark, to: &Self::Mark) -> Result<f64, KernelError>;

    /// Waits for everything that was launched.
    ///
    /// # Errors
    /// A failure of the device, also of an earlier launch.
    fn wait(&self) -> Result<(), KernelError>;

    /// Bytes of the cache that all of the device shares; 0 where there is none to speak of.
    fn cache_bytes(&self) -> usize;

    /// Overwrites `buffer`, in the order of launches. A buffer of twice [`DeviceClock::cache_bytes`] leaves nothing in
    /// the cache of what was used before.
    ///
    /// # Errors
    /// A failure of the device.
    fn overwrite(&self, buffer: &mut Self::Buffer) -> Result<(), KernelError>;

    /// Copies the start of one buffer over the start of another, as many bytes as both have, in the order of launches.
    ///
    /// # Errors
    /// A failure of the device.
    fn copy(&self, from: &Self::Buffer, to: &mut Self::Buffer) -> Result<(), KernelError>;
}

impl<D: DeviceClock> DeviceClock for Arc<D> {
    type Mark = D::Mark;

    fn mark(&self) -> Result<Self::Mark, KernelError> {
        D::mark(self)
    }

    fn milliseconds(&self, from: &Self::Mark, to: &Self::Mark) -> Result<f64, KernelError> {
        D::milliseconds(self, from, to)
    }

    fn wait(&self) -> Result<(), KernelError> {
        D::wait(self)
    }

    fn cache_bytes(&self) -> usize {
        D::cache_bytes(self)
    }

    fn overwrite(&self, buffer: &mut Self::Buffer) -> Result<(), KernelError> {
        D::overwrite(self, buffer)
    }

    fn copy(&self, from: &Self::Buffer, to: &mut Self::Buffer) -> Result<(), KernelError> {
        D::copy(self, from, to)
    }
}
