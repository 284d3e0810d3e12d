//! What the CUDA backend needs of a device: memory, copies and launches by name.
//!
//! The emulator of the tests implements it, and so does a GPU's driver, with the same names and the same arguments.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use super::{Architecture, Tiles};
use crate::error::KernelError;
use crate::pending::{Arrived, PendingCopy};

/// Bytes of a device's memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUse {
    /// Asked for and not given back.
    pub used: u64,
    /// The most of it so far.
    pub used_high: u64,
    /// Taken from the device, by the pool where there is one.
    pub reserved: u64,
    /// The most of it so far.
    pub reserved_high: u64,
}

/// The shape of a launch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// The kernel's name, such as `rms_norm_bf16`. Those of launches that come by the thousand are made at compile time.
    pub kernel: Cow<'static, str>,
    /// Blocks in x, y and z. A grid with a zero is not launched.
    pub grid: [u32; 3],
    /// Threads of a block in x.
    pub threads: u32,
    /// Bytes of dynamic shared memory of a block. Above 48 KiB a driver has to be asked for it before the launch.
    pub shared_bytes: u32,
}

/// One parameter of a kernel.
pub enum Argument<'a, B> {
    /// Memory that the kernel reads.
    Read(&'a B),
    /// Memory that the kernel writes, and may read.
    Write(&'a mut B),
    /// A matrix that the kernel copies tile by tile: a tensor map, for kernels of `sm_90a` alone.
    Tiles(Tiles<'a, B>),
    /// A pointer to nothing, where a parameter is optional.
    Null,
    /// A 32-bit count.
    U32(u32),
    /// A 64-bit count.
    U64(u64),
    /// A number.
    F32(f32),
}

/// A device that runs the kernels.
pub trait Device: Send + Sync + 'static {
    /// Memory of the device, aligned to at least 16 bytes.
    type Buffer: Send + Sync;

    /// What the device is, for people.
    fn describe(&self) -> String;

    /// What machine code it runs, which decides on the kernels. An emulator names what it stands for.
    fn architecture(&self) -> Option<Architecture> {
        None
    }

    /// Whether it only stands for a GPU: its times say nothing, and what fills a GPU would take it minutes.
    fn is_emulated(&self) -> bool {
        false
    }

    /// Memory of `bytes` bytes, which may be none. Its contents are unspecified.
    ///
    /// # Errors
    /// When the memory cannot be had.
    fn alloc(&self, bytes: usize) -> Result<Self::Buffer, KernelError>;

    /// Copies `bytes` to the start of `buffer`.
    ///
    /// # Errors
    /// More bytes than the buffer has, or a failure of the device.
    fn write(&self, buffer: &mut Self::Buffer, bytes: &[u8]) -> Result<(), KernelError>;

    /// Copies the start of `buffer` to `out`, after everything launched before.
    ///
    /// # Errors
    /// More bytes than the buffer has, or a failure of the device, also of an earlier launch.
    fn read(&self, buffer: &Self::Buffer, out: &mut [u8]) -> Result<(), KernelError>;

    /// Fills `bytes` of `buffer`, which the next launch will overwrite, with NaN. For tests; a device may do nothing.
    ///
    /// # Errors
    /// A range beyond the buffer.
    fn poison(&self, buffer: &mut Self::Buffer, bytes: Range<usize>) -> Result<(), KernelError>;

    /// Runs a kernel. Launches take effect in the order they were made.
    ///
    /// # Errors
    /// No such kernel, arguments that are not its parameters, or a failure of the device.
    fn launch(&self, launch: &Launch, arguments: &mut [Argument<'_, Self::Buffer>]) -> Result<(), KernelError>;

    /// Runs `work` once. A device may hold back what this thread launches in it and take all of it together when `work` is
    /// over, as a graph: that costs the host less than one launch after the other. What comes of it is the same.
    ///
    /// `rows` says how much there is to a launch: where a kernel takes long, nothing is gained. `place` tells groups with
    /// other launches apart, as a device keeps what it made of a group for the next one of that place.
    ///
    /// # Errors
    /// Those of `work`, and of a launch that was held back.
    fn grouped(
        &self,
        _place: usize,
        _rows: usize,
        work: &mut dyn FnMut() -> Result<(), KernelError>,
    ) -> Result<(), KernelError> {
        work()
    }

    /// New memory with `bytes` in it, for what is launched from now on. `bytes` may change as soon as this returns, and
    /// where the device can copy beside what it computes nobody waits.
    ///
    /// # Errors
    /// No memory, or a failure of the device.
    fn upload(&self, bytes: &[u8]) -> Result<Self::Buffer, KernelError> {
        let mut buffer = self.alloc(bytes.len())?;
        self.write(&mut buffer, bytes)?;
        Ok(buffer)
    }

    /// Whether [`Device::read_later`] returns before the copy is over.
    fn copies_overlap(&self) -> bool {
        false
    }

    /// Copies the first `bytes` bytes of `buffer`, as everything launched before leaves them, while more is launched.
    ///
    /// # Errors
    /// More bytes than the buffer has, or a failure of the device.
    fn read_later(&self, buffer: Self::Buffer, bytes: usize) -> Result<Box<dyn PendingCopy>, KernelError> {
        let mut out = vec![0; bytes];
        self.read(&buffer, &mut out)?;
        Ok(Box::new(Arrived(out)))
    }

    /// How much of the device's memory is in use, and was at most; none where nobody counts it.
    ///
    /// # Errors
    /// A failure of the device.
    fn memory_use(&self) -> Result<Option<MemoryUse>, KernelError> {
        Ok(None)
    }

    /// Gives back what the pool holds for nobody, and starts the high-water marks anew.
    ///
    /// # Errors
    /// A failure of the device.
    fn reset_memory_high(&self) -> Result<(), KernelError> {
        Ok(())
    }

    /// Bytes that can still be allocated; none where nobody counts them.
    ///
    /// # Errors
    /// A failure of the device.
    fn free_memory(&self) -> Result<Option<u64>, KernelError> {
        Ok(None)
    }
}

/// A device that several backends share, such as one of each set of kernels.
impl<D: Device> Device for Arc<D> {
    type Buffer = D::Buffer;

    fn describe(&self) -> String {
        D::describe(self)
    }

    fn architecture(&self) -> Option<Architecture> {
        D::architecture(self)
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

    fn read(&self, buffer: &Self::Buffer, out: &mut [u8]) -> Result<(), KernelError> {
        D::read(self, buffer, out)
    }

    fn poison(&self, buffer: &mut Self::Buffer, bytes: Range<usize>) -> Result<(), KernelError> {
        D::poison(self, buffer, bytes)
    }

    fn launch(&self, launch: &Launch, arguments: &mut [Argument<'_, Self::Buffer>]) -> Result<(), KernelError> {
        D::launch(self, launch, arguments)
    }

    fn grouped(
        &self,
        place: usize,
        rows: usize,
        work: &mut dyn FnMut() -> Result<(), KernelError>,
    ) -> Result<(), KernelError> {
        D::grouped(self, place, rows, work)
    }

    fn upload(&self, bytes: &[u8]) -> Result<Self::Buffer, KernelError> {
        D::upload(self, bytes)
    }

    fn copies_overlap(&self) -> bool {
        D::copies_overlap(self)
    }

    fn read_later(&self, buffer: Self::Buffer, bytes: usize) -> Result<Box<dyn PendingCopy>, KernelError> {
        D::read_later(self, buffer, bytes)
    }

    fn memory_use(&self) -> Result<Option<MemoryUse>, KernelError> {
        D::memory_use(self)
    }

    fn reset_memory_high(&self) -> Result<(), KernelError> {
        D::reset_memory_high(self)
    }

    fn free_memory(&self) -> Result<Option<u64>, KernelError> {
        D::free_memory(self)
    }
}
