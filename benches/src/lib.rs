//! Shared code of the benchmarks: seeded tensors at the shapes of real models. No input is zero, because some
//! processors compute faster with zeros.

pub mod criterion;
pub mod device_time;
pub mod forward_passes;
pub mod gpu_operations;
pub mod peak;
pub mod primitives;
pub mod replay_model;

use std::error::Error;

use actbench_activations::data;
use actbench_activations::plan::{ActTensor, Axes};
use actbench_activations::text::ChatTokenizer;
use actbench_activations::tokens::TokenSet;
use actbench_kernels::{Backend, CpuBackend, DType, HostTensor, KernelError};
use bytes::Bytes;
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
    backend.embed(&table, &tokens, &mut tensor)?;
    Ok(tensor)
}

/// The CPU backend on all cores.
///
/// # Errors
/// Its threads cannot be started.
pub fn cpu() -> Result<CpuBackend, KernelError> {
    CpuBackend::new(std::thread::available_parallelism().map_or(1, usize::from))
}

/// Pooled activations `[n_samples, n_layers, hidden_size]`, bf16, of layers `0..n_layers`.
///
/// # Errors
/// The shape overflows.
pub fn random_activations(
    seed: u64,
    n_samples: usize,
    n_layers: usize,
    hidden_size: usize,
) -> actbench_activations::Result<ActTensor> {
    let shape = [n_samples, n_layers, hidden_size];
    let layers: Vec<usize> = (0..n_layers).collect();
    // One sample at a time: all values as f32 would take twice the memory of the result.
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut bytes = Vec::new();
    let mut values = vec![0.0f32; n_layers * hidden_size];
    for _ in 0..n_samples {
        values.iter_mut().for_each(|value| *value = rng.random_range(-1.0f32..1.0));
        bytes.extend(DType::Bf16.from_f32_slice(&values));
    }
    ActTensor::new(Axes::BLH, &shape, DType::Bf16, layers, None, Bytes::from(bytes))
}

/// The dialogues of the embedded data set.
///
/// # Errors
/// An error of the data set.
pub fn embedded_dialogues(rows: usize) -> actbench_activations::Result<Vec<data::Dialogue>> {
    let mut dialogues = data::load("embedded", None, rows)?.dialogues;
    dialogues.truncate(rows);
    Ok(dialogues)
}

/// The embedded data set as tokens of the bundled tokenizer.
///
/// # Errors
/// An error of the data set or the tokenizer.
pub fn embedded_tokens(rows: usize) -> actbench_activations::Result<TokenSet> {
    ChatTokenizer::bundled()?.encode_all(&embedded_dialogues(rows)?)
}

/// Whether criterion only checks that each benchmark runs and measures nothing: with `--test`, or under `cargo test`,
/// which does not pass `--bench` as `cargo bench` does.
pub fn is_smoke_run() -> bool {
    let has_flag = |flag: &str| std::env::args().any(|argument| argument == flag);
    has_flag("--test") || !has_flag("--bench")
}

/// Prints the reason why a benchmark could not be set up, and skips it. Criterion cannot report such an error.
pub fn skip_on_error<E: Into<Box<dyn Error>>>(result: Result<(), E>) {
    if let Err(error) = result {
        eprintln!("skipped: {}", error.into());
    }
}
