//! What the benchmarks share: seeded tensors at real models' shapes. No input is zeros, because zeros are faster
//! than numbers on some processors and compress in caches.

use actbench_kernels::{Backend, CpuBackend, DType, HostTensor, KernelError};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Values in -1..1, the same for the same seed.
pub fn random_values(seed: u64, len: usize) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..len).map(|_| rng.random_range(-1.0f32..1.0)).collect()
}

/// A random host tensor.
///
/// # Errors
/// When the shape overflows.
pub fn random_host(seed: u64, dtype: DType, shape: &[usize]) -> Result<HostTensor, KernelError> {
    HostTensor::from_f32(dtype, shape.to_vec(), &random_values(seed, shape.iter().product()))
}

/// A random tensor on the backend.
///
/// # Errors
/// When the memory cannot be had.
pub fn random_tensor<B: Backend>(
    backend: &B,
    seed: u64,
    dtype: DType,
    rows: usize,
    columns: usize,
) -> Result<B::Tensor, KernelError> {
    let table = backend.prepare_embedding(&random_host(seed, dtype, &[rows, columns])?, dtype)?;
    let mut tensor = backend.alloc(dtype, rows, columns)?;
    let tokens: Vec<u32> = (0..rows as u32).collect();
    backend.embed(&table, &tokens, &mut tensor)?;
    Ok(tensor)
}

/// The CPU backend on all cores.
///
/// # Errors
/// When its threads cannot be started.
pub fn cpu() -> Result<CpuBackend, KernelError> {
    CpuBackend::new(std::thread::available_parallelism().map_or(1, usize::from))
}
