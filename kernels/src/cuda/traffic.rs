//! Bytes copied between host and device.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters since the last reset.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    to_device: AtomicU64,
    to_host: AtomicU64,
}

impl Traffic {
    /// Counts a copy of `bytes` to the device.
    pub(super) fn add_to_device(&self, bytes: usize) {
        self.to_device.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Counts a copy of `bytes` to the host.
    pub(super) fn add_to_host(&self, bytes: usize) {
        self.to_host.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Bytes copied to the device.
    pub(super) fn to_device(&self) -> u64 {
        self.to_device.load(Ordering::Relaxed)
    }

    /// Bytes copied to the host.
    pub(super) fn to_host(&self) -> u64 {
        self.to_host.load(Ordering::Relaxed)
    }

    /// Resets both counters.
    pub(super) fn reset(&self) {
        self.to_device.store(0, Ordering::Relaxed);
        self.to_host.store(0, Ordering::Relaxed);
    }
}
