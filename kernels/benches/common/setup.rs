//! Seeded tensors for benchmarks, and the message of a benchmark that cannot be set up. No input is zero, because some
//! processors compute faster with zeros.

use std::error::Error;

use actbench_kernels::{Backend, DType, HostTensor, KernelError};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Random values in -1..1, determined by `seed`.
pub fn random_values(seed: u64, len: usize) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..len).map(|_| rng.random_range(-1.0f32..1.0)).collect()
}

/// A random host tensor.
///
/// # Errors
/// The shape overflows.
pub fn random_host(seed: u64, dtype: DType, shape: &[usize]) -> Result<HostTensor, KernelError> {
    HostTensor::from_f32(dtype, shape.to_vec(), &random_values(seed, shape.iter().product()))
}

/// A random tensor on the backend.
///
/// # Errors
/// An allocation fails.
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
    backend.embed(&table, &tokens, 1.0, &mut tensor)?;
    Ok(tensor)
}

/// Prints the reason why a benchmark could not be set up, and skips it. Criterion cannot report such an error.
pub fn skip_on_error<E: Into<Box<dyn Error>>>(result: Result<(), E>) {
    if let Err(error) = result {
        eprintln!("skipped: {}", error.into());
    }
}
