//! The measurement interface of a device: events in its order of work, and the time between two of them.

use std::sync::Arc;

use super::Device;
use crate::error::KernelError;
use crate::profiled::DeviceTrack;

/// A device that measures its own work.
///
/// A GPU uses events on its streams. The emulator uses the host's clock, so that the users of this interface can be
/// tested without a GPU; its times do not represent one.
pub trait DeviceClock: Device {
    /// A moment in the device's order of work.
    type Event: Send + Sync;

    /// Records an event behind all work of `track` that was issued so far. Returns before the event occurs.
    ///
    /// # Errors
    /// A failure of the device.
    fn record_event_on(&self, track: DeviceTrack) -> Result<Self::Event, KernelError>;

    /// [`DeviceClock::record_event_on`] the track of the kernels.
    ///
    /// # Errors
    /// A failure of the device.
    fn record_event(&self) -> Result<Self::Event, KernelError>;

    /// Whether [`Device::upload`] copies `bytes` bytes on the upload track instead of in the order of the kernels.
    fn uploads_async(&self, bytes: usize) -> bool;

    /// Milliseconds between two events. Waits for both.
    ///
    /// # Errors
    /// A failure of the device, including one of a launch before the events.
    fn elapsed_ms(&self, start: &Self::Event, end: &Self::Event) -> Result<f64, KernelError>;

    /// Waits for all issued work.
    ///
    /// # Errors
    /// A failure of the device, including one of an earlier launch.
    fn wait(&self) -> Result<(), KernelError>;

    /// Bytes of the last-level cache that all multiprocessors share; 0 if there is none.
    fn cache_bytes(&self) -> usize;

    /// Overwrites `buffer`, in the order of launches. Overwriting twice [`DeviceClock::cache_bytes`] evicts everything
    /// else from the cache.
    ///
    /// # Errors
    /// A failure of the device.
    fn overwrite(&self, buffer: &mut Self::Buffer) -> Result<(), KernelError>;

    /// Copies the start of one buffer to the start of another, as many bytes as both have, in the order of launches.
    ///
    /// # Errors
    /// A failure of the device.
    fn copy(&self, from: &Self::Buffer, to: &mut Self::Buffer) -> Result<(), KernelError>;
}

impl<D: DeviceClock> DeviceClock for Arc<D> {
    type Event = D::Event;

    fn record_event_on(&self, track: DeviceTrack) -> Result<Self::Event, KernelError> {
        D::record_event_on(self, track)
    }

    fn record_event(&self) -> Result<Self::Event, KernelError> {
        D::record_event(self)
    }

    fn uploads_async(&self, bytes: usize) -> bool {
        D::uploads_async(self, bytes)
    }

    fn elapsed_ms(&self, start: &Self::Event, end: &Self::Event) -> Result<f64, KernelError> {
        D::elapsed_ms(self, start, end)
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
