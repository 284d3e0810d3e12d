//! The predicted peak memory of a case: the process without it, the weights, a batch, and data.
//!
//! The peak is the larger one of two phases: extraction, with the weights, and training, without them. Bytes of weights,
//! batches and features are those of the engine's memory model, which the check against a memory limit
//! (`workload::footprint`) reads as well.

use actbench_kernels::DType;
use actbench_kernels::cpu::{Isa, allocated_bytes, scratch_bytes};

use super::calibration::Calibration;
use super::job::Job;
use crate::case::{Method, Task};
use crate::workload::layers_of;
use crate::workload::prepare::TOKEN_BYTES;
use crate::workload::score::{matrix_bytes, parallel_layers};
use actbench_activations::model::memory_model::{
    WorkspaceColumns, embedding_bytes, full_feature_bytes, packed_block_bytes, pooled_feature_bytes,
    resident_embedding_bytes, stream_output_buffers, workspace_buffers,
};
use actbench_activations::plan::PlanCost;

/// Bytes of a mapped file that become resident around each byte that is read (`fault_around_bytes` of Linux).
const FAULT_AROUND: u64 = 64 << 10;

/// About how many bytes a tokenizer takes for each token of its vocabulary: measured on that of SmolLM2 (44 MB for 49,152).
pub const TOKENIZER_BYTES: u64 = 900;

/// The predicted memory of a case, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Largest resident size.
    pub rss: u64,
    /// Largest size of the heap.
    pub heap: u64,
    /// Memory of the GPU that would run it.
    pub gpu: u64,
    /// Cache files.
    pub disk: u64,
}

/// Predicts the memory of one case, whose batches were counted as `count`.
pub fn of_case(job: &Job, task: Task, method: Method, count: &PlanCost, calibration: &Calibration) -> Memory {
    let (model, element) = (&job.model, job.config.dtype.size() as u64);
    let layers = layers_of(&job.config, task).len() as u64;
    let on_disk = job.config.caches_on_disk(method);
    let hidden = model.hidden_size as u64;
    let (samples, longest) = (job.samples(), job.longest());
    let all_samples = samples[0] + samples[1];
    let pooled = pooled_feature_bytes(all_samples, layers, hidden, element);
    let full_of = |(samples, longest): (&u64, u64)| full_feature_bytes(*samples, longest, layers, hidden, element);
    let full: u64 = samples.iter().zip(longest).map(full_of).sum();

    // Weights of files and synthetic ones are bf16.
    let embedding = embedding_bytes(model, 2);
    let touched = embedding.min(job.distinct_tokens() * FAULT_AROUND);
    let on_gpu = calibration.gpu.is_some();
    let (heap_embedding, mapped_embedding) = match (on_gpu, job.synthetic_weights) {
        (true, _) => (0, 0),
        (false, true) => (embedding, 0),
        (false, false) => (0, touched),
    };
    let blocks = 0..usize::try_from(count.blocks).unwrap_or(usize::MAX);
    let packed_block = |layer| packed_block_bytes(model, layer, calibration.weight_element, allocated_bytes);
    let packed = blocks.clone().map(packed_block).sum::<u64>();
    let pools_on_device = method != Method::Eager;
    let buffers = workspace_buffers(model, element, &count.largest, count.blocks, layers, pools_on_device);
    let workspace = buffers.iter().copied().map(allocated_bytes).sum::<u64>()
        + activation_copy(job, count.largest.tokens, calibration.weight_element);
    // Each stream has a workspace of its own, and all of them hand their outputs over in further buffers.
    let emitted = if pools_on_device { count.largest.samples } else { count.largest.tokens } * hidden * element;
    let workspace = workspace * count.streams.max(1) + stream_output_buffers(count.streams) * emitted;
    let (weights, workspace) = if on_gpu { (0, 0) } else { (packed, workspace) };
    let features = match (method, task) {
        (Method::Eager, Task::Sweep) => full + pooled,
        _ if on_disk => 0,
        _ => pooled,
    };
    let (tokens, _) = job.tokens();
    let unread = tokens.saturating_mul(TOKEN_BYTES as u64).saturating_add(model.vocab_size as u64 * TOKENIZER_BYTES);
    let base = job.data_bytes.unwrap_or(unread);
    let extraction = base + heap_embedding + weights + workspace + features;
    // Weights and batches are released by then; a file of features is read a layer at a time.
    let held = if on_disk { 0 } else { pooled };
    let layer = matrix_bytes(all_samples as usize, model.hidden_size);
    let matrices = layer * (parallel_layers(job.config.n_threads(), layer) as u64).min(layers);
    let training = base + held + matrices;
    let heap = calibration.base_heap + extraction.max(training);
    // Files that extraction maps in addition to the heap; training reads a layer of features at a time.
    let mapped = if extraction >= training { mapped_embedding } else { 0 };
    let disk = if on_disk { pooled } else { 0 };
    // Buffers of a GPU are not rounded up.
    let gpu_embedding = if job.synthetic_weights {
        embedding_bytes(model, element)
    } else {
        resident_embedding_bytes(model, job.distinct_tokens(), element)
    };
    let gpu_weights = blocks.map(|layer| packed_block_bytes(model, layer, element, |bytes| bytes)).sum::<u64>();
    Memory {
        rss: calibration.base_rss + extraction.max(training) + mapped,
        heap,
        gpu: gpu_embedding + gpu_weights + buffers.iter().sum::<u64>(),
        disk,
    }
}

/// Bytes of the copy of its input that a matmul of `tokens` tokens makes, the largest of a block.
fn activation_copy(job: &Job, tokens: u64, weight_element: u64) -> u64 {
    let (model, run) = (&job.model, job.config.dtype);
    // With AMX, weights of bf16 stay in bf16 when computing in f32.
    let stored = if run == DType::F32 && weight_element == 2 { DType::Bf16 } else { run };
    let rows = usize::try_from(tokens).unwrap_or(usize::MAX);
    let columns = WorkspaceColumns::of(model);
    let of_expert = columns.experts.map_or(0, |experts| experts.gated);
    let widths = [columns.hidden, columns.query, columns.gated, of_expert];
    let copies = widths.map(|width| scratch_bytes(Isa::detect(), run, stored, rows, width));
    allocated_bytes(copies.into_iter().max().unwrap_or(0) as u64)
}
