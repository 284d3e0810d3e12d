//! A launch in the form that the driver takes: the kernel, its launch configuration and its parameters.
//!
//! It owns all of them, so that it can be launched at once, or deferred and launched in a graph.

use std::ffi::c_void;
use std::fmt;
use std::sync::Arc;

use cudarc::driver::sys;
use cudarc::driver::{CudaStream, DriverError, result};

use super::kernel::LoadedKernel;

/// A launch that needs only a stream.
pub(super) struct EncodedLaunch {
    pub(super) kernel: Arc<LoadedKernel>,
    pub(super) config: LaunchConfig,
    /// The values of the parameters, at [`LoadedKernel::parameter_offsets`].
    pub(super) parameters: Vec<u64>,
    /// The arguments for error messages: the parameters alone do not tell a size from an address.
    pub(super) arguments: Vec<ArgumentSummary>,
}

/// The number of blocks and of threads, and the dynamic shared memory of a block in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LaunchConfig {
    pub(super) grid: [u32; 3],
    pub(super) threads: u32,
    pub(super) shared_bytes: u32,
}

/// An argument as it appears in error messages. Kept as numbers: to format it for each launch would take longer than
/// the launch.
#[derive(Clone, Copy)]
pub(super) enum ArgumentSummary {
    Read(usize),
    Write(usize),
    Tiles { rows: usize, columns: usize, tile_rows: u32, tile_columns: u32 },
    Null,
    U32(u32),
    U64(u64),
    F32(f32),
}

impl fmt::Display for ArgumentSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ArgumentSummary::Read(bytes) => write!(f, "read {bytes} bytes"),
            ArgumentSummary::Write(bytes) => write!(f, "write {bytes} bytes"),
            ArgumentSummary::Tiles { rows, columns, tile_rows, tile_columns } => {
                write!(f, "{rows} x {columns} in tiles of {tile_rows} x {tile_columns}")
            }
            ArgumentSummary::Null => f.write_str("null"),
            ArgumentSummary::U32(value) => write!(f, "{value}"),
            ArgumentSummary::U64(value) => write!(f, "{value}"),
            ArgumentSummary::F32(value) => write!(f, "{value}"),
        }
    }
}

impl EncodedLaunch {
    /// Pointers to the parameters. The driver reads through them and does not write.
    fn pointers(&self) -> Vec<*mut c_void> {
        let offsets = self.kernel.parameter_offsets.iter();
        offsets.map(|offset| self.parameters[*offset..].as_ptr().cast_mut().cast()).collect()
    }

    /// Launches the kernel in `stream`, that of the kernels.
    pub(super) fn launch(&self, stream: &CudaStream) -> Result<(), DriverError> {
        let [x, y, z] = self.config.grid;
        let mut pointers = self.pointers();
        // SAFETY: `encode` compared number and sizes of the arguments with the kernel's parameters. The driver copies
        // them before it returns. The memory that they point to is freed in the order of the stream, so after the
        // kernel. That a kernel respects the bounds in its arguments is verified by the checks of the kernels.
        unsafe {
            result::launch_kernel(
                self.kernel.function.cu_function(),
                (x, y, z),
                (self.config.threads, 1, 1),
                self.config.shared_bytes,
                stream.cu_stream(),
                &mut pointers,
            )
        }
    }

    /// Calls `call` with this launch as the parameters of a graph node, which the driver copies.
    pub(super) fn with_node_params<T>(&self, call: impl FnOnce(&sys::CUDA_KERNEL_NODE_PARAMS) -> T) -> T {
        let [x, y, z] = self.config.grid;
        let mut pointers = self.pointers();
        call(&sys::CUDA_KERNEL_NODE_PARAMS {
            func: self.kernel.function.cu_function(),
            gridDimX: x,
            gridDimY: y,
            gridDimZ: z,
            blockDimX: self.config.threads,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: self.config.shared_bytes,
            kernelParams: pointers.as_mut_ptr(),
            extra: std::ptr::null_mut(),
            kern: std::ptr::null_mut(),
            ctx: std::ptr::null_mut(),
        })
    }

    /// Whether a graph node of `other`, a launch of the same kernel, needs no update to become this launch.
    pub(super) fn equals(&self, other: &EncodedLaunch) -> bool {
        self.config == other.config && self.parameters == other.parameters
    }
}

impl fmt::Display for EncodedLaunch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LaunchConfig { grid: [x, y, z], threads, shared_bytes } = self.config;
        write!(
            f,
            "{} on {x} x {y} x {z} blocks of {threads} threads with {shared_bytes} bytes of shared memory, arguments (",
            self.kernel.name
        )?;
        for (index, argument) in self.arguments.iter().enumerate() {
            if index > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{argument}")?;
        }
        f.write_str(")")
    }
}
