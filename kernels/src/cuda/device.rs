//! The device interface of the CUDA backend: memory, copies, and kernel launches by name.
//!
//! Implemented by a GPU's driver and by the emulator, with the same kernel names and arguments.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use super::{Architecture, Tiles};
use crate::error::KernelError;
use crate::host::HostTensor;
use crate::pending::{CompletedCopy, PendingCopy};

/// Allocated memory of a device, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUsage {
    /// Bytes of all live buffers.
    pub used: u64,
    /// Peak of `used` since the last reset.
    pub peak_used: u64,
    /// Bytes taken from the device: those of the memory pool where there is one.
    pub reserved: u64,
    /// Peak of `reserved` since the last reset.
    pub peak_reserved: u64,
}

/// A kernel and its launch configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// The kernel's name, such as `rms_norm_bf16`. Borrowed for the frequent kernels, to avoid an allocation a launch.
    pub kernel: Cow<'static, str>,
    /// Blocks in x, y and z. A launch with a zero dimension is skipped.
    pub grid: [u32; 3],
    /// Threads of a block, in x.
    pub threads: u32,
    /// Dynamic shared memory of a block, in bytes. More than 48 KiB needs an opt-in of the kernel, which the device
    /// sets.
    pub shared_bytes: u32,
}

/// One argument of a kernel launch.
pub enum Argument<'a, B> {
    /// Memory that the kernel reads.
    Read(&'a B),
    /// Memory that the kernel writes, and may read.
    Write(&'a mut B),
    /// A matrix that the kernel reads or writes by tiles (TMA): a tensor map, for kernels of `sm_90a` alone.
    Tiles(Tiles<'a, B>),
    /// A null pointer, for an optional parameter.
    Null,
    /// A 32-bit integer.
    U32(u32),
    /// A 64-bit integer.
    U64(u64),
    /// A single-precision number.
    F32(f32),
}

/// A device that runs the kernels.
///
/// No method has a default body: several types wrap a device, and a method that one of them does not forward must not
/// compile. [`upload_with_write`] and [`read_blocking`] are the bodies for devices without asynchronous copies.
pub trait Device: Send + Sync + 'static {
    /// Memory of the device, aligned to at least 16 bytes.
    type Buffer: Send + Sync;

    /// A description of the device for reports.
    fn describe(&self) -> String;

    /// The compute capability, which decides on the kernels: of an emulator, the one that it emulates.
    fn architecture(&self) -> Option<Architecture>;

    /// The number of multiprocessors, which a persistent kernel has blocks for.
    fn multiprocessors(&self) -> usize;

    /// Whether the device emulates a GPU: its times do not represent one, and workloads sized for a GPU take minutes.
    fn is_emulated(&self) -> bool;

    /// New memory of `bytes` bytes, possibly 0, with unspecified contents.
    ///
    /// # Errors
    /// [`KernelError::OutOfMemory`], or a failure of the device.
    fn alloc(&self, bytes: usize) -> Result<Self::Buffer, KernelError>;

    /// Copies `bytes` to the start of `buffer`, in the order of launches.
    ///
    /// # Errors
    /// More bytes than the buffer has, or a failure of the device.
    fn write(&self, buffer: &mut Self::Buffer, bytes: &[u8]) -> Result<(), KernelError>;

    /// [`Device::write`] of the bytes `bytes` of `tensor`. Those of a file are read from it, by several threads.
    ///
    /// # Errors
    /// As for [`Device::write`]; bytes that the tensor does not have, or a file that cannot be read.
    fn write_tensor(
        &self,
        buffer: &mut Self::Buffer,
        tensor: &HostTensor,
        bytes: Range<usize>,
    ) -> Result<(), KernelError>;

    /// Copies the start of `buffer` to `out`, after all earlier launches.
    ///
    /// # Errors
    /// More bytes than the buffer has, or a failure of the device, including one of an earlier launch.
    fn read(&self, buffer: &Self::Buffer, out: &mut [u8]) -> Result<(), KernelError>;

    /// Fills the range `bytes` of `buffer`, which the next launch will overwrite, with NaN. For tests: a device may
    /// ignore it.
    ///
    /// # Errors
    /// A range beyond the buffer.
    fn poison(&self, buffer: &mut Self::Buffer, bytes: Range<usize>) -> Result<(), KernelError>;

    /// Launches a kernel. Launches take effect in the order of the calls.
    ///
    /// # Errors
    /// An unknown kernel, arguments that do not match its parameters, or a failure of the device.
    fn launch(&self, launch: &Launch, arguments: &mut [Argument<'_, Self::Buffer>]) -> Result<(), KernelError>;

    /// Runs `work` once. A device may defer the launches of this thread until `work` returns and then launch them as
    /// one graph, which costs the host less time than single launches. Results are the same.
    ///
    /// `rows` estimates the duration of each launch: long kernels gain nothing from a graph. The device caches the
    /// graph in `graph_slot`: callers use one slot for each sequence of launches.
    ///
    /// # Errors
    /// Those of `work`, and of a deferred launch.
    fn launch_grouped(
        &self,
        graph_slot: usize,
        rows: usize,
        work: &mut dyn FnMut() -> Result<(), KernelError>,
    ) -> Result<(), KernelError>;

    /// New memory that contains `bytes`, for later launches. The caller may change `bytes` when this returns. The copy
    /// need not wait for earlier launches.
    ///
    /// # Errors
    /// [`KernelError::OutOfMemory`], or a failure of the device.
    fn upload(&self, bytes: &[u8]) -> Result<Self::Buffer, KernelError>;

    /// Whether [`Device::read_async`] returns before the copy has completed.
    fn downloads_are_async(&self) -> bool;

    /// Copies the first `bytes` bytes of `buffer`, after all earlier launches; later launches may run during the copy.
    ///
    /// # Errors
    /// More bytes than the buffer has, or a failure of the device.
    fn read_async(&self, buffer: Self::Buffer, bytes: usize) -> Result<Box<dyn PendingCopy>, KernelError>;

    /// The device memory in use and its peak; none if the device does not count it.
    ///
    /// # Errors
    /// A failure of the device.
    fn memory_usage(&self) -> Result<Option<MemoryUsage>, KernelError>;

    /// Releases unused memory of the pool and resets both peaks to the current values.
    ///
    /// # Errors
    /// A failure of the device.
    fn reset_peak_memory(&self) -> Result<(), KernelError>;

    /// Bytes that can still be allocated; none if the device does not know.
    ///
    /// # Errors
    /// A failure of the device.
    fn free_memory(&self) -> Result<Option<u64>, KernelError>;
}

/// [`Device::upload`] in the order of launches, for devices without asynchronous uploads.
///
/// # Errors
/// Those of [`Device::alloc`] and [`Device::write`].
pub fn upload_with_write<D: Device>(device: &D, bytes: &[u8]) -> Result<D::Buffer, KernelError> {
    let mut buffer = device.alloc(bytes.len())?;
    device.write(&mut buffer, bytes)?;
    Ok(buffer)
}

/// [`Device::read_async`] that waits for the copy, for devices without asynchronous downloads.
///
/// # Errors
/// Those of [`Device::read`].
pub fn read_blocking<D: Device>(
    device: &D,
    buffer: &D::Buffer,
    bytes: usize,
) -> Result<Box<dyn PendingCopy>, KernelError> {
    let mut out = vec![0; bytes];
    device.read(buffer, &mut out)?;
    Ok(Box::new(CompletedCopy(out)))
}

/// A device that several backends share, such as one for each set of kernels.
impl<D: Device> Device for Arc<D> {
    type Buffer = D::Buffer;

    fn describe(&self) -> String {
        D::describe(self)
    }

    fn architecture(&self) -> Option<Architecture> {
        D::architecture(self)
    }

    fn multiprocessors(&self) -> usize {
        D::multiprocessors(self)
    }

    fn is_emulated(&self) -> bool {
        D::is_emulated(self)
    }

    fn alloc(&self, bytes: usize) -> Result<Self::Buffer, KernelError> {
        D::alloc(self, bytes)
    }

    fn write(&self, buffer: &mut Self::Buffer, bytes: &[u8]) -> Result<(), KernelError> {
        D::write(self, buffer, bytes)
    }

    fn write_tensor(
        &self,
        buffer: &mut Self::Buffer,
        tensor: &HostTensor,
        bytes: Range<usize>,
    ) -> Result<(), KernelError> {
        D::write_tensor(self, buffer, tensor, bytes)
    }

    fn read(&self, buffer: &Self::Buffer, out: &mut [u8]) -> Result<(), KernelError> {
        D::read(self, buffer, out)
    }

    fn poison(&self, buffer: &mut Self::Buffer, bytes: Range<usize>) -> Result<(), KernelError> {
        D::poison(self, buffer, bytes)
    }

    fn launch(&self, launch: &Launch, arguments: &mut [Argument<'_, Self::Buffer>]) -> Result<(), KernelError> {
        D::launch(self, launch, arguments)
    }

    fn launch_grouped(
        &self,
        graph_slot: usize,
        rows: usize,
        work: &mut dyn FnMut() -> Result<(), KernelError>,
    ) -> Result<(), KernelError> {
        D::launch_grouped(self, graph_slot, rows, work)
    }

    fn upload(&self, bytes: &[u8]) -> Result<Self::Buffer, KernelError> {
        D::upload(self, bytes)
    }

    fn downloads_are_async(&self) -> bool {
        D::downloads_are_async(self)
    }

    fn read_async(&self, buffer: Self::Buffer, bytes: usize) -> Result<Box<dyn PendingCopy>, KernelError> {
        D::read_async(self, buffer, bytes)
    }

    fn memory_usage(&self) -> Result<Option<MemoryUsage>, KernelError> {
        D::memory_usage(self)
    }

    fn reset_peak_memory(&self) -> Result<(), KernelError> {
        D::reset_peak_memory(self)
    }

    fn free_memory(&self) -> Result<Option<u64>, KernelError> {
        D::free_memory(self)
    }
}
