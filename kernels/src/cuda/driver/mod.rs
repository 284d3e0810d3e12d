//! A GPU behind its driver, as a [`Device`]: what the emulator of the tests stands for.
//!
//! Nothing of CUDA is needed to build this. The driver's library is looked for when a device is opened, through
//! `cudarc`; [`probe`] says what is there. Kernels go through one stream, in the order they were given; small copies to
//! the device and copies from it that can wait have streams of their own, ordered with the kernels by events.
//!
//! The tests run it against a fake driver (`kernels/tests/fake_driver/`), which executes the kernels on the CPU
//! and checks how the driver is used; what has run on a GPU is in `docs/measurements/gpu.md`.

use std::ops::Range;
use std::sync::Arc;

use super::cubins::{CubinDirectories, CubinOrigin, Nvrtc};
use super::{Architecture, Argument, CudaBackend, Device, KernelSet, Launch};
use crate::error::KernelError;
use crate::pending::{Arrived, PendingCopy};

mod clock;
mod graphs;
mod held;
mod incoming;
mod memory;
mod modules;
mod outgoing;
mod prepared;
mod probe;
mod session;
mod tensor_map;
mod timing;
mod transfer;
mod words;

pub use super::MemoryUse;
pub use graphs::GraphUse;
pub use memory::DriverBuffer;
pub use probe::{Absence, DeviceFacts, probe};
pub use timing::LaunchTime;

use prepared::Prepared;

/// How a device is opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DriverOptions {
    /// Where machine code is looked for and kept.
    pub cubins: CubinDirectories,
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
    maps: tensor_map::Maps,
    graphs: graphs::Graphs,
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
        let (staging, incoming, stock, maps, graphs, timer) = Default::default();
        let checked = options.checked;
        Ok(DriverDevice { session, memory, staging, incoming, stock, kernels, maps, graphs, timer, checked })
    }

    /// What the device is.
    pub fn facts(&self) -> &DeviceFacts {
        &self.session.facts
    }

    /// Where the machine code of each source came from.
    pub fn origins(&self) -> &[(&'static str, CubinOrigin)] {
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

    /// Whether groups of launches may become graphs, which they do unless this says otherwise.
    pub fn set_graphs(&self, on: bool) {
        self.graphs.set(on);
    }

    /// What became of groups of launches so far.
    pub fn graph_use(&self) -> GraphUse {
        self.graphs.usage()
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
        self.session.enter_in_order("write")?;
        self.staging.write(&self.session, buffer, bytes)
    }

    fn read(&self, buffer: &DriverBuffer, out: &mut [u8]) -> Result<(), KernelError> {
        self.fits("read", out.len(), buffer)?;
        self.session.enter_in_order("read")?;
        self.staging.read(&self.session, buffer, out)
    }

    /// Does nothing unless the device is a checked one.
    fn poison(&self, buffer: &mut DriverBuffer, bytes: Range<usize>) -> Result<(), KernelError> {
        self.fits("poison", bytes.end, buffer)?;
        if !self.checked || bytes.is_empty() {
            return Ok(());
        }
        self.session.enter_in_order("poison")?;
        self.memory.fill("poison", buffer.start() + bytes.start as u64, bytes.len())
    }

    fn launch(&self, launch: &Launch, arguments: &mut [Argument<'_, DriverBuffer>]) -> Result<(), KernelError> {
        const OP: &str = "launch";
        self.session.enter(OP)?;
        let kernel = self.kernels.kernel(&self.session, &launch.kernel, launch.shared_bytes)?;
        let prepared = Prepared::new(&self.session, &self.maps, kernel, launch, arguments)?;
        let Some(prepared) = self.session.held.hold(prepared) else { return Ok(()) };
        let launched = self.timer.around(&self.session, &launch.kernel, || prepared.launch(&self.session));
        self.session.check(OP, || prepared.to_string(), launched)?;
        if !self.checked {
            self.session.launched(prepared);
            return Ok(());
        }
        self.session.synchronize(OP, || prepared.to_string())?;
        for (index, argument) in arguments.iter().enumerate() {
            let untouched = match argument {
                Argument::Read(buffer) => self.memory.untouched_around(buffer)?,
                Argument::Write(buffer) => self.memory.untouched_around(buffer)?,
                Argument::Tiles(tiles) => self.memory.untouched_around(tiles.buffer)?,
                _ => true,
            };
            if !untouched {
                let message = format!("{prepared} wrote outside its argument {index}");
                return Err(self.session.error(OP, message));
            }
        }
        Ok(())
    }

    /// One by one where launches are timed or checked, where there is much to each, and where the driver makes no graphs.
    fn grouped(
        &self,
        place: usize,
        rows: usize,
        work: &mut dyn FnMut() -> Result<(), KernelError>,
    ) -> Result<(), KernelError> {
        let alone = rows > graphs::MOST_ROWS || self.checked || self.timer.is_on() || !self.graphs.is_on();
        let held = &self.session.held;
        let Some(holding) = (!alone).then(|| held.begin(&self.session)).flatten() else { return work() };
        let worked = work();
        let launches = held.take();
        let launched = match &worked {
            Ok(()) => self.graphs.launch(&self.session, place, launches),
            // What came before the failure is done, as it would be without a group.
            Err(_) => self.session.launch_all(launches),
        };
        drop(holding);
        worked.and(launched)
    }

    fn upload(&self, bytes: &[u8]) -> Result<DriverBuffer, KernelError> {
        if let Some(buffer) = self.incoming.upload(&self.memory, bytes)? {
            return Ok(buffer);
        }
        // No launch that is held back knows of this memory, so that nothing has to go before.
        let buffer = self.memory.alloc(bytes.len())?;
        self.staging.write(&self.session, &buffer, bytes)?;
        Ok(buffer)
    }

    fn copies_overlap(&self) -> bool {
        true
    }

    fn read_later(&self, buffer: DriverBuffer, bytes: usize) -> Result<Box<dyn PendingCopy>, KernelError> {
        self.fits("read", bytes, &buffer)?;
        self.session.enter_in_order("read")?;
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
