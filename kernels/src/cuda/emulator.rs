//! The device of the tests: the kernels of `kernels/cuda/`, compiled as C++ and executed on the CPU.
//!
//! What it checks and what it cannot see is in `kernels/cuda/emulator/emulator.h`. It is slow and deterministic, and
//! says nothing of a GPU's speed.

use std::ffi::{CStr, CString, c_char, c_int, c_long, c_void};
use std::ops::Range;
use std::path::Path;
use std::ptr::{self, NonNull};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::device::{read_blocking, upload_with_write};
use super::emulated_memory::EmulatedMemory;
use super::tiles::SWIZZLED_ROW_BYTES;
use super::{Architecture, Argument, CudaBackend, Device, DeviceClock, KernelSet, Launch, MemoryUsage, Tiles};
use crate::error::KernelError;
use crate::pending::PendingCopy;
use crate::profiled::DeviceTrack;

/// The CUDA backend on the emulator.
pub type EmulatedBackend = CudaBackend<Emulator>;

/// In which order the threads of a block take turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ThreadOrder {
    /// By index.
    Forward,
    /// By falling index.
    Reverse,
    /// An order drawn anew for each block.
    Random,
}

/// When an asynchronous copy takes place, between its issue and the wait for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyTime {
    /// When it is issued.
    Early,
    /// When it is waited for.
    Late,
    /// One or the other, drawn for each copy.
    Mixed,
}

/// What the programming model leaves open and a test chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EmulatorOptions {
    /// Thread order.
    pub order: ThreadOrder,
    /// Copies.
    pub copies: CopyTime,
    /// Seed of what is drawn.
    pub seed: u64,
}

impl EmulatorOptions {
    /// Every order with every time of copies.
    pub fn matrix() -> Vec<EmulatorOptions> {
        let mut all = Vec::new();
        for order in [ThreadOrder::Forward, ThreadOrder::Reverse, ThreadOrder::Random] {
            for copies in [CopyTime::Early, CopyTime::Late, CopyTime::Mixed] {
                all.push(EmulatorOptions { order, copies, seed: 1 });
            }
        }
        all
    }
}

/// As the C++ side reads it.
#[repr(C)]
struct RawOptions {
    order: u32,
    copies: u32,
    seed: u64,
}

/// A tensor map, as the C++ side reads it: as large as a driver's, which says no more of its own.
#[repr(C, align(64))]
struct RawTensorMap {
    start: *const u8,
    /// Innermost first, as are the tile's sides.
    extents: [u64; 2],
    row_bytes: u64,
    tile: [u32; 2],
    element_bytes: u32,
    /// Bytes over which chunks of 16 are swapped, or 0.
    swizzled_bytes: u32,
    unused: [u64; 10],
}

/// A parameter in memory of its own.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Slot([u8; size_of::<RawTensorMap>()]);

impl From<u64> for Slot {
    fn from(value: u64) -> Slot {
        let mut slot = [0; size_of::<RawTensorMap>()];
        slot[..8].copy_from_slice(&value.to_ne_bytes());
        Slot(slot)
    }
}

impl Slot {
    fn of_map(tiles: &Tiles<'_, EmulatedBuffer>) -> Result<Slot, KernelError> {
        tiles.check(tiles.buffer.len).map_err(Emulator::error)?;
        let map = RawTensorMap {
            start: tiles.buffer.start.as_ptr().cast_const(),
            extents: [tiles.columns as u64, tiles.rows as u64],
            row_bytes: tiles.row_bytes() as u64,
            tile: [tiles.tile_columns, tiles.tile_rows],
            element_bytes: tiles.dtype.size() as u32,
            swizzled_bytes: if tiles.swizzled { SWIZZLED_ROW_BYTES as u32 } else { 0 },
            unused: [0; 10],
        };
        // SAFETY: the map has no padding, so all its bytes are initialised.
        Ok(Slot(unsafe { std::mem::transmute::<RawTensorMap, [u8; size_of::<RawTensorMap>()]>(map) }))
    }
}

/// Memory that a launch may read, as the C++ side reads it.
#[repr(C)]
struct RawMemory {
    start: *const u8,
    bytes: usize,
}

