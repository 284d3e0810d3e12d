//! Memory and transfer counters of a device that has memory of its own.

use std::iter::Sum;
use std::ops::Add;

/// Peak memory and transferred bytes of one device, or of several added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceUsage {
    /// Peak of the allocated bytes.
    pub peak_used: u64,
    /// Peak of the bytes taken from the device: those of the memory pool where there is one.
    pub peak_reserved: u64,
    /// Bytes copied from the host to the device (H2D).
    pub to_device: u64,
    /// Bytes copied from the device to the host (D2H).
    pub to_host: u64,
}

impl Add for DeviceUsage {
    type Output = DeviceUsage;

    /// Adds the counters of two devices. Their peaks may have occurred at different times, so the sum of the peaks is
    /// an upper bound.
    fn add(self, other: DeviceUsage) -> DeviceUsage {
        DeviceUsage {
            peak_used: self.peak_used + other.peak_used,
            peak_reserved: self.peak_reserved + other.peak_reserved,
            to_device: self.to_device + other.to_device,
            to_host: self.to_host + other.to_host,
        }
    }
}

impl Sum for DeviceUsage {
    fn sum<I: Iterator<Item = DeviceUsage>>(devices: I) -> DeviceUsage {
        devices.fold(DeviceUsage::default(), Add::add)
    }
}
