//! Interfaces of the emulator for tests: mutants of the kernels, and the fake driver.

use std::ffi::{CString, c_char, c_long};
use std::path::Path;
use std::ptr;

use super::{EmulatedBackend, Emulator, EmulatorOptions};
use crate::cuda::{CudaBackend, KernelSet};
use crate::error::KernelError;

unsafe extern "C" {
    fn actbench_emulator_parameters(name: *const c_char, sizes: *mut usize, capacity: usize) -> c_long;
}

impl EmulatedBackend {
    /// A backend that runs the mutant `name` of `tests/mutants/list.rs` in place of its kernel.
    ///
    /// # Errors
    /// A name that contains a NUL.
    pub fn mutant(options: EmulatorOptions, kernels: KernelSet, name: &str) -> Result<Self, KernelError> {
        let prefix = CString::new(format!("{name}/")).map_err(|_| Emulator::error("a name with NUL"))?;
        Ok(CudaBackend::new(Emulator { prefix, ..Emulator::new(options) }, kernels))
    }
}

/// The number of parameters of the kernel `name` by the C++ compiler, or `None` if there is no such kernel.
pub fn emulated_parameters(name: &str) -> Option<usize> {
    let name = CString::new(name).ok()?;
    // SAFETY: the name is terminated, and with no capacity nothing is written.
    usize::try_from(unsafe { actbench_emulator_parameters(name.as_ptr(), ptr::null_mut(), 0) }).ok()
}

/// The directory of the fake driver: a `libcuda.so` that runs the kernels in the emulator and checks the use of the driver.
/// See `kernels/tests/fake_driver/internals.h`.
pub fn fake_driver_directory() -> &'static Path {
    Path::new(env!("ACTBENCH_FAKE_DRIVER_DIRECTORY"))
}

/// Bytes that the fake driver accepts as machine code of any architecture with any kernel.
pub const FAKE_DRIVER_CUBIN: &[u8] = b"\x7fELF fake driver";
