//! Measures the rates of this machine in a few seconds: blocks of the model's reduced shape on batches of the run, writing and
//! pooling full features as eager does, a cache file, and a probe.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use actbench_fixtures::presets::Preset;
use actbench_kernels::{CpuBackend, DType, HostTensor};
use bytes::Bytes;
use ndarray::Array2;

use super::calibration::Calibration;
use super::calibration_steps::CalibrationSteps;
use super::job::Job;
use super::probe_work::probe_work;
use super::reduced::{self, BLOCKS};
use super::stored_rates::StoredRates;
use crate::atomic_file::temporary_directory;
use crate::case::{RunConfig, Task};
use crate::error::{Error, Result};
use crate::runner::interrupt;
use crate::workload::layers_of;
use actbench_activations::eager;
use actbench_activations::model::decoder::{Decoder, LoadOptions};
use actbench_activations::model::spec::DecoderSpec;
use actbench_activations::model::weights::Weights;
use actbench_activations::model::{ActivationModel, LayerOutput, ModelStep, SessionEvent};
use actbench_activations::plan::batches::ScheduledBatch;
use actbench_activations::plan::{ActTensor, Acts, Axes, SequenceMask};
use actbench_activations::probe::SplitFeatures;
use actbench_activations::tokens::{TokenSequence, TokenSet};

/// Maximum number of measured batches; the first one is a warm-up.
const BATCHES: usize = 5;
/// No further batch is measured after this number of seconds.
const ENOUGH_S: f64 = 0.5;
/// Vocabulary of the measured model, small because embedding is not measured.
const VOCABULARY: usize = 256;
/// Bytes of full activations that are written, pooled and saved to a file: many times a core's own caches. The cache that cores
/// share may hold them, but first touches of memory are limited by the system, which clears each page. Compared with 96 MiB, the
/// medians of twelve measurements are 4 % lower (writing), 1 % higher (pooling) and 6 % lower (files); with 32 MiB, in which the
/// fixed cost of a file has more weight, files are 34 % slower.
const FULL_BYTES: usize = 64 << 20;
/// Positions of each sample of these.
const POSITIONS: usize = 64;
/// Maximum number of samples of the measured probe.
const MAX_PROBE_SAMPLES: usize = 600;

/// The number of steps of [`measure`].
pub fn n_steps(stored: &StoredRates) -> usize {
    const ALWAYS: usize = 3;
    ALWAYS + if stored.of_both_methods().is_some() { 0 } else { 2 } + usize::from(stored.probe_work.is_none())
}

/// Measures everything that is not in `stored` except the fixed cost of a process, which is left at 0.
///
/// # Errors
/// No memory or threads for the measurement, a directory that cannot be written to, or an interrupt.
pub fn measure(
    job: &Job,
    directory: &Path,
    stored: &StoredRates,
    steps: &mut CalibrationSteps<'_>,
) -> Result<Calibration> {
    let config = &job.config;
    let backend = CpuBackend::new(config.n_threads())?;
    let weight_element = packed_element(&backend, config.dtype)?;
    steps.begin("loading weights")?;
    let blocks = MeasuredBlocks::load(job, backend)?;
    let (lazy_flops, eager_flops) = match stored.of_both_methods() {
        Some(rates) => rates,
        None => {
            let (lazy, eager) = blocks.rates(job, steps)?;
            stored.complete(lazy, eager)
        }
    };
    let (block_s, block_bytes) = (blocks.load_s, blocks.full_bytes);
    drop(blocks);
    steps.begin("writing and pooling activations")?;
    let (full_bytes, pool_bytes, tensor) = host_rates(config, job.model.hidden_size)?;
    steps.begin("cache files")?;
    let (disk_bytes, file_s) = disk_rate(tensor, directory)?;
    let probe_work = match stored.probe_work {
        Some(rate) => rate,
        None => {
            steps.begin("training probes")?;
            probe_rate(config, job)?
        }
    };
    Ok(Calibration {
        gpu: None,
        base_rss: 0,
        base_heap: 0,
        weight_element,
        lazy_flops,
        eager_flops,
        full_bytes,
        pool_bytes,
        disk_bytes,
        file_s,
        probe_work,
        start_s: 0.0,
        block_s,
        block_bytes,
    })
}

/// Loaded blocks of the job's reduced shape.
struct MeasuredBlocks {
    model: Decoder<CpuBackend>,
    /// Number of weights that a token is multiplied with.
    active_weights: usize,
    /// Seconds of loading a block of the full shape.
    load_s: f64,
    /// Bytes of a block of the full shape in bf16.
    full_bytes: f64,
}

