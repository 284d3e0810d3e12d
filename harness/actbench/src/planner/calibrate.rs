//! Measures the rates of this machine in a few seconds: blocks of the model's shape on batches of the run, writing and pooling
//! full features as eager does, a cache file, and a probe.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use actbench_fixtures::presets::{LlamaShape, Preset};
use actbench_kernels::{CpuBackend, DType, HostTensor};
use bytes::Bytes;
use ndarray::Array2;

use super::calibration::Calibration;
use super::job::Job;
use super::probe_work::probe_work;
use crate::atomic_file::temporary_directory;
use crate::case::{RunConfig, Task};
use crate::error::{Error, Result};
use crate::workload::layers_of;
use actbench_activations::eager;
use actbench_activations::model::llama::{Llama, LoadOptions};
use actbench_activations::model::weights::Weights;
use actbench_activations::model::{ActivationModel, LayerOutput, TokenBatch};
use actbench_activations::plan::batches::ScheduledBatch;
use actbench_activations::plan::{ActTensor, Acts, Axes, SequenceMask};
use actbench_activations::probe::SplitFeatures;
use actbench_activations::tokens::{TokenSequence, TokenSet};

/// Blocks of the measured model: the first and one more.
const BLOCKS: usize = 2;
/// Measured batches; the first one is a warm-up.
const BATCHES: usize = 5;
/// Vocabulary of the measured model, small because embedding is not measured.
const VOCABULARY: usize = 256;
/// Bytes of full activations that are written, pooled and saved to a file.
const FULL_BYTES: usize = 96 << 20;
/// Positions of each sample of these.
const POSITIONS: usize = 64;
/// Maximum number of samples of the measured probe.
const MAX_PROBE_SAMPLES: usize = 600;

/// Measures everything except the fixed cost of a process, which is left at 0.
///
/// # Errors
/// No memory or threads for the measurement, or a directory that cannot be written to.
pub fn measure(job: &Job, directory: &Path) -> Result<Calibration> {
    let config = &job.config;
    let backend = CpuBackend::new(config.n_threads())?;
    let weight_element = packed_element(&backend, config.dtype)?;
    let shape = LlamaShape {
        vocab_size: VOCABULARY,
        hidden_size: job.model.hidden_size,
        intermediate_size: job.model.intermediate_size,
        n_layers: BLOCKS,
        n_heads: job.model.n_heads,
        n_kv_heads: job.model.n_kv_heads,
        head_dim: job.model.head_dim,
        tie_word_embeddings: true,
    };
    let tiny = Preset::find("tiny").ok_or_else(|| Error::internal("the preset tiny does not exist"))?;
    let weights = Weights::synthetic(&Preset { shape, ..*tiny }, 0);
    let model = actbench_activations::model::config::ModelConfig {
        vocab_size: VOCABULARY,
        n_layers: BLOCKS,
        attention_bias: false,
        mlp_bias: false,
        ..job.model.clone()
    };
    let longest = job.longest().into_iter().max().unwrap_or(1) as usize;
    let options = LoadOptions { dtype: config.dtype, n_blocks: BLOCKS, max_positions: longest };
    let start = Instant::now();
    let model = Llama::load(backend, model, Arc::new(weights), &options, &mut |_, _| ())?;
    let block_s = start.elapsed().as_secs_f64() / BLOCKS as f64;
    let block_weights = shape.tensors().into_iter().filter(|tensor| tensor.name.starts_with("model.layers.0."));
    let block_bytes = block_weights.map(|tensor| 2 * tensor.shape.iter().product::<usize>()).sum::<usize>() as f64;

    let tokens = job.train_tokens();
    let layers: Vec<usize> = (0..BLOCKS).collect();
    let padded = eager::batches(tokens, config.batch_size, &(0..tokens.len()).collect::<Vec<_>>());
    let eager_flops = rate(&model, &layers, padded.take(BATCHES).collect(), |_| LayerOutput::Tokens)?;
    let task_layers = layers_of(config, *config.tasks.first().unwrap_or(&Task::Train));
    let packed = job.train_plan(&task_layers)?.first_batches(BATCHES)?;
    let lazy_flops = rate(&model, &layers, packed, |scheduled| LayerOutput::Pooled {
        groups: &scheduled.masked,
        last_layer_groups: None,
        method: config.pool,
    })?;
    drop(model);
    let (full_bytes, pool_bytes, tensor) = host_rates(config, job.model.hidden_size)?;
    let (disk_bytes, file_s) = disk_rate(tensor, directory)?;
    Ok(Calibration {
        base_rss: 0,
        base_heap: 0,
        weight_element,
        lazy_flops,
        eager_flops,
        full_bytes,
        pool_bytes,
        disk_bytes,
        file_s,
        probe_work: probe_rate(config, job)?,
        start_s: 0.0,
        block_s,
        block_bytes,
    })
}

