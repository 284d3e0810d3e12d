//! A GPU as a [`Device`], through the CUDA driver.
//!
//! Building this needs no CUDA installation: `cudarc` loads the driver's library when a device is opened, and [`probe`]
//! reports the devices. Kernels run in one stream in the order of their launches. Small uploads and asynchronous
//! downloads have streams of their own, ordered with the kernels by events.
//!
//! The tests use a fake driver, which executes the kernels on the CPU and verifies the use of the driver API. Results
//! from real GPUs are in `docs/measurements/gpu.md`.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use super::cubins::{CubinDirectories, CubinOrigin, Nvrtc};
use super::{Architecture, Argument, CudaBackend, Device, KernelSet, Launch};
use crate::error::KernelError;
use crate::host::HostTensor;
use crate::pending::{CompletedCopy, PendingCopy};

mod clock;
mod context;
mod deferred;
mod download;
mod driver_error;
mod encode;
mod encoded_launch;
mod graphs;
mod kernel;
mod memory;
mod modules;
mod open_times;
mod probe;
mod ring;
mod ring_download;
mod session;
mod tensor_map;
mod timing;
mod transfer;
mod upload;

pub use super::MemoryUsage;
pub use graphs::GraphUsage;
pub use memory::DriverBuffer;
pub use open_times::DeviceOpenTimes;
pub use probe::{DeviceFacts, DriverUnavailable, probe};
pub use timing::LaunchTime;

use context::LastLaunch;

/// Options of [`DriverDevice::open`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DriverOptions {
    /// The directories of machine code: prebuilt cubins, and the cache of compiled ones.
    pub cubins: CubinDirectories,
    /// For checks of the kernels: new memory and the output of a launch are filled with NaN, guards around each buffer
    /// reveal a write beyond it, and the host waits for each launch, so that an error is reported for the launch that
    /// caused it. Slow.
    pub checked: bool,
}

/// A GPU.
pub struct DriverDevice {
    session: Arc<session::Session>,
    memory: Arc<memory::DeviceMemory>,
    chunked_copies: transfer::ChunkedCopies,
    async_uploads: upload::AsyncUploads,
    pinned_pool: Arc<download::PinnedPool>,
    kernels: modules::KernelModules,
    maps: tensor_map::TensorMaps,
    graphs: graphs::GraphCache,
    timer: timing::LaunchTimer,
    checked: bool,
    open_times: DeviceOpenTimes,
}

impl DriverDevice {
    /// Opens device `ordinal` and loads every kernel for it. Kernels without machine code are compiled.
    ///
    /// # Errors
    /// No driver or no such device; neither machine code nor a compiler; a failure of the driver.
    pub fn open(ordinal: usize, options: &DriverOptions) -> Result<Self, KernelError> {
        let mut open_times = DeviceOpenTimes::default();
        let session = session::Session::open(ordinal, &mut open_times)?;
        let start = Instant::now();
        let kernels = modules::KernelModules::load(&session.context, &options.cubins, &Nvrtc)?;
        open_times.modules = start.elapsed();
        let start = Instant::now();
        let memory = memory::DeviceMemory::new(session.clone(), options.checked)?;
        open_times.context += start.elapsed();
        Ok(DriverDevice {
            memory,
            chunked_copies: transfer::ChunkedCopies::new(&session),
            async_uploads: upload::AsyncUploads::default(),
            pinned_pool: Arc::default(),
            kernels,
            maps: tensor_map::TensorMaps::default(),
            graphs: graphs::GraphCache::default(),
            timer: timing::LaunchTimer::default(),
            checked: options.checked,
            open_times,
            session,
        })
    }

    /// How long the parts of [`DriverDevice::open`] took.
    pub fn open_times(&self) -> DeviceOpenTimes {
        self.open_times
    }

    /// The properties of the device.
    pub fn facts(&self) -> &DeviceFacts {
        &self.session.context.facts
    }