impl MeasuredBlocks {
    fn load(job: &Job, backend: CpuBackend) -> Result<Self> {
        let reduced = reduced::model(&job.model, VOCABULARY);
        let tiny = Preset::find("tiny").ok_or_else(|| Error::internal("the preset tiny does not exist"))?;
        let weights = Weights::synthetic(tiny, &reduced, 0);
        let longest = job.longest().into_iter().max().unwrap_or(1) as usize;
        let options = LoadOptions { dtype: job.config.dtype, n_blocks: BLOCKS, max_positions: longest };
        let (loaded, full) = (weights_per_block(&reduced), weights_per_block(&job.model));
        let active_weights = (0..BLOCKS).map(|layer| reduced.linear_flops(layer) as usize / 2).sum();
        let start = Instant::now();
        let model = Decoder::load(backend, reduced, Arc::new(weights), &options, &mut |_, _| ())?;
        let seconds = start.elapsed().as_secs_f64();
        // Loading generates or converts each weight once.
        let load_s = seconds / BLOCKS as f64 * full as f64 / loaded as f64;
        Ok(MeasuredBlocks { model, active_weights, load_s, full_bytes: 2.0 * full as f64 })
    }

    /// The rates of lazy and eager.
    fn rates(&self, job: &Job, steps: &mut CalibrationSteps<'_>) -> Result<(f64, f64)> {
        let config = &job.config;
        let longest = job.longest().into_iter().max().unwrap_or(1) as usize;
        let batch_size = reduced::batch_size(config.batch_size, longest, self.active_weights);
        steps.begin("padded batches")?;
        let tokens = job.train_tokens();
        let padded = eager::batches(tokens, batch_size, &(0..tokens.len()).collect::<Vec<_>>());
        let eager_flops = rate(&self.model, padded.take(BATCHES).collect(), |_| LayerOutput::Tokens)?;
        steps.begin("packed batches")?;
        let task_layers = layers_of(config, *config.tasks.first().unwrap_or(&Task::Train));
        let packed = job.clone().with_batch_size(batch_size).lazy_plan(&task_layers)?.first_batches(BATCHES)?;
        let lazy_flops = rate(&self.model, packed, |scheduled| LayerOutput::Pooled {
            groups: &scheduled.masked,
            last_layer_groups: None,
            method: config.pool,
        })?;
        Ok((lazy_flops, eager_flops))
    }
}

/// Weights of the projections and norms of a block, on average.
fn weights_per_block(model: &DecoderSpec) -> usize {
    let linear: u64 = (0..model.n_layers).map(|layer| model.linear_weights(layer)).sum();
    linear as usize / model.n_layers.max(1) + model.norms_per_block() * model.hidden_size
}

/// Floating-point operations per second over the batches after the first.
fn rate(
    model: &Decoder<CpuBackend>,
    mut batches: Vec<ScheduledBatch>,
    output: impl for<'b> Fn(&'b ScheduledBatch) -> LayerOutput<'b>,
) -> Result<f64> {
    for scheduled in &mut batches {
        // No pruning: nearly all blocks of a real model compute every token. Ids are mapped to the small vocabulary.
        scheduled.batch.last_layer = None;
        scheduled.batch.ids.iter_mut().for_each(|id| *id %= VOCABULARY as u32);
    }
    let layers: Vec<usize> = (0..BLOCKS).collect();
    // Batches continue the prefixes of those before, so one session runs all of them.
    let mut session = model.session(&layers)?;
    let mut run = |scheduled: &ScheduledBatch| -> Result<()> {
        if interrupt::requested() {
            return Err(Error::Interrupted);
        }
        let step = ModelStep { id: 0, batch: scheduled.batch.clone(), output: output(scheduled).to_owned() };
        session.submit(0, step)?;
        while let SessionEvent::Output(mut vectors) = session.next()? {
            vectors.bytes.wait()?;
        }
        Ok(())
    };
    let Some((first, rest)) = batches.split_first() else { return Err(Error::internal("no batch to measure")) };
    run(first)?;
    // With a single batch there is no warm-up.
    let timed = if rest.is_empty() { std::slice::from_ref(first) } else { rest };
    let (start, mut seconds, mut flops) = (Instant::now(), 0.0, 0.0);
    for scheduled in timed {
        run(scheduled)?;
        flops += model.flops(&scheduled.batch, BLOCKS) as f64;
        seconds = start.elapsed().as_secs_f64();
        if seconds >= ENOUGH_S {
            break;
        }
    }
    Ok(flops / seconds)
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

/// Bytes per second of writing and reopening a cache file, and the seconds of a file of one sample.
fn disk_rate(tensor: ActTensor, directory: &Path) -> Result<(f64, f64)> {
    let own = temporary_directory("actbench-plan-", Some(directory))?;
    let bytes = tensor.signature().n_bytes() as f64;
    let time = |acts: &Acts, name: &str| -> Result<f64> {
        let start = Instant::now();
        acts.cache(Some(&own.path().join(name)))?;
        Ok(start.elapsed().as_secs_f64())
    };
    let acts = Acts::from_tensor(tensor);
    let one = acts.slice_batch(0..1)?;
    // The file of a slice has the digest of the complete tensor, whose time a plan over a model does not need.
    let sliced = time(&one, "slice.safetensors")?;
    let large = time(&acts, "large.safetensors")?;
    let file_s = time(&Acts::from_tensor(one.realize()?), "small.safetensors")?;
    Ok((bytes / (large - sliced).max(1e-6), file_s))
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
