//! The CUDA kernels, and the code that drives a GPU, executed on the CPU.
//!
//! `attention_bits`, `device`, `plain_kernels`, `fast_kernels`, `folded_norms` and `loading` run the kernels in the emulator. The other modules use
//! the fake driver, which runs them through the code for a real driver.
#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

#[cfg(feature = "cuda")]
#[path = "../common/child_process.rs"]
mod child_process;
#[path = "../common/mod.rs"]
mod common;
#[cfg(feature = "cuda")]
#[path = "../fake_driver/mod.rs"]
mod fake_driver;
#[path = "../common/operations.rs"]
mod operations;

mod attention_bits;
mod device;
#[cfg(feature = "cuda")]
mod driver;
mod fast_kernels;
mod folded_norms;
#[cfg(feature = "cuda")]
mod graphs;
mod loading;
#[cfg(feature = "cuda")]
mod order;
mod plain_kernels;
mod qkv;
#[cfg(feature = "cuda")]
mod timeline;

use common::{filled_with_nan, host, random, upload};

/// Whether the kernels are compiled with AddressSanitizer (`scripts/check_kernels_sanitized.sh`), which makes them much slower.
/// It checks addresses, and no address depends on the order of threads or the time of copies, so that fewer modes suffice.
fn is_sanitized() -> bool {
    std::env::var_os("ACTBENCH_EMULATOR_SANITIZED").is_some()
}

#[cfg(feature = "cuda")]
type DriverBackend = actbench_kernels::cuda::CudaBackend<std::sync::Arc<actbench_kernels::cuda::driver::DriverDevice>>;