unsafe extern "C" {
    fn actbench_emulator_launch(
        prefix: *const c_char,
        name: *const c_char,
        grid: *const u32,
        threads: *const u32,
        shared_bytes: u32,
        arguments: *mut *mut c_void,
        argument_sizes: *const usize,
        n_arguments: usize,
        memory: *const RawMemory,
        options: *const RawOptions,
        message: *mut c_char,
        message_len: usize,
    ) -> c_int;
    fn actbench_emulator_parameters(name: *const c_char, sizes: *mut usize, capacity: usize) -> c_long;
    fn actbench_emulator_alloc(bytes: usize) -> *mut u8;
    fn actbench_emulator_free(start: *mut u8, bytes: usize);
}

/// The emulator's state is global: one launch at a time.
static LAUNCHES: Mutex<()> = Mutex::new(());

/// All ones is a NaN in each storage type.
const POISON: u8 = 0xff;

/// The emulated device.
pub struct Emulator {
    options: EmulatorOptions,
    /// Its number, where several stand side by side.
    ordinal: usize,
    memory: Arc<EmulatedMemory>,
    /// The device it stands for. All kernels run on it, whatever that is; a backend chooses by it.
    architecture: Architecture,
    /// Kernels whose name begins with this are launched in the place of those without: a planted fault.
    prefix: CString,
}

/// Memory of the emulated device: the page behind it cannot be touched.
pub struct EmulatedBuffer {
    start: NonNull<u8>,
    len: usize,
    memory: Arc<EmulatedMemory>,
}

// SAFETY: the buffer owns its memory and hands out references under the usual borrow rules alone.
unsafe impl Send for EmulatedBuffer {}
// SAFETY: as above; shared access is read-only.
unsafe impl Sync for EmulatedBuffer {}

impl EmulatedBuffer {
    fn as_slice(&self) -> &[u8] {
        // SAFETY: `start` is valid for `len` initialised bytes until the buffer is dropped.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_slice`, and `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }

    /// Whether the few bytes between the end and the page behind it are as they were.
    fn is_intact(&self) -> bool {
        let rest = self.len.next_multiple_of(16) - self.len;
        // SAFETY: memory is allocated in whole multiples of 16 bytes, all initialised.
        let rest = unsafe { std::slice::from_raw_parts(self.start.as_ptr().add(self.len), rest) };
        rest.iter().all(|byte| *byte == POISON)
    }
}

impl Drop for EmulatedBuffer {
    fn drop(&mut self) {
        // SAFETY: allocated with this very size and freed here alone.
        unsafe { actbench_emulator_free(self.start.as_ptr(), self.len) }
        self.memory.give_back(self.len);
    }
}

impl EmulatedBackend {
    /// A backend that executes `kernels`, those for `sm_90` where that has its own, as `options` say.
    pub fn emulated(options: EmulatorOptions, kernels: KernelSet) -> Self {
        CudaBackend::new(Emulator::new(options), kernels)
    }

    /// The same with the planted fault `fault` of `tests/planted/list.rs`, to show that tests see it.
    ///
    /// # Errors
    /// A name with a NUL in it.
    pub fn planted(options: EmulatorOptions, kernels: KernelSet, fault: &str) -> Result<Self, KernelError> {
        let prefix = CString::new(format!("{fault}/")).map_err(|_| Emulator::error("a name with NUL"))?;
        Ok(CudaBackend::new(Emulator { prefix, ..Emulator::new(options) }, kernels))
    }
}

impl Emulator {
    /// A device that executes as `options` say and stands for `sm_90`, the one with kernels of its own.
    pub fn new(options: EmulatorOptions) -> Self {
        Emulator::numbered(options, 0, None)
    }

    /// The device of that number, with so many bytes of memory or as many as the host has.
    pub fn numbered(options: EmulatorOptions, ordinal: usize, memory_bytes: Option<u64>) -> Self {
        let memory = Arc::new(EmulatedMemory::of(memory_bytes));
        Emulator { options, ordinal, memory, architecture: Architecture::new(90), prefix: CString::default() }
    }

    /// The same in the place of a device of `architecture`.
    pub fn standing_for(self, architecture: Architecture) -> Self {
        Emulator { architecture, ..self }
    }

    fn error(message: impl Into<String>) -> KernelError {
        KernelError::Device { op: "launch", device: "emulator".to_owned(), message: message.into() }
    }
}

impl Device for Emulator {
    type Buffer = EmulatedBuffer;

