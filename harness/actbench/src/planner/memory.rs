//! Bytes that a case holds at its largest: what the process is without it, the weights, a batch, and what grows with the data.
//!
//! The peak is that of two phases: extraction, with the weights, and training, without them. What the program does while it
//! runs to keep a case within a limit (`workload::footprint`) counts the same things from the memory that is there then.

use actbench_kernels::cpu::allocated_bytes;

use super::calibration::Calibration;
use super::job::Job;
use crate::case::{Method, Task};
use crate::workload::layers_of;
use crate::workload::score::{matrix_bytes, parallel_layers};
use actbench_activations::model::config::ModelConfig;
use actbench_activations::plan::PlanCost;

/// Outputs of a panel of packed weights, and inputs of one of bf16: what both are rounded up to.
const PANEL: u64 = 32;

/// Bytes of a file that are made resident around each that is read (`fault_around_bytes` of Linux).
const FAULT_AROUND: u64 = 64 << 10;

/// Bytes that a batch's results may take before it is handed out; see `acts::sources`.
const BATCH_RESULT_BYTES: u64 = 8 << 20;

/// Bytes of a token of the data: id and mask, and what sequences take beside them.
const TOKEN_BYTES: u64 = 8;

/// Bytes that a tokenizer takes for each token that it knows, about: what SmolLM2's takes (44 MB for 49,152).
pub const TOKENIZER_BYTES: u64 = 900;

/// What a case takes, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Largest resident size.
    pub rss: u64,
    /// Largest size of the heap.
    pub heap: u64,
    /// Memory of a GPU that would run it.
    pub gpu: u64,
    /// Cache files.
    pub disk: u64,
}

/// Of one case, whose batches were counted as `count`.
pub fn of_case(job: &Job, task: Task, method: Method, count: &PlanCost, calibration: &Calibration) -> Memory {
    let (model, element) = (&job.model, job.config.dtype.size() as u64);
    let layers = layers_of(&job.config, task).len() as u64;
    let on_disk = job.config.caches_on_disk(method);
    let vector = model.hidden_size as u64 * element;
    let (samples, longest) = (job.samples(), job.longest());
    let all_samples = samples[0] + samples[1];
    let pooled = all_samples * layers * vector;
    let full: u64 = samples.iter().zip(longest).map(|(samples, longest)| samples * longest * layers * vector).sum();

    let embedding = (model.vocab_size * model.hidden_size) as u64 * 2;
    let touched = embedding.min(job.distinct_tokens() * FAULT_AROUND);
    let (heap_embedding, mapped_embedding) = if job.synthetic_weights { (embedding, 0) } else { (0, touched) };
    let weights = block_bytes(model, calibration.weight_element, allocated_bytes) * count.blocks;
    let buffers = workspace(job, method, count, layers);
    let workspace = buffers.iter().copied().map(allocated_bytes).sum::<u64>();
    let features = match (method, task) {
        (Method::Eager, Task::Sweep) => full + pooled,
        _ if on_disk => 0,
        _ => pooled,
    };
    let (tokens, _) = job.tokens();
    let unread = tokens * TOKEN_BYTES + model.vocab_size as u64 * TOKENIZER_BYTES;
    let base = job.data_bytes.unwrap_or(unread);
    let extraction = base + heap_embedding + weights + workspace + features;
    // The weights are gone by then, and so is a batch; a file of features is read a layer at a time.
    let held = if on_disk { 0 } else { pooled };
    let layer = matrix_bytes(all_samples as usize, model.hidden_size);
    let matrices = layer * (parallel_layers(job.config.n_threads(), layer) as u64).min(layers);
    let training = base + held + matrices;
    let heap = calibration.base_heap + extraction.max(training);
    // What extraction maps of files beside the heap; for training the pages of the layer that is read.
    let mapped = if extraction >= training { mapped_embedding } else { 0 };
    let disk = if on_disk { pooled } else { 0 };
    // A GPU's buffers are as long as what is in them.
    let plain_weights = block_bytes(model, element, |bytes| bytes) * count.blocks;
    Memory {
        rss: calibration.base_rss + extraction.max(training) + mapped,
        heap,
        gpu: (model.vocab_size * model.hidden_size) as u64 * element + plain_weights + buffers.iter().sum::<u64>(),
        disk,
    }
}

/// Bytes of one block's weights, packed in elements of `element` bytes, where a buffer takes what `allocated` says.
fn block_bytes(model: &ModelConfig, element: u64, allocated: impl Fn(u64) -> u64) -> u64 {
    let (hidden, inner) = (model.hidden_size as u64, model.intermediate_size as u64);
    let (query, kv) = (model.query_width() as u64, model.kv_width() as u64);
    let packed = |outputs: u64, inputs: u64| {
        allocated(outputs.next_multiple_of(PANEL) * inputs.next_multiple_of(PANEL) * element)
    };
    let attention = packed(query, hidden) + packed(2 * kv, hidden) + packed(hidden, query);
    let norms = 2 * hidden * 4;
    // Gate and up lie in one panel, half of it each.
    attention + packed(2 * inner, hidden) + packed(hidden, inner) + norms
}

/// Bytes of each of a model's buffers: they grow to the largest batch and are kept.
fn workspace(job: &Job, method: Method, count: &PlanCost, layers: u64) -> Vec<u64> {
    let (model, element) = (&job.model, job.config.dtype.size() as u64);
    let (hidden, inner) = (model.hidden_size as u64, model.intermediate_size as u64);
    let (query, kv) = (model.query_width() as u64, 2 * model.kv_width() as u64);
    let batch = count.largest;
    let pooled = method != Method::Eager;
    let handed_out = if pooled { batch.samples * hidden } else { batch.rows * hidden };
    // Stream and norm, queries and attention's output, gate times up; keys and values of carried rows too.
    let mut elements = vec![batch.rows * hidden; 2];
    elements.extend([batch.rows * query; 2]);
    elements.extend([batch.rows * inner, (batch.rows + batch.carried) * kv, handed_out]);
    // Rows kept for the next batch: keys and values of each block, outputs of each layer.
    elements.extend((0..count.blocks).map(|_| batch.kept * kv));
    elements.extend((0..layers).map(|_| batch.kept * hidden));
    if pooled {
        // The deepest block's rows, a layer's output with the carried rows, and pooled vectors.
        elements.extend([batch.rows * hidden, handed_out]);
        if batch.kept + batch.carried > 0 {
            elements.push((batch.rows + batch.carried) * hidden);
        }
    }
    let results = if pooled { (batch.samples * layers * hidden * element).min(BATCH_RESULT_BYTES) } else { 0 };
    elements.into_iter().map(|elements| elements * element).chain([results]).collect()
}
