//! Activations of language models: from labeled dialogues to tokens, pooled features and linear probes.
//!
//! A decoder-only model (Llama architecture) runs on dialogues, and the hidden states of chosen layers become features.
//! Two methods compute them with bit-identical results: a lazy [`plan`], which describes the activations, is
//! optimized as a whole and streams its result, and the [`eager`] baseline, which materializes every tensor.
//!
//! # Pipeline
//!
//! ```text
//! data ──> text ──> tokens ──> model ──> plan or eager ──> probe
//! dialogues  chat template     forward   pooled features    logistic regression,
//! + labels   + mask            pass      [samples, hidden]  AUROC
//! ```
//!
//! # Example
//!
//! The mean-pooled activations of layer 2 of the embedded model, for eight dialogues:
//!
//! ```
//! use std::sync::Arc;
//!
//! use actbench_activations::{Acts, Axis, CpuBackend, DType, MaskKind, OpenModel, data};
//!
//! # fn main() -> actbench_activations::Result<()> {
//! let dialogues = data::load("embedded", None, 8)?.dialogues;
//! let opened = OpenModel::open(None, MaskKind::Assistant, true)?;
//! let tokens = opened.tokenizer.encode_all(&dialogues)?;
//! let backend = CpuBackend::new(2)?;
//! let model = opened.load_over(vec![backend], DType::Bf16, 2, tokens.max_len(), &mut |_, _| ())?;
//!
//! let plan = Acts::collect(Arc::new(model), Arc::new(tokens), &[2], 8)?;
//! let pooled = plan.select_layer(2)?.mean_pool(Axis::Sequence)?.realize()?;
//! assert_eq!(pooled.shape(), [8, opened.spec.hidden_size]);
//! # Ok(())
//! # }
//! ```
//!
//! `examples/pool_layer.rs` writes such features to a safetensors file, `examples/train_probe.rs` trains a probe on
//! them.
//!
//! # Modules
//!
//! Data flows from top to bottom; a module uses only modules above it.
//!
//! | module | content |
//! |---|---|
//! | [`error`] | the error type, with the exit statuses of a process |
//! | [`progress`] | progress bars on standard error |
//! | [`panics`] | panics of libraries as values |
//! | [`tokens`] | token sequences with masks |
//! | [`hub`] | the client of the Hugging Face hub, and its cache |
//! | [`data`] | data sets: embedded generator, JSON Lines, CSV, Parquet, Hugging Face hub; stratified split |
//! | [`text`] | tokenizers and chat templates; the mask of the assistant's tokens |
//! | [`import`] | conversion of GGUF files to model directories |
//! | [`model`] | model directories, weights, and the forward pass on one or several devices |
//! | [`plan`] | lazy plans: optimizer, batches, prefix sharing, cache files |
//! | [`eager`] | the eager baseline |
//! | [`probe`] | standardization, logistic regression, AUROC |
//!
//! # Not part of this crate
//!
//! - **Benchmarks.** It measures no time, repeats nothing and writes no report; `actbench` does.
//! - **Command lines.** It has no argument parser. Some messages name a flag of `actbench` as the remedy.
//! - **Devices.** Operations come from a [`Backend`](actbench_kernels::Backend); plans and probes are the same for all.
//! - **Training and generation.** Models are only run forward on given tokens; the only training is that of probes.

#![warn(clippy::print_stdout)]

pub mod data;
pub mod eager;
pub mod error;
pub mod hub;
pub mod import;
mod lfs;
pub mod model;
pub mod panics;
pub mod plan;
pub mod probe;
pub mod progress;
mod python_json;
pub mod text;
pub mod tokens;
pub mod units;

pub use actbench_kernels::{CpuBackend, DType};

pub use error::{Error, Result};
pub use model::open::OpenModel;
pub use plan::{Acts, Axis};
pub use text::MaskKind;
