//! A launch made ready for the driver: the kernel, its shape and its parameters, and words for errors on request.
//!
//! It owns all of that, so that it can be launched now, or kept and launched with others.

use std::ffi::c_void;
use std::fmt;
use std::sync::Arc;

use cudarc::driver::sys;
use cudarc::driver::{DriverError, result};

use super::memory::DriverBuffer;
use super::modules::Kernel;
use super::session::Session;
use super::tensor_map;
use crate::cuda::{Argument, Launch};
use crate::error::KernelError;

/// A launch that needs nothing but a stream.
pub(super) struct Prepared {
    pub(super) kernel: Arc<Kernel>,
    pub(super) shape: Shape,
    /// The parameters, each from [`Kernel::places`] on.
    words: Vec<u64>,
    /// What of the arguments the words do not tell.
    given: Vec<Given>,
}

/// How many threads are launched, and with what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) grid: [u32; 3],
    pub(super) threads: u32,
    pub(super) shared_bytes: u32,
}

/// An argument as it is told: writing it out for each launch would take longer than the launch.
#[derive(Clone, Copy)]
enum Given {
    Read(usize),
    Write(usize),
    Tiles { rows: usize, columns: usize, tile_rows: u32, tile_columns: u32 },
    Null,
    U32(u32),
    U64(u64),
    F32(f32),
}

impl Given {
    fn of(argument: &Argument<'_, DriverBuffer>) -> Given {
        match argument {
            Argument::Read(buffer) => Given::Read(buffer.len()),
            Argument::Write(buffer) => Given::Write(buffer.len()),
            Argument::Tiles(tiles) => Given::Tiles {
                rows: tiles.rows,
                columns: tiles.columns,
                tile_rows: tiles.tile_rows,
                tile_columns: tiles.tile_columns,
            },
            Argument::Null => Given::Null,
            Argument::U32(value) => Given::U32(*value),
            Argument::U64(value) => Given::U64(*value),
            Argument::F32(value) => Given::F32(*value),
        }
    }

    /// Bytes of the parameter that takes it.
    fn size(self) -> usize {
        match self {
            Given::Read(_) | Given::Write(_) | Given::Null | Given::U64(_) => 8,
            Given::U32(_) | Given::F32(_) => 4,
            Given::Tiles { .. } => tensor_map::BYTES,
        }
    }
}

impl fmt::Display for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Given::Read(bytes) => write!(f, "{bytes} bytes to read"),
            Given::Write(bytes) => write!(f, "{bytes} bytes to write"),
            Given::Tiles { rows, columns, tile_rows, tile_columns } => {
                write!(f, "{rows} x {columns} by tiles of {tile_rows} x {tile_columns}")
            }
            Given::Null => f.write_str("nothing"),
            Given::U32(value) => write!(f, "{value}"),
            Given::U64(value) => write!(f, "{value}"),
            Given::F32(value) => write!(f, "{value}"),
        }
    }
}

impl Prepared {
    /// `launch` of `kernel` with `arguments`, whose memory has to be there until the launch is in the stream.
    ///
    /// # Errors
    /// Arguments that are not the kernel's parameters, or a matrix that no tensor map can be made of.
    pub(super) fn new(
        session: &Session,
        maps: &tensor_map::Maps,
        kernel: Arc<Kernel>,
        launch: &Launch,
        arguments: &[Argument<'_, DriverBuffer>],
    ) -> Result<Prepared, KernelError> {
        let given: Vec<Given> = arguments.iter().map(Given::of).collect();
        let mut words = Vec::with_capacity(kernel.words);
        for argument in arguments {
            match argument {
                Argument::Read(buffer) => words.push(buffer.start()),
                Argument::Write(buffer) => words.push(buffer.start()),
                Argument::Tiles(tiles) => words.extend_from_slice(&maps.of(session, tiles)?),
                Argument::Null => words.push(0),
                // Little-endian, as every host with a GPU is: the first bytes of a word count.
                Argument::U32(value) => words.push(u64::from(*value)),
                Argument::U64(value) => words.push(*value),
                Argument::F32(value) => words.push(u64::from(value.to_bits())),
            }
        }
        if !given.iter().map(|given| given.size()).eq(kernel.parameters.iter().copied()) {
            let sizes: Vec<usize> = given.iter().map(|given| given.size()).collect();
            let message = format!(
                "{}: its parameters are of {:?} bytes, and it was given {sizes:?}",
                launch.kernel, kernel.parameters
            );
            return Err(session.error("launch", message));
        }
        let shape = Shape { grid: launch.grid, threads: launch.threads, shared_bytes: launch.shared_bytes };
        Ok(Prepared { kernel, shape, words, given })
    }

    /// Where each parameter lies, as the driver takes them. It reads these bytes and writes none.
    fn pointers(&self) -> Vec<*mut c_void> {
        self.kernel.places.iter().map(|place| self.words[*place..].as_ptr().cast_mut().cast()).collect()
    }

    /// Launches it in the stream of the kernels.
    pub(super) fn launch(&self, session: &Session) -> Result<(), DriverError> {
        let ([x, y, z], stream) = (self.shape.grid, session.stream.cu_stream());
        let mut pointers = self.pointers();
        // SAFETY: number and sizes of the arguments are those of the kernel's parameters, as compared in `new`. The driver
        // copies them before it returns. Memory behind them is given back in the stream's order, so after the kernel has
        // ended. That a kernel keeps to the bounds that it is given is what the checks of kernels are for.
        unsafe {
            result::launch_kernel(
                self.kernel.function.cu_function(),
                (x, y, z),
                (self.shape.threads, 1, 1),
                self.shape.shared_bytes,
                stream,
                &mut pointers,
            )
        }
    }

    /// Hands `call` what describes this as a node of a graph, which the driver copies.
    pub(super) fn as_node<T>(&self, call: impl FnOnce(&sys::CUDA_KERNEL_NODE_PARAMS) -> T) -> T {
        let [x, y, z] = self.shape.grid;
        let mut pointers = self.pointers();
        call(&sys::CUDA_KERNEL_NODE_PARAMS {
            func: self.kernel.function.cu_function(),
            gridDimX: x,
            gridDimY: y,
            gridDimZ: z,
            blockDimX: self.shape.threads,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: self.shape.shared_bytes,
            kernelParams: pointers.as_mut_ptr(),
            extra: std::ptr::null_mut(),
            kern: std::ptr::null_mut(),
            ctx: std::ptr::null_mut(),
        })
    }

    /// Whether the driver is told the same of both, which are of one kernel.
    pub(super) fn is_same_as(&self, other: &Prepared) -> bool {
        self.shape == other.shape && self.words == other.words
    }
}

impl fmt::Display for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shape { grid: [x, y, z], threads, shared_bytes } = self.shape;
        write!(
            f,
            "{} on {x} x {y} x {z} blocks of {threads} threads with {shared_bytes} bytes of shared memory, given ",
            self.kernel.name
        )?;
        for (index, given) in self.given.iter().enumerate() {
            if index > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{given}")?;
        }
        Ok(())
    }
}