    fn describe(&self) -> String {
        match self.ordinal {
            0 => "emulated cuda".to_owned(),
            ordinal => format!("emulated cuda:{ordinal}"),
        }
    }

    fn architecture(&self) -> Option<Architecture> {
        Some(self.architecture)
    }

    fn is_emulated(&self) -> bool {
        true
    }

    fn alloc(&self, bytes: usize) -> Result<EmulatedBuffer, KernelError> {
        let too_much = || KernelError::OutOfMemory { op: "alloc", bytes, device: self.describe() };
        if !self.memory.take(bytes) {
            return Err(too_much());
        }
        // SAFETY: any size may be asked for; the answer is memory of NaN bytes or null.
        match NonNull::new(unsafe { actbench_emulator_alloc(bytes) }) {
            Some(start) => Ok(EmulatedBuffer { start, len: bytes, memory: self.memory.clone() }),
            None => {
                self.memory.give_back(bytes);
                Err(too_much())
            }
        }
    }

    fn write(&self, buffer: &mut EmulatedBuffer, bytes: &[u8]) -> Result<(), KernelError> {
        let len = buffer.len;
        match buffer.as_mut_slice().get_mut(..bytes.len()) {
            Some(start) => start.copy_from_slice(bytes),
            None => return Err(Self::error(format!("{} bytes written to a buffer of {len}", bytes.len()))),
        }
        Ok(())
    }

    fn read(&self, buffer: &EmulatedBuffer, out: &mut [u8]) -> Result<(), KernelError> {
        match buffer.as_slice().get(..out.len()) {
            Some(start) => out.copy_from_slice(start),
            None => return Err(Self::error(format!("{} bytes read from a buffer of {}", out.len(), buffer.len))),
        }
        Ok(())
    }

    fn poison(&self, buffer: &mut EmulatedBuffer, bytes: Range<usize>) -> Result<(), KernelError> {
        let len = buffer.len;
        match buffer.as_mut_slice().get_mut(bytes) {
            Some(range) => range.fill(POISON),
            None => return Err(Self::error(format!("poison beyond a buffer of {len} bytes"))),
        }
        Ok(())
    }

