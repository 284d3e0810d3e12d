//! A device that wraps another and records the names of launched kernels.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use actbench_kernels::KernelError;
use actbench_kernels::cuda::{Architecture, Argument, Device, Launch};

/// Forwards every call to `device`.
pub struct RecordingDevice<D> {
    device: Arc<D>,
    launched: Mutex<BTreeSet<String>>,
}

impl<D> RecordingDevice<D> {
    /// Wraps `device`, with no launches.
    pub fn new(device: Arc<D>) -> Self {
        RecordingDevice { device, launched: Mutex::new(BTreeSet::new()) }
    }

    /// The kernels launched since the last call.
    pub fn take(&self) -> BTreeSet<String> {
        std::mem::take(&mut *self.launched())
    }

    fn launched(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.launched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<D: Device> Device for RecordingDevice<D> {
    type Buffer = D::Buffer;

    fn describe(&self) -> String {
        self.device.describe()
    }

    fn architecture(&self) -> Option<Architecture> {
        self.device.architecture()
    }

    fn is_emulated(&self) -> bool {
        self.device.is_emulated()
    }

    fn alloc(&self, bytes: usize) -> Result<Self::Buffer, KernelError> {
        self.device.alloc(bytes)
    }

    fn write(&self, buffer: &mut Self::Buffer, bytes: &[u8]) -> Result<(), KernelError> {
        self.device.write(buffer, bytes)
    }

    fn read(&self, buffer: &Self::Buffer, out: &mut [u8]) -> Result<(), KernelError> {
        self.device.read(buffer, out)
    }

    fn poison(&self, buffer: &mut Self::Buffer, bytes: Range<usize>) -> Result<(), KernelError> {
        self.device.poison(buffer, bytes)
    }

    fn launch(&self, launch: &Launch, arguments: &mut [Argument<'_, Self::Buffer>]) -> Result<(), KernelError> {
        self.launched().insert(launch.kernel.to_string());
        self.device.launch(launch, arguments)
    }
}
