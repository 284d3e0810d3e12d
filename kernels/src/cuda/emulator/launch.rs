//! A launch in the emulator: arguments in the layout of the C++ side, and the call.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr;
use std::sync::{Mutex, PoisonError};

use super::{EmulatedBuffer, Emulator};
use crate::cuda::tiles::SWIZZLED_ROW_BYTES;
use crate::cuda::{Argument, Launch, Tiles};
use crate::error::KernelError;

/// `emulator::Options` of the C++ side.
#[repr(C)]
struct RawOptions {
    order: u32,
    copies: u32,
    seed: u64,
}

/// `emulator::TensorMap` of the C++ side, of the size of a driver's opaque map.
#[repr(C, align(64))]
struct RawTensorMap {
    start: *const u8,
    /// Columns and rows, as are the tile's sides.
    extents: [u64; 2],
    row_bytes: u64,
    tile: [u32; 2],
    element_bytes: u32,
    /// Bytes of a swizzled row, or 0.
    swizzled_bytes: u32,
    unused: [u64; 10],
}

/// The memory of one parameter.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct ParameterBytes([u8; size_of::<RawTensorMap>()]);

impl From<u64> for ParameterBytes {
    fn from(value: u64) -> ParameterBytes {
        let mut bytes = [0; size_of::<RawTensorMap>()];
        bytes[..8].copy_from_slice(&value.to_ne_bytes());
        ParameterBytes(bytes)
    }
}

impl ParameterBytes {
    fn tensor_map(tiles: &Tiles<'_, EmulatedBuffer>) -> Result<ParameterBytes, KernelError> {
        tiles.check(tiles.buffer.len()).map_err(Emulator::error)?;
        let map = RawTensorMap {
            start: tiles.buffer.as_ptr(),
            extents: [tiles.columns as u64, tiles.rows as u64],
            row_bytes: tiles.row_bytes() as u64,
            tile: [tiles.tile_columns, tiles.tile_rows],
            element_bytes: tiles.dtype.size() as u32,
            swizzled_bytes: if tiles.swizzled { SWIZZLED_ROW_BYTES as u32 } else { 0 },
            unused: [0; 10],
        };
        // SAFETY: the map has no padding, so all its bytes are initialized.
        Ok(ParameterBytes(unsafe { std::mem::transmute::<RawTensorMap, [u8; size_of::<RawTensorMap>()]>(map) }))
    }
}

/// `emulator::Memory` of the C++ side: memory that a launch may read.
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
}

/// The emulator's state is global: one launch at a time.
static LAUNCHES: Mutex<()> = Mutex::new(());

impl Emulator {
    pub(super) fn run(
        &self,
        launch: &Launch,
        arguments: &mut [Argument<'_, EmulatedBuffer>],
    ) -> Result<(), KernelError> {
        // Like `cuLaunchKernel`: an array of pointers to the parameters.
        let mut parameters: Vec<ParameterBytes> = Vec::with_capacity(arguments.len());
        let mut sizes = Vec::with_capacity(arguments.len());
        let mut memory = Vec::new();
        for argument in arguments.iter() {
            let (parameter, size, buffer) = match argument {
                Argument::Read(buffer) => ((buffer.as_ptr() as u64).into(), 8, Some(&**buffer)),
                Argument::Write(buffer) => ((buffer.as_ptr() as u64).into(), 8, Some(&**buffer)),
                Argument::Tiles(tiles) => {
                    (ParameterBytes::tensor_map(tiles)?, size_of::<ParameterBytes>(), Some(tiles.buffer))
                }
                Argument::Null => (0.into(), 8, None),
                Argument::U32(value) => (u64::from(*value).into(), 4, None),
                Argument::U64(value) => ((*value).into(), 8, None),
                Argument::F32(value) => (u64::from(value.to_bits()).into(), 4, None),
            };
            memory.push(RawMemory {
                start: buffer.map_or(ptr::null(), EmulatedBuffer::as_ptr),
                bytes: buffer.map_or(0, EmulatedBuffer::len),
            });
            parameters.push(parameter);
            sizes.push(size);
        }
        let mut pointers: Vec<*mut c_void> =
            parameters.iter_mut().map(|parameter| parameter.0.as_mut_ptr().cast()).collect();
        let name = CString::new(&*launch.kernel).map_err(|_| Self::error("a name with NUL"))?;
        let options = RawOptions {
            order: self.options.order as u32,
            copies: self.options.copies as u32,
            seed: self.options.seed,
        };
        let mut message = [0 as c_char; 1024];
        let lock = LAUNCHES.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the names and the message are terminated or sized; `pointers`, `sizes` and `memory` have one entry for each
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
        drop(lock);
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
}
