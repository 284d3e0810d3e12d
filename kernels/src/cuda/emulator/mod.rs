//! The emulated device: the kernels of `kernels/cuda/`, compiled as C++ and executed on the CPU, for dry runs and tests.
//!
//! Its checks and its limits are in `kernels/cuda/emulator/emulator.h`. It is slow and deterministic, and its times do not
//! represent a GPU.

use std::ffi::CString;
use std::sync::Arc;

use super::{Architecture, CudaBackend, KernelSet};
use crate::error::KernelError;

mod buffer;
mod device;
mod launch;
mod memory;
mod options;
#[cfg(feature = "testing")]
mod testing;

pub use buffer::EmulatedBuffer;
use memory::EmulatedMemory;
pub use options::{CopyTime, EmulatorOptions, ThreadOrder};
#[cfg(feature = "testing")]
pub use testing::{FAKE_DRIVER_CUBIN, emulated_parameters, fake_driver_directory};

/// So few that every persistent kernel has more tiles than clusters.
const MULTIPROCESSORS: usize = 2;

/// The CUDA backend on the emulator.
pub type EmulatedBackend = CudaBackend<Emulator>;

/// The emulated device.
pub struct Emulator {
    options: EmulatorOptions,
    /// Its number among several emulated devices.
    ordinal: usize,
    memory: Arc<EmulatedMemory>,
    /// The emulated architecture. All kernels run on it; a backend chooses its kernels by it.
    architecture: Architecture,
    multiprocessors: usize,
    /// The prefix of a mutant: a kernel whose name has it replaces the kernel of that name without it.
    prefix: CString,
}

impl EmulatedBackend {
    /// A backend that executes `kernels`, with those for `sm_90`, under `options`.
    pub fn emulated(options: EmulatorOptions, kernels: KernelSet) -> Self {
        CudaBackend::new(Emulator::new(options), kernels)
    }
}

impl Emulator {
    /// A device of `sm_90`, which has kernels of its own.
    pub fn new(options: EmulatorOptions) -> Self {
        Emulator::numbered(options, 0, None)
    }

    /// The device `ordinal`, with `memory_bytes` bytes of memory or as many as the host has.
    pub fn numbered(options: EmulatorOptions, ordinal: usize, memory_bytes: Option<u64>) -> Self {
        let memory = Arc::new(EmulatedMemory::new(memory_bytes));
        let (architecture, multiprocessors) = (Architecture::new(90), MULTIPROCESSORS);
        Emulator { options, ordinal, memory, architecture, multiprocessors, prefix: CString::default() }
    }

    /// The device with another architecture.
    pub fn with_architecture(self, architecture: Architecture) -> Self {
        Emulator { architecture, ..self }
    }

    /// The device with another number of multiprocessors.
    pub fn with_multiprocessors(self, multiprocessors: usize) -> Self {
        Emulator { multiprocessors, ..self }
    }

    fn error(message: impl Into<String>) -> KernelError {
        KernelError::Device { op: "launch", device: "emulator".to_owned(), message: message.into() }
    }
}
