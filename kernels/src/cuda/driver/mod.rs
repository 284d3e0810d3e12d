//! A GPU behind its driver, as a [`Device`]: what the emulator of the tests stands for.
//!
//! Nothing of CUDA is needed to build this. The driver's library is looked for when a device is opened, through
//! `cudarc`; [`probe`] says what is there. Kernels go through one stream, in the order they were given; small copies to
//! the device and copies from it that can wait have streams of their own, ordered with the kernels by events.
//!
//! So far this has run against the stand-in driver of the tests alone (`kernels/tests/stand_in/`), which executes the
//! kernels on the CPU and checks how the driver is used. It has never run on a GPU.

use std::ops::Range;
use std::sync::Arc;

use cudarc::driver::result;

use super::cubins::{CubinFolders, Nvrtc, Origin};
use super::{Architecture, Argument, CudaBackend, Device, KernelSet, Launch};
use crate::error::KernelError;
use crate::pending::{Arrived, PendingCopy};

mod clock;
mod incoming;
mod memory;
mod modules;
mod outgoing;
mod probe;
mod session;
mod tensor_map;
mod timing;
mod transfer;
mod words;

pub use super::MemoryUse;
pub use memory::DriverBuffer;
pub use probe::{Absence, DeviceFacts, probe};
pub use timing::LaunchTime;

/// How a device is opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DriverOptions {
    /// Where machine code is looked for and kept.
    pub cubins: CubinFolders,
    /// For checks of the kernels: new memory and what a launch will overwrite is filled with NaN, bytes around each
    /// buffer show a kernel that writes beyond it, and each launch is waited for, so that an error is the launch's that
    /// made it. Slow.
    pub checked: bool,
}

/// A GPU.
pub struct DriverDevice {
    session: Arc<session::Session>,
    memory: Arc<memory::Memory>,
    staging: transfer::Staging,
    incoming: incoming::Incoming,
    stock: Arc<outgoing::Stock>,
    kernels: modules::Kernels,
    timer: timing::Timer,
    checked: bool,
}

impl DriverDevice {
    /// Opens device `ordinal` and loads every kernel for it, compiling what is found nowhere.
    ///
    /// # Errors
    /// No driver or no such device; no machine code for it and no compiler; a failure of the driver.
    pub fn open(ordinal: usize, options: &DriverOptions) -> Result<Self, KernelError> {
        let session = session::Session::open(ordinal)?;
        let kernels = modules::Kernels::load(&session, &options.cubins, &Nvrtc)?;
        let memory = memory::Memory::new(session.clone(), options.checked)?;
        let (staging, incoming, stock, timer) = Default::default();
        Ok(DriverDevice { session, memory, staging, incoming, stock, kernels, timer, checked: options.checked })
    }

    /// What the device is.
    pub fn facts(&self) -> &DeviceFacts {
        &self.session.facts
    }

