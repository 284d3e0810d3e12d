//! Shared code of the benchmarks: seeded tensors at the shapes of real models. No input is zero, because some
//! processors compute faster with zeros.

#[path = "../../kernels/benches/common/settings.rs"]
pub mod criterion;
pub mod device_copies;
pub mod device_time;
pub mod forward_passes;
pub mod gpu_operations;
pub mod primitives;
pub mod replay_model;
// The benchmarks of operations belong to the package of the kernels, so that they build without the harness. What they
// share with those here is in their directory, because the kernels depend on no other crate of the workspace.
#[path = "../../kernels/benches/common/setup.rs"]
mod setup;

use actbench_activations::data;
use actbench_activations::plan::{ActTensor, Axes};
use actbench_activations::text::ChatTokenizer;
use actbench_activations::tokens::TokenSet;
use actbench_kernels::DType;
use bytes::Bytes;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

pub use setup::{random_host, random_tensor, skip_on_error};

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