/// Floating-point operations per second over the batches after the first.
fn rate(
    model: &Llama<CpuBackend>,
    layers: &[usize],
    mut batches: Vec<ScheduledBatch>,
    output: impl for<'b> Fn(&'b ScheduledBatch) -> LayerOutput<'b>,
) -> Result<f64> {
    for scheduled in &mut batches {
        // No pruning: nearly all blocks of a real model compute every token. Ids are mapped to the small vocabulary.
        scheduled.batch.last_layer = None;
        scheduled.batch.ids.iter_mut().for_each(|id| *id %= VOCABULARY as u32);
    }
    let run = |scheduled: &ScheduledBatch| {
        let mut output_bytes = 0u64;
        model.run(&scheduled.batch, layers, output(scheduled), &mut |_, rows| {
            output_bytes += rows.len() as u64;
            Ok(())
        })
    };
    let flops = |batch: &TokenBatch| model.flops(batch, BLOCKS) as f64;
    let Some((first, rest)) = batches.split_first() else { return Err(Error::internal("no batch to measure")) };
    run(first)?;
    // With a single batch there is no warm-up.
    let timed = if rest.is_empty() { std::slice::from_ref(first) } else { rest };
    let start = Instant::now();
    timed.iter().try_for_each(run)?;
    Ok(timed.iter().map(|scheduled| flops(&scheduled.batch)).sum::<f64>() / start.elapsed().as_secs_f64())
}

/// Bytes per element of packed weights that are stored as bf16 and computed in `dtype`.
fn packed_element(backend: &CpuBackend, dtype: DType) -> Result<u64> {
    use actbench_kernels::Backend;
    const EXTENT: usize = 64;
    let values = vec![0.5; EXTENT * EXTENT];
    let packed = backend.prepare_linear(&[HostTensor::from_f32(DType::Bf16, vec![EXTENT, EXTENT], &values)?], dtype)?;
    Ok((packed.bytes() / (EXTENT * EXTENT)) as u64)
}

/// Bytes per second of writing rows to untouched memory as [`eager::extract_full`] does, and of pooling them.
fn host_rates(config: &RunConfig, hidden: usize) -> Result<(f64, f64, ActTensor)> {
    let vector = hidden * config.dtype.size();
    let sample = POSITIONS * vector;
    let samples = (FULL_BYTES / sample).max(2);
    let row: Vec<u8> =
        config.dtype.from_f32_slice(&(0..hidden).map(|column| column as f32 / hidden as f32).collect::<Vec<_>>());
    let start = Instant::now();
    let mut bytes: Vec<u8> = Vec::with_capacity(samples * sample);
    for _ in 0..samples {
        let first = bytes.len();
        bytes.resize(first + sample, 0);
        bytes[first..].chunks_exact_mut(vector).for_each(|out| out.copy_from_slice(&row));
    }
    let full_bytes = bytes.len() as f64 / start.elapsed().as_secs_f64();
    let sequence =
        TokenSequence { ids: vec![0; POSITIONS], mask: (0..POSITIONS).map(|position| position % 2 == 0).collect() };
    let tokens = TokenSet { sequences: vec![sequence; samples] };
    let all: Vec<usize> = (0..samples).collect();
    let mask = SequenceMask::of_tokens(&tokens, &all, POSITIONS);
    let shape = [samples, 1, POSITIONS, hidden];
    let tensor = ActTensor::new(Axes::BLSH, &shape, config.dtype, [0], Some(mask), Bytes::from(bytes))?;
    let start = Instant::now();
    tensor.pool_layer(0, config.pool)?;
    // Half of the positions are masked.
    let pool_bytes = (samples * sample / 2) as f64 / start.elapsed().as_secs_f64();
    Ok((full_bytes, pool_bytes, tensor))
}

/// Bytes per second of writing and reopening a cache file, and the seconds of a small one.
fn disk_rate(tensor: ActTensor, directory: &Path) -> Result<(f64, f64)> {
    let own = temporary_directory("actbench-plan-", Some(directory))?;
    let bytes = tensor.signature().n_bytes() as f64;
    let time = |acts: &Acts, name: &str| -> Result<f64> {
        let start = Instant::now();
        acts.cache(Some(&own.path().join(name)))?;
        Ok(start.elapsed().as_secs_f64())
    };
    let acts = Acts::from_tensor(tensor);
    let small = time(&acts.slice_batch(0..1)?, "small.safetensors")?;
    let large = time(&acts, "large.safetensors")?;
    Ok((bytes / (large - small).max(1e-6), small))
}

/// Units of [`probe_work`] per second, on random features in which one direction roughly separates the labels.
fn probe_rate(config: &RunConfig, job: &Job) -> Result<f64> {
    let samples: u64 = job.samples().iter().sum();
    let samples = (samples as usize).clamp(10, MAX_PROBE_SAMPLES);
    let hidden = job.model.hidden_size;
    let n_train = samples * 4 / 5;
    let labels: Vec<u8> = (0..samples).map(|sample| (sample % 2) as u8).collect();
    let mut state = 1u64;
    let mut noise = move || {
        // A linear congruential generator (Knuth's constants): the features only have to differ.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    let features = Array2::from_shape_fn((samples, hidden), |(sample, column)| {
        noise() + if column % 7 == 0 { 0.2 * (sample % 2) as f32 } else { 0.0 }
    });
    let (train, test) = features.view().split_at(ndarray::Axis(0), n_train);
    let start = Instant::now();
    let split = SplitFeatures::standardized(train, &labels[..n_train], test, &labels[n_train..])?;
    split.score_path(config.solver.solver(), &config.sweep_cs, config.sweep_max_iter)?;
    let work = probe_work(samples as f64, hidden as f64, config.sweep_cs.len());
    Ok(work / start.elapsed().as_secs_f64())
}