    /// The origin of the machine code of each source file.
    pub fn origins(&self) -> &[(&'static str, CubinOrigin)] {
        self.kernels.origins()
    }

    /// The error that made the context unusable, if there was one. Every later call fails.
    pub fn lost(&self) -> Option<&str> {
        self.session.context.lost()
    }

    /// Times each launch from now on, with a cold L2 cache; see [`DriverDevice::stop_timing`].
    ///
    /// # Errors
    /// No memory for the buffer that clears the cache.
    pub fn start_timing(&self) -> Result<(), KernelError> {
        self.timer.start(self.memory.alloc(timing::fill_bytes(self.session.context.facts.l2_bytes))?);
        Ok(())
    }

    /// Stops timing and returns the launches since [`DriverDevice::start_timing`], in order.
    ///
    /// # Errors
    /// A failure of the driver.
    pub fn stop_timing(&self) -> Result<Vec<LaunchTime>, KernelError> {
        self.timer.stop(&self.session)
    }

    /// Milliseconds to copy `bytes` bytes within the device's memory, the median of `repeats` copies: the reference for
    /// kernels that are bound by memory bandwidth.
    ///
    /// # Errors
    /// No memory for source and destination, or a failure of the driver.
    pub fn copy_milliseconds(&self, bytes: usize, repeats: usize) -> Result<f64, KernelError> {
        let (from, to) = (self.memory.alloc(bytes)?, self.memory.alloc(bytes)?);
        timing::copy_milliseconds(&self.session, &from, &to, repeats)
    }

    /// Enables or disables CUDA graphs for groups of launches. They are enabled at first.
    pub fn set_graphs(&self, enabled: bool) {
        self.graphs.set_enabled(enabled);
    }

    /// The counters of CUDA graphs so far.
    pub fn graph_usage(&self) -> GraphUsage {
        self.graphs.usage()
    }

    /// An error if `buffer` has fewer than `bytes` bytes.
    fn fits(&self, op: &'static str, bytes: usize, buffer: &DriverBuffer) -> Result<(), KernelError> {
        if bytes <= buffer.len() {
            return Ok(());
        }
        Err(self.session.context.error(op, format!("{bytes} bytes exceed the buffer of {} bytes", buffer.len())))
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
        format!("{}, {}", self.session.context.device_name(), self.session.context.facts)
    }

    fn architecture(&self) -> Option<Architecture> {
        Some(self.session.context.facts.architecture)
    }

    fn multiprocessors(&self) -> usize {
        self.session.context.facts.multiprocessors
    }

    fn is_emulated(&self) -> bool {
        false
    }

    fn alloc(&self, bytes: usize) -> Result<DriverBuffer, KernelError> {
        self.memory.alloc(bytes)
    }

    fn write(&self, buffer: &mut DriverBuffer, bytes: &[u8]) -> Result<(), KernelError> {
        self.fits("write", bytes.len(), buffer)?;
        self.session.enter_in_order("write")?;
        self.chunked_copies.write(&self.session, buffer, bytes)
    }

    fn write_tensor(
        &self,
        buffer: &mut DriverBuffer,
        tensor: &HostTensor,
        bytes: Range<usize>,
    ) -> Result<(), KernelError> {
        self.fits("write", bytes.len(), buffer)?;
        self.session.enter_in_order("write")?;
        let fill = |at: usize, out: &mut [u8]| tensor.read(bytes.start + at, out);
        self.chunked_copies.write_filled(&self.session, buffer, bytes.len(), &fill)
    }

    fn read(&self, buffer: &DriverBuffer, out: &mut [u8]) -> Result<(), KernelError> {
        self.fits("read", out.len(), buffer)?;
        self.session.enter_in_order("read")?;
        self.chunked_copies.read(&self.session, buffer, out)
    }

    /// Does nothing unless the device is checked.
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
        let context = &self.session.context;
        context.enter(OP)?;
        let kernel = self.kernels.kernel(context, &launch.kernel, launch.shared_bytes)?;
        let encoded = encode::encode(context, &self.maps, kernel, launch, arguments)?;
        let Some(encoded) = self.session.deferred.defer(encoded) else { return Ok(()) };
        let launched = self.timer.around(context, &launch.kernel, || encoded.launch(&context.stream));
        context.check(OP, || encoded.to_string(), launched)?;
        if !self.checked {
            context.set_last_launch(LastLaunch::Single(encoded));
            return Ok(());
        }
        self.session.synchronize(OP, || encoded.to_string())?;
        for (index, argument) in arguments.iter().enumerate() {
            let intact = match argument {
                Argument::Read(buffer) => self.memory.guards_intact(buffer)?,
                Argument::Write(buffer) => self.memory.guards_intact(buffer)?,
                Argument::Tiles(tiles) => self.memory.guards_intact(tiles.buffer)?,
                _ => true,
            };
            if !intact {
                let message = format!("{encoded} wrote outside its argument {index}");
                return Err(context.error(OP, message));
            }
        }
        Ok(())
    }

