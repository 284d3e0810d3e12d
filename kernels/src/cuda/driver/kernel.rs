//! A kernel of a loaded module and the layout of its parameters.

use std::sync::Mutex;

use cudarc::driver::CudaFunction;

/// A kernel that can be launched.
pub(super) struct LoadedKernel {
    pub(super) function: CudaFunction,
    pub(super) name: String,
    /// The size of each parameter, in bytes.
    pub(super) parameter_bytes: Vec<usize>,
    /// The offset of each parameter in a buffer of all of them, in words of 8 bytes.
    pub(super) parameter_offsets: Vec<usize>,
    /// The size of that buffer, in words of 8 bytes.
    pub(super) parameter_words: usize,
    /// The dynamic shared memory that launches may use without another opt-in, in bytes.
    pub(super) allowed_shared_bytes: Mutex<u32>,
}