    fn launch(&self, launch: &Launch, arguments: &mut [Argument<'_, EmulatedBuffer>]) -> Result<(), KernelError> {
        // Each parameter in memory of its own, and a pointer to it, as `cuLaunchKernel` takes them.
        let mut slots: Vec<Slot> = Vec::with_capacity(arguments.len());
        let mut sizes = Vec::with_capacity(arguments.len());
        let mut memory = Vec::new();
        for argument in arguments.iter() {
            let (slot, size, given) = match argument {
                Argument::Read(buffer) => ((buffer.start.as_ptr() as u64).into(), 8, Some(&**buffer)),
                Argument::Write(buffer) => ((buffer.start.as_ptr() as u64).into(), 8, Some(&**buffer)),
                Argument::Tiles(tiles) => (Slot::of_map(tiles)?, size_of::<Slot>(), Some(tiles.buffer)),
                Argument::Null => (0.into(), 8, None),
                Argument::U32(value) => (u64::from(*value).into(), 4, None),
                Argument::U64(value) => ((*value).into(), 8, None),
                Argument::F32(value) => (u64::from(value.to_bits()).into(), 4, None),
            };
            memory.push(RawMemory {
                start: given.map_or(ptr::null(), |buffer| buffer.start.as_ptr().cast_const()),
                bytes: given.map_or(0, |buffer| buffer.len),
            });
            slots.push(slot);
            sizes.push(size);
        }
        let mut pointers: Vec<*mut c_void> = slots.iter_mut().map(|slot| slot.0.as_mut_ptr().cast()).collect();
        let name = CString::new(&*launch.kernel).map_err(|_| Self::error("a name with NUL"))?;
        let options = RawOptions {
            order: self.options.order as u32,
            copies: self.options.copies as u32,
            seed: self.options.seed,
        };
        let mut message = [0 as c_char; 1024];
        let alone = LAUNCHES.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the names and the message are terminated or sized; `pointers`, `sizes` and `memory` have one entry an
        // argument, which the other side compares with the kernel's parameters before it runs; the buffers behind `arguments`
        // are borrowed for the whole call, and the lock keeps other launches out.
        let code = unsafe {
            actbench_emulator_launch(
                self.prefix.as_ptr(),
                name.as_ptr(),
                launch.grid.as_ptr(),
                [launch.threads, 1, 1].as_ptr(),
                launch.shared_bytes,
                pointers.as_mut_ptr(),
                sizes.as_ptr(),
                sizes.len(),
                memory.as_ptr(),
                &options,
                message.as_mut_ptr(),
                message.len(),
            )
        };
        drop(alone);
        if code != 0 {
            // SAFETY: the other side terminates what it writes, and the array starts as zeros.
            let message = unsafe { CStr::from_ptr(message.as_ptr()) };
            return Err(Self::error(message.to_string_lossy()));
        }
        let overwritten = arguments.iter().position(|argument| match argument {
            Argument::Read(buffer) => !buffer.is_intact(),
            Argument::Write(buffer) => !buffer.is_intact(),
            Argument::Tiles(tiles) => !tiles.buffer.is_intact(),
            _ => false,
        });
        match overwritten {
            Some(index) => Err(Self::error(format!("{} wrote behind the end of its argument {index}", launch.kernel))),
            None => Ok(()),
        }
    }

    fn launch_grouped(
        &self,
        _graph_slot: usize,
        _rows: usize,
        work: &mut dyn FnMut() -> Result<(), KernelError>,
    ) -> Result<(), KernelError> {
        work()
    }

    fn upload(&self, bytes: &[u8]) -> Result<EmulatedBuffer, KernelError> {
        upload_with_write(self, bytes)
    }

    /// Copies complete at once; callers take the same path as on a GPU.
    fn downloads_are_async(&self) -> bool {
        true
    }

    fn read_async(&self, buffer: EmulatedBuffer, bytes: usize) -> Result<Box<dyn PendingCopy>, KernelError> {
        read_blocking(self, &buffer, bytes)
    }

    fn memory_usage(&self) -> Result<Option<MemoryUsage>, KernelError> {
        Ok(Some(self.memory.in_use()))
    }

    fn reset_peak_memory(&self) -> Result<(), KernelError> {
        self.memory.reset_high();
        Ok(())
    }

    fn free_memory(&self) -> Result<Option<u64>, KernelError> {
        Ok(self.memory.free())
    }
}

/// Work has ended when a call returns, so a mark is the time of the CPU's clock.
impl DeviceClock for Emulator {
    type Event = Instant;

    fn record_event_on(&self, _track: DeviceTrack) -> Result<Instant, KernelError> {
        Ok(Instant::now())
    }

    fn record_event(&self) -> Result<Instant, KernelError> {
        Ok(Instant::now())
    }

    fn uploads_async(&self, _bytes: usize) -> bool {
        false
    }

    fn elapsed_ms(&self, start: &Instant, end: &Instant) -> Result<f64, KernelError> {
        Ok(end.duration_since(*start).as_secs_f64() * 1e3)
    }

    fn wait(&self) -> Result<(), KernelError> {
        Ok(())
    }

    fn cache_bytes(&self) -> usize {
        0
    }

    fn overwrite(&self, buffer: &mut EmulatedBuffer) -> Result<(), KernelError> {
        buffer.as_mut_slice().fill(0);
        Ok(())
    }

    fn copy(&self, from: &EmulatedBuffer, to: &mut EmulatedBuffer) -> Result<(), KernelError> {
        let bytes = from.len.min(to.len);
        to.as_mut_slice()[..bytes].copy_from_slice(&from.as_slice()[..bytes]);
        Ok(())
    }
}

/// How many parameters the kernel `name` has, by the C++ compiler; none if there is no such kernel.
pub fn emulated_parameters(name: &str) -> Option<usize> {
    let name = CString::new(name).ok()?;
    // SAFETY: the name is terminated, and with no capacity nothing is written.
    usize::try_from(unsafe { actbench_emulator_parameters(name.as_ptr(), ptr::null_mut(), 0) }).ok()
}

/// The folder of the stand-in driver of the tests: a `libcuda.so` that runs the kernels in the emulator and checks how
/// the driver is used. See `kernels/tests/stand_in/internals.h`.
pub fn stand_in_folder() -> &'static Path {
    Path::new(env!("ACTBENCH_STAND_IN_FOLDER"))
}

/// What the stand-in driver takes for machine code of any architecture with any kernel in it.
pub const STAND_IN_CUBIN: &[u8] = b"\x7fELF stand-in";