    /// Launches one by one if launches are timed or checked, for large batches, and if the driver refused a graph.
    fn launch_grouped(
        &self,
        graph_slot: usize,
        rows: usize,
        work: &mut dyn FnMut() -> Result<(), KernelError>,
    ) -> Result<(), KernelError> {
        let is_grouped = rows <= graphs::MAX_ROWS && !self.checked && !self.timer.is_on() && self.graphs.is_enabled();
        let guard = if is_grouped { self.session.defer_launches() } else { None };
        let Some(guard) = guard else { return work() };
        let worked = work();
        let launches = self.session.deferred.take();
        let launched = match &worked {
            Ok(()) => self.graphs.launch(&self.session, graph_slot, launches),
            // The launches before the failure still run, as they would without a group.
            Err(_) => self.session.launch_all(launches),
        };
        drop(guard);
        worked.and(launched)
    }

    fn upload(&self, bytes: &[u8]) -> Result<DriverBuffer, KernelError> {
        if let Some(buffer) = self.async_uploads.upload(&self.memory, bytes)? {
            return Ok(buffer);
        }
        // No deferred launch uses this new memory, so they need not be flushed.
        let buffer = self.memory.alloc(bytes.len())?;
        self.chunked_copies.write(&self.session, &buffer, bytes)?;
        Ok(buffer)
    }

    fn downloads_are_async(&self) -> bool {
        true
    }

    fn read_async(&self, buffer: DriverBuffer, bytes: usize) -> Result<Box<dyn PendingCopy>, KernelError> {
        self.fits("read", bytes, &buffer)?;
        self.session.enter_in_order("read")?;
        let ring = self.chunked_copies.ring();
        match self.pinned_pool.take(&self.session.context, bytes) {
            Ok(Some(staging)) => {
                let pool = &self.pinned_pool;
                Ok(Box::new(download::AsyncDownload::start(&self.session, pool, buffer, staging, bytes)?))
            }
            Ok(None) if ring.prepare(bytes) => {
                Ok(Box::new(ring_download::RingDownload::start(&self.session, ring, buffer, bytes)?))
            }
            Ok(None) | Err(_) => {
                // Without pinned memory the copy is slower, with the same bytes.
                let mut out = vec![0; bytes];
                self.chunked_copies.read(&self.session, &buffer, &mut out)?;
                Ok(Box::new(CompletedCopy(out)))
            }
        }
    }

    fn memory_usage(&self) -> Result<Option<MemoryUsage>, KernelError> {
        self.memory.usage().map(Some)
    }

    fn reset_peak_memory(&self) -> Result<(), KernelError> {
        self.session.context.enter("memory")?;
        self.session.synchronize_all("memory", || "waiting for work that uses memory".to_owned())?;
        self.memory.trim()?;
        self.memory.reset_peaks()
    }

    fn free_memory(&self) -> Result<Option<u64>, KernelError> {
        self.memory.free_bytes().map(Some)
    }
}
