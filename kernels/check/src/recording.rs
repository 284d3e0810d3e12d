//! A device that wraps another and records the names of launched kernels.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use actbench_kernels::cuda::{Architecture, Argument, Device, Launch, MemoryUsage};
use actbench_kernels::{HostTensor, KernelError, PendingCopy};

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

    fn multiprocessors(&self) -> usize {
        self.device.multiprocessors()
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

    fn write_tensor(
        &self,
        buffer: &mut Self::Buffer,
        tensor: &HostTensor,
        bytes: Range<usize>,
    ) -> Result<(), KernelError> {
        self.device.write_tensor(buffer, tensor, bytes)
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

    fn launch_grouped(
        &self,
        graph_slot: usize,
        rows: usize,
        work: &mut dyn FnMut() -> Result<(), KernelError>,
    ) -> Result<(), KernelError> {
        self.device.launch_grouped(graph_slot, rows, work)
    }

    fn upload(&self, bytes: &[u8]) -> Result<Self::Buffer, KernelError> {
        self.device.upload(bytes)
    }

    fn downloads_are_async(&self) -> bool {
        self.device.downloads_are_async()
    }

    fn read_async(&self, buffer: Self::Buffer, bytes: usize) -> Result<Box<dyn PendingCopy>, KernelError> {
        self.device.read_async(buffer, bytes)
    }

    fn memory_usage(&self) -> Result<Option<MemoryUsage>, KernelError> {
        self.device.memory_usage()
    }

    fn reset_peak_memory(&self) -> Result<(), KernelError> {
        self.device.reset_peak_memory()
    }

    fn free_memory(&self) -> Result<Option<u64>, KernelError> {
        self.device.free_memory()
    }
}
