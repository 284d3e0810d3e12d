//! Seeded values, and their way to a device.

use actbench_kernels::{Backend, DType, HostTensor, KernelError};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Values in -1..1, rounded to `dtype`, so that every backend starts from the same. `stream` tells the inputs of one case
/// apart.
pub fn random(seed: u64, stream: u64, dtype: DType, len: usize) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(stream);
    let values: Vec<f32> = (0..len).map(|_| rng.random_range(-1.0f32..1.0)).collect();
    dtype.to_f32_vec(&dtype.from_f32_slice(&values))
}

/// Values of every size that `from` and `to` both have, of both signs: what conversions are checked on.
pub fn of_every_size(seed: u64, from: DType, to: DType, len: usize) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    // f16 reaches from 2^-24, its smallest subnormal, to below 2^16; the others far beyond what models use.
    let exponents = if [from, to].contains(&DType::F16) { -26.0f32..15.9 } else { -60.0f32..60.0 };
    let values: Vec<f32> = (0..len)
        .map(|_| rng.random_range(exponents.clone()).exp2() * if rng.random_range(0..2) == 0 { 1.0 } else { -1.0 })
        .collect();
    from.to_f32_vec(&from.from_f32_slice(&values))
}

/// A host tensor of `values`.
pub fn host(dtype: DType, shape: &[usize], values: &[f32]) -> Result<HostTensor, KernelError> {
    HostTensor::from_f32(dtype, shape.to_vec(), values)
}

/// A device tensor of `values`, through the embedding of every row.
pub fn upload<B: Backend>(
    backend: &B,
    dtype: DType,
    rows: usize,
    columns: usize,
    values: &[f32],
) -> Result<B::Tensor, KernelError> {
    let table = backend.prepare_embedding(&host(dtype, &[rows, columns], values)?, dtype)?;
    let mut tensor = backend.alloc(dtype, rows, columns)?;
    let tokens: Vec<u32> = (0..rows as u32).collect();
    backend.embed(&table, &tokens, &mut tensor)?;
    Ok(tensor)
}

/// Elements of `dtype` widened to `f32`; bytes behind the last whole element are left out.
pub fn widen(dtype: DType, bytes: &[u8]) -> Vec<f32> {
    dtype.to_f32_vec(bytes.get(..bytes.len() / dtype.size() * dtype.size()).unwrap_or_default())
}
