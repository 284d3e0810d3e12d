//! How long the parts of opening a GPU took.

use std::iter::Sum;
use std::ops::Add;
use std::time::Duration;

/// Durations of the parts of opening one GPU, or of several added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceOpenTimes {
    /// Loading the driver's library, `cuInit`, and the properties of the device. Nearly all of it belongs to the first
    /// call of a process, which may be [`probe`](super::probe) instead.
    pub driver: Duration,
    /// The primary context, its streams and the memory pool.
    pub context: Duration,
    /// The machine code of all kernels: found or compiled, and loaded.
    pub modules: Duration,
}

impl Add for DeviceOpenTimes {
    type Output = DeviceOpenTimes;

    fn add(self, other: DeviceOpenTimes) -> DeviceOpenTimes {
        DeviceOpenTimes {
            driver: self.driver + other.driver,
            context: self.context + other.context,
            modules: self.modules + other.modules,
        }
    }
}

impl Sum for DeviceOpenTimes {
    fn sum<I: Iterator<Item = DeviceOpenTimes>>(devices: I) -> DeviceOpenTimes {
        devices.fold(DeviceOpenTimes::default(), Add::add)
    }
}