    /// Where the machine code of each source came from.
    pub fn origins(&self) -> &[(&'static str, Origin)] {
        self.kernels.origins()
    }

    /// What the context was lost to, if a kernel broke it. Nothing works after that.
    pub fn lost(&self) -> Option<&str> {
        self.session.lost()
    }

    /// Times each launch from now on, with a cold cache; see [`DriverDevice::stop_timing`].
    ///
    /// # Errors
    /// No memory for what clears the cache.
    pub fn start_timing(&self) -> Result<(), KernelError> {
        self.timer.start(self.memory.alloc(timing::fill_bytes(self.session.facts.l2_bytes))?);
        Ok(())
    }

    /// Times no more.
    ///
    /// # Returns
    /// The launches since [`DriverDevice::start_timing`], in order.
    ///
    /// # Errors
    /// A failure of the driver.
    pub fn stop_timing(&self) -> Result<Vec<LaunchTime>, KernelError> {
        self.timer.stop(&self.session)
    }

    /// Milliseconds of a copy of `bytes` bytes from one place of the device's memory to another, the median of
    /// `repeats`: what a kernel that only moves data is measured by.
    ///
    /// # Errors
    /// No memory for both, or a failure of the driver.
    pub fn copy_milliseconds(&self, bytes: usize, repeats: usize) -> Result<f64, KernelError> {
        let (from, to) = (self.memory.alloc(bytes)?, self.memory.alloc(bytes)?);
        timing::copy_milliseconds(&self.session, &from, &to, repeats)
    }

    /// A failed launch, or one that is told of.
    fn told(launch: &Launch, arguments: &[Argument<'_, DriverBuffer>]) -> String {
        let [x, y, z] = launch.grid;
        let arguments: Vec<String> = arguments
            .iter()
            .map(|argument| match argument {
                Argument::Read(buffer) => format!("{} bytes to read", buffer.len()),
                Argument::Write(buffer) => format!("{} bytes to write", buffer.len()),
                Argument::Tiles(tiles) => {
                    format!(
                        "{} x {} by tiles of {} x {}",
                        tiles.rows, tiles.columns, tiles.tile_rows, tiles.tile_columns
                    )
                }
                Argument::Null => "nothing".to_owned(),
                Argument::U32(value) => value.to_string(),
                Argument::U64(value) => value.to_string(),
                Argument::F32(value) => value.to_string(),
            })
            .collect();
        format!(
            "{} on {x} x {y} x {z} blocks of {} threads with {} bytes of shared memory, given {}",
            launch.kernel,
            launch.threads,
            launch.shared_bytes,
            arguments.join(", ")
        )
    }

    /// An error unless `bytes` fit `buffer`.
    fn fits(&self, op: &'static str, bytes: usize, buffer: &DriverBuffer) -> Result<(), KernelError> {
        if bytes <= buffer.len() {
            return Ok(());
        }
        Err(self.session.error(op, format!("{bytes} bytes of a buffer of {}", buffer.len())))
    }
}

impl CudaBackend<DriverDevice> {
    /// The backend of `kernels` on GPU `ordinal`.
    ///
    /// # Errors
    /// Those of [`DriverDevice::open`].
    pub fn open(ordinal: usize, options: &DriverOptions, kernels: KernelSet) -> Result<Self, KernelError> {
        Ok(CudaBackend::new(DriverDevice::open(ordinal, options)?, kernels))
    }
}

/// A parameter as the driver reads it: its first bytes count. The largest is a tensor map.
#[derive(Clone, Copy)]
#[repr(C, align(128))]
struct Slot([u8; tensor_map::BYTES]);

impl From<u64> for Slot {
    fn from(value: u64) -> Slot {
        let mut slot = [0; tensor_map::BYTES];
        slot[..8].copy_from_slice(&value.to_le_bytes());
        Slot(slot)
    }
}

impl Device for DriverDevice {
    type Buffer = DriverBuffer;

    fn describe(&self) -> String {
        format!("{}, {}", self.session.device(), self.session.facts)
    }

    fn architecture(&self) -> Option<Architecture> {
        Some(self.session.facts.architecture)
    }

    fn alloc(&self, bytes: usize) -> Result<DriverBuffer, KernelError> {
        self.memory.alloc(bytes)
    }

    fn write(&self, buffer: &mut DriverBuffer, bytes: &[u8]) -> Result<(), KernelError> {
        self.fits("write", bytes.len(), buffer)?;
        self.session.enter("write")?;
        self.staging.write(&self.session, buffer, bytes)
    }

    fn read(&self, buffer: &DriverBuffer, out: &mut [u8]) -> Result<(), KernelError> {
        self.fits("read", out.len(), buffer)?;
        self.session.enter("read")?;
        self.staging.read(&self.session, buffer, out)
    }

    /// Does nothing unless the device is a checked one.
    fn poison(&self, buffer: &mut DriverBuffer, bytes: Range<usize>) -> Result<(), KernelError> {
        self.fits("poison", bytes.end, buffer)?;
        if !self.checked || bytes.is_empty() {
            return Ok(());
        }
        self.session.enter("poison")?;
        self.memory.fill("poison", buffer.start() + bytes.start as u64, bytes.len())
    }

    fn launch(&self, launch: &Launch, arguments: &mut [Argument<'_, DriverBuffer>]) -> Result<(), KernelError> {
        const OP: &str = "launch";
        self.session.enter(OP)?;
        let kernel = self.kernels.kernel(&self.session, &launch.kernel, launch.shared_bytes)?;
        let mut slots: Vec<Slot> = Vec::with_capacity(arguments.len());
        let mut sizes = Vec::with_capacity(arguments.len());
        for argument in arguments.iter() {
            let (slot, size) = match argument {
                Argument::Read(buffer) => (buffer.start().into(), 8),
                Argument::Write(buffer) => (buffer.start().into(), 8),
                Argument::Tiles(tiles) => (Slot(tensor_map::encode(&self.session, tiles)?), tensor_map::BYTES),
                Argument::Null => (0.into(), 8),
                Argument::U32(value) => (u64::from(*value).into(), 4),
                Argument::U64(value) => ((*value).into(), 8),
                Argument::F32(value) => (u64::from(value.to_bits()).into(), 4),
            };
            slots.push(slot);
            sizes.push(size);
        }
        if sizes != kernel.parameters {
            let message = format!(
                "{}: its parameters are of {:?} bytes, and it was given {sizes:?}",
                launch.kernel, kernel.parameters
            );
            return Err(self.session.error(OP, message));
        }
        let mut pointers: Vec<_> = slots.iter_mut().map(|slot| slot.0.as_mut_ptr().cast()).collect();
        let ([x, y, z], stream) = (launch.grid, self.session.stream.cu_stream());
        let launched = self.timer.around(&self.session, &launch.kernel, || {
            // SAFETY: number and sizes of the arguments are those of the kernel's parameters, as compared above. The driver
            // copies them before it returns. Memory behind them is of this stream, so that it is given back after the
            // kernel has ended. That a kernel keeps to the bounds that it is given is what the checks of kernels are for.
            unsafe {
                result::launch_kernel(
                    kernel.function.cu_function(),
                    (x, y, z),
                    (launch.threads, 1, 1),
                    launch.shared_bytes,
                    stream,
                    &mut pointers,
                )
            }
        });
        self.session.check(OP, || Self::told(launch, arguments), launched)?;
        self.session.launched(Self::told(launch, arguments));
        if self.checked {
            self.session.synchronize(OP, || Self::told(launch, arguments))?;
            for (index, argument) in arguments.iter().enumerate() {
                let untouched = match argument {
                    Argument::Read(buffer) => self.memory.untouched_around(buffer)?,
                    Argument::Write(buffer) => self.memory.untouched_around(buffer)?,
                    Argument::Tiles(tiles) => self.memory.untouched_around(tiles.buffer)?,
                    _ => true,
                };
                if !untouched {
                    let message = format!("{} wrote outside its argument {index}", Self::told(launch, arguments));
                    return Err(self.session.error(OP, message));
                }
            }
        }
        Ok(())
    }

    fn upload(&self, bytes: &[u8]) -> Result<DriverBuffer, KernelError> {
        if let Some(buffer) = self.incoming.upload(&self.memory, bytes)? {
            return Ok(buffer);
        }
        let mut buffer = self.memory.alloc(bytes.len())?;
        self.write(&mut buffer, bytes)?;
        Ok(buffer)
    }

    fn copies_overlap(&self) -> bool {
        true
    }

    fn read_later(&self, buffer: DriverBuffer, bytes: usize) -> Result<Box<dyn PendingCopy>, KernelError> {
        self.fits("read", bytes, &buffer)?;
        self.session.enter("read")?;
        match self.stock.take(&self.session, bytes) {
            Ok(piece) => Ok(Box::new(outgoing::Outgoing::start(&self.session, &self.stock, buffer, piece, bytes)?)),
            Err(_) => {
                // No pinned memory is to be had: slower, and right all the same.
                let mut out = vec![0; bytes];
                self.staging.read(&self.session, &buffer, &mut out)?;
                Ok(Box::new(Arrived(out)))
            }
        }
    }

    fn memory_use(&self) -> Result<Option<MemoryUse>, KernelError> {
        self.memory.in_use().map(Some)
    }

    fn reset_memory_high(&self) -> Result<(), KernelError> {
        self.session.enter("memory")?;
        self.session.synchronize_all("memory", || "waiting for what holds memory".to_owned())?;
        self.memory.trim()?;
        self.memory.reset_high()
    }

    fn free_memory(&self) -> Result<Option<u64>, KernelError> {
        self.memory.free().map(Some)
    }
}
