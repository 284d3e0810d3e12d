//! What a device with memory of its own has used: the most of its memory, and what went over the bus.

use std::iter::Sum;
use std::ops::Add;

/// Bytes, of one device or of several together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceUse {
    /// The most that was asked for and not given back.
    pub used_high: u64,
    /// The most that was taken from the device, by a memory pool where there is one.
    pub reserved_high: u64,
    /// Copied from the host to the device.
    pub to_device: u64,
    /// Copied from the device to the host.
    pub to_host: u64,
}

impl Add for DeviceUse {
    type Output = DeviceUse;

    /// Of two devices. Their peaks need not have been at the same time, so that the sum is the most they can have held.
    fn add(self, other: DeviceUse) -> DeviceUse {
        DeviceUse {
            used_high: self.used_high + other.used_high,
            reserved_high: self.reserved_high + other.reserved_high,
            to_device: self.to_device + other.to_device,
            to_host: self.to_host + other.to_host,
        }
    }
}

impl Sum for DeviceUse {
    fn sum<I: Iterator<Item = DeviceUse>>(devices: I) -> DeviceUse {
        devices.fold(DeviceUse::default(), Add::add)
    }
}
