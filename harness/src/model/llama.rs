//! The Llama forward pass (Touvron et al. 2023) as a composition of backend operations.
//!
//! Nothing here knows the device. Blocks past the deepest layer asked for are neither loaded nor run, and there is
//! no final norm and no LM head: a layer is the residual stream after its block.

use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use actbench_kernels::{AttentionShape, Backend, DType, DeviceUse, HostTensor, KernelError};

use super::config::ModelConfig;
use super::loader::{Loader, not_finite, tensor_named};
use super::weights::Weights;
use super::{ActivationModel, DeepestRows, LayerOutput, LayerSink, TokenBatch};
use crate::error::{Error, Result};

/// A model on a backend, ready to run.
pub struct Llama<B: Backend> {
    backend: B,
    config: ModelConfig,
    dtype: DType,
    weights: Arc<Weights>,
    fingerprint: OnceLock<String>,
    embedding: B::Embedding,
    blocks: Vec<Block<B>>,
    cos: B::Vector,
    sin: B::Vector,
    max_positions: usize,
    workspace: Mutex<Option<Workspace<B>>>,
}

/// The weights of one decoder block.
pub(super) struct Block<B: Backend> {
    pub(super) attention_norm: B::Vector,
    pub(super) query: Projection<B>,
    pub(super) key_value: Projection<B>,
    pub(super) attention_output: Projection<B>,
    pub(super) mlp_norm: B::Vector,
    pub(super) gate_up: Projection<B>,
    pub(super) down: Projection<B>,
}

pub(super) struct Projection<B: Backend> {
    pub(super) weight: B::Linear,
    pub(super) bias: Option<B::Vector>,
}

/// Activations, kept between batches.
struct Workspace<B: Backend> {
    stream: B::Tensor,
    /// The rows of `stream` or `normed` that the deepest layer goes on with, where it does not take all.
    few: B::Tensor,
    normed: B::Tensor,
    query: B::Tensor,
    key_value: B::Tensor,
    attended: B::Tensor,
    gated: B::Tensor,
    /// A layer's output with the carried rows behind the own ones.
    joined: B::Tensor,
    pooled: B::Tensor,
    host: Vec<u8>,
    kept: Kept<B>,
}

/// Rows kept for the next batch of the same walk.
struct Kept<B: Backend> {
    walk: u64,
    rows: usize,
    deepest_rows: usize,
    /// Keys and values of each block.
    key_values: Vec<B::Tensor>,
    /// Outputs of each block that was asked for.
    outputs: Vec<B::Tensor>,
}

/// What of a model is loaded.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Storage type of weights and activations; weights in another type are converted once.
    pub dtype: DType,
    /// Blocks to load, from the first on: one more than the deepest layer that will be asked for.
    pub n_blocks: usize,
    /// Tokens of the longest sequence that will be run.
    pub max_positions: usize,
}

impl<B: Backend> Llama<B> {
    /// Loads the embedding and the first blocks. `progress` hears of each block done.
    ///
    /// # Errors
    /// More blocks than the model has; a weight that is missing, has another shape or is not finite; no memory.
    pub fn load(
        backend: B,
        config: ModelConfig,
        weights: Arc<Weights>,
        options: &LoadOptions,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Self> {
        if options.n_blocks > config.n_layers {
            return Err(too_deep(options.n_blocks - 1, config.n_layers));
        }
        let loader = Loader { backend: &backend, config: &config, weights: &weights, dtype: options.dtype };
        let embedding = loader.embedding()?;
        let mut blocks = Vec::with_capacity(options.n_blocks);
        for layer in 0..options.n_blocks {
            progress(layer, options.n_blocks);
            blocks.push(loader.block(layer)?);
        }
        progress(options.n_blocks, options.n_blocks);
        let (cos, sin) = rope_angles(&config, options.max_positions);
        let angles = |values: Vec<f32>| -> Result<B::Vector> {
            // Angles stay in f32 whatever the run's type: in bf16 neighbouring positions would fall together.
            let tensor = HostTensor::from_f32(DType::F32, vec![values.len()], &values)?;
            Ok(backend.prepare_vector(&[tensor], DType::F32)?)
        };
        let (cos, sin) = (angles(cos)?, angles(sin)?);
        Ok(Llama {
            backend,
            config,
            dtype: options.dtype,
            weights,
            fingerprint: OnceLock::new(),
            embedding,
            blocks,
            cos,
            sin,
            max_positions: options.max_positions,
            workspace: Mutex::new(None),
        })
    }

    /// The shape of the model.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn check(&self, batch: &TokenBatch, layers: &[usize]) -> Result<()> {
        if batch.positions.len() != batch.ids.len() {
            return Err(Error::usage(format!("{} ids but {} positions", batch.ids.len(), batch.positions.len())));
        }
        if let Some(position) = batch.positions.iter().find(|position| **position as usize >= self.max_positions) {
            return Err(Error::usage(format!("position {position} where {} were prepared", self.max_positions)));
        }
        if !layers.is_sorted_by(|a, b| a < b) {
            return Err(Error::usage(format!("layers {layers:?} are not increasing")));
        }
        match layers.last() {
            Some(&deepest) if deepest >= self.config.n_layers => Err(too_deep(deepest, self.config.n_layers)),
            Some(&deepest) if deepest >= self.blocks.len() => {
                Err(Error::usage(format!("layer {deepest} where {} blocks were loaded", self.blocks.len())))
            }
            _ => Ok(()),
        }
    }

    /// The table is read row by row as tokens need it, so a broken weight in it shows only now.
    fn embed_error(&self, error: KernelError) -> Error {
        let name = "embed_tokens.weight";
        let shape = [self.config.vocab_size, self.config.hidden_size];
        let bad = || not_finite(&self.weights, name, &tensor_named(&self.weights, name, &shape).ok()?, self.dtype);
        match error {
            KernelError::NotFinite { .. } => bad().unwrap_or(Error::Kernel(error)),
            other => Error::from(other),
        }
    }

    fn new_workspace(&self) -> Result<Workspace<B>> {
        let config = &self.config;
        let alloc = |columns: usize| self.backend.alloc(self.dtype, 0, columns);
        Ok(Workspace {
            stream: alloc(config.hidden_size)?,
            normed: alloc(config.hidden_size)?,
            query: alloc(config.query_width())?,
            key_value: alloc(2 * config.kv_width())?,
            attended: alloc(config.query_width())?,
            gated: alloc(config.intermediate_size)?,
            few: alloc(config.hidden_size)?,
            joined: alloc(config.hidden_size)?,
            pooled: alloc(config.hidden_size)?,
            host: Vec::new(),
            kept: Kept {
                walk: 0,
                rows: 0,
                deepest_rows: 0,
                key_values: self.blocks.iter().map(|_| alloc(2 * config.kv_width())).collect::<Result<_, _>>()?,
                outputs: self.blocks.iter().map(|_| alloc(config.hidden_size)).collect::<Result<_, _>>()?,
            },
        })
    }

    /// One decoder block: `stream += attention(norm(stream))`, then `stream += mlp(norm(stream))`.
    ///
    /// With `few`, keys and values are computed for all rows and everything after them for the wanted rows alone;
    /// the stream then holds those.
    fn run_block(
        &self,
        layer: usize,
        batch: &TokenBatch,
        few: Option<&DeepestRows>,
        work: &mut Workspace<B>,
    ) -> Result<()> {
        let (backend, config, block) = (&self.backend, &self.config, &self.blocks[layer]);
        let shape =
            AttentionShape { n_heads: config.n_heads, n_kv_heads: config.n_kv_heads, head_dim: config.head_dim };
        let eps = config.rms_norm_eps;
        let rope = |tensor: &mut B::Tensor, heads: usize, positions: &[u32]| {
            backend.rope(tensor, heads, shape.head_dim, positions, &self.cos, &self.sin)
        };
        backend.rms_norm(&work.stream, &block.attention_norm, eps, &mut work.normed)?;

        let own = batch.ids.len();
        backend.resize(&mut work.key_value, own + batch.n_carried)?;
        let key_value = &block.key_value;
        backend.linear(&work.normed, &key_value.weight, key_value.bias.as_ref(), &mut work.key_value)?;
        rope(&mut work.key_value, shape.n_kv_heads, &batch.positions)?;
        let kept = &mut work.kept.key_values[layer];
        backend.copy_rows(kept, 0, batch.n_carried, &mut work.key_value, own)?;
        backend.resize(kept, batch.keep.len())?;
        backend.gather_rows(&work.key_value, &batch.keep, kept)?;

        let mut layout = &batch.layout;
        let mut few_positions = Vec::new();
        if let Some(few) = few {
            layout = &few.layout;
            few_positions.extend(few.rows.iter().map(|row| batch.positions[*row as usize]));
            for tensor in [&mut work.stream, &mut work.normed] {
                backend.resize(&mut work.few, few.rows.len())?;
                backend.gather_rows(tensor, &few.rows, &mut work.few)?;
                std::mem::swap(tensor, &mut work.few);
            }
            for tensor in [&mut work.query, &mut work.attended, &mut work.gated] {
                backend.resize(tensor, few.rows.len())?;
            }
        }
        let positions = if few.is_some() { &few_positions } else { &batch.positions };

        backend.linear(&work.normed, &block.query.weight, block.query.bias.as_ref(), &mut work.query)?;
        rope(&mut work.query, shape.n_heads, positions)?;
        backend.attention(&work.query, &work.key_value, layout, shape, &mut work.attended)?;
        let output = &block.attention_output;
        backend.linear_residual(&work.attended, &output.weight, output.bias.as_ref(), &mut work.stream)?;
        backend.rms_norm(&work.stream, &block.mlp_norm, eps, &mut work.normed)?;
        backend.linear_swiglu(&work.normed, &block.gate_up.weight, block.gate_up.bias.as_ref(), &mut work.gated)?;
        backend.linear_residual(&work.gated, &block.down.weight, block.down.bias.as_ref(), &mut work.stream)?;
        Ok(())
    }

    /// Puts the carried rows of a layer's output behind the own ones, and keeps those the next batch needs.
    fn join_carried(
        &self,
        layer: usize,
        own: usize,
        carried: usize,
        keep: &[u32],
        work: &mut Workspace<B>,
    ) -> Result<()> {
        let kept = &mut work.kept.outputs[layer];
        self.backend.resize(&mut work.joined, own + carried)?;
        self.backend.copy_rows(&work.stream, 0, own, &mut work.joined, 0)?;
        self.backend.copy_rows(kept, 0, carried, &mut work.joined, own)?;
        self.backend.resize(kept, keep.len())?;
        self.backend.gather_rows(&work.joined, keep, kept)?;
        Ok(())
    }

    /// Brings a layer's output to the host and hands it on.
    fn hand_out(
        &self,
        layer: usize,
        batch: &TokenBatch,
        few: Option<&DeepestRows>,
        output: LayerOutput<'_>,
        work: &mut Workspace<B>,
        sink: &mut LayerSink<'_>,
    ) -> Result<()> {
        let row_bytes = self.config.hidden_size * self.dtype.size();
        let (own, carried, keep) = match few {
            Some(few) => (few.rows.len(), few.n_carried, &few.keep),
            None => (batch.ids.len(), batch.n_carried, &batch.keep),
        };
        let joined = carried > 0 || !keep.is_empty();
        if joined {
            self.join_carried(layer, own, carried, keep, work)?;
        }
        let all = if joined { &work.joined } else { &work.stream };
        let (source, rows) = match output {
            LayerOutput::Rows => (all, own + carried),
            LayerOutput::Pooled { groups, deepest_groups, method } => {
                let groups = few.and(deepest_groups).unwrap_or(groups);
                self.backend.resize(&mut work.pooled, groups.len())?;
                self.backend.pool(all, groups, method, &mut work.pooled)?;
                (&work.pooled, groups.len())
            }
        };
        work.host.resize(rows * row_bytes, 0);
        self.backend.download(source, rows, &mut work.host)?;
        sink(layer, &work.host)
    }

    /// Makes sure that the rows `batch` stands on are those that the last batch kept.
    fn check_carried(&self, batch: &TokenBatch, kept: &Kept<B>) -> Result<()> {
        let deepest = batch.deepest.as_ref().map_or(0, |deepest| deepest.n_carried);
        let nothing = batch.n_carried == 0 && deepest == 0;
        if nothing || (kept.walk == batch.walk && kept.rows == batch.n_carried && kept.deepest_rows == deepest) {
            return Ok(());
        }
        Err(Error::usage("a batch stands on rows of another walk: batches of two plans were mixed"))
    }
}

impl<B: Backend> ActivationModel for Llama<B> {
    fn n_layers(&self) -> usize {
        self.config.n_layers
    }

    fn hidden_size(&self) -> usize {
        self.config.hidden_size
    }

    fn vocab_size(&self) -> usize {
        self.config.vocab_size
    }

    fn dtype(&self) -> DType {
        self.dtype
    }

    fn fingerprint(&self) -> &str {
        self.fingerprint.get_or_init(|| {
            let (config, kernel, weights) = (&self.config, self.backend.kernel_id(), self.weights.fingerprint());
            blake3::hash(format!("{config:?} {} {kernel} {weights}", self.dtype).as_bytes()).to_hex().to_string()
        })
    }

    fn describe(&self) -> String {
        format!(
            "llama, {} layers x {} in {} on {}",
            self.config.n_layers,
            self.config.hidden_size,
            self.dtype,
            self.backend.describe()
        )
    }

    fn flops(&self, batch: &TokenBatch, n_blocks: usize) -> u64 {
        self.config.flops(batch, n_blocks)
    }

    fn device_use(&self) -> Result<Option<DeviceUse>> {
        Ok(self.backend.device_use()?)
    }

    fn reset_device_use(&self) -> Result<()> {
        Ok(self.backend.reset_device_use()?)
    }

    fn run(
        &self,
        batch: &TokenBatch,
        layers: &[usize],
        output: LayerOutput<'_>,
        sink: &mut LayerSink<'_>,
    ) -> Result<()> {
        self.check(batch, layers)?;
        let Some(&deepest) = layers.last() else { return Ok(()) };
        // A panic elsewhere leaves nothing in a workspace that the next batch would read.
        let mut slot = self.workspace.lock().unwrap_or_else(PoisonError::into_inner);
        let work = match slot.as_mut() {
            Some(work) => work,
            None => slot.insert(self.new_workspace()?),
        };
        self.check_carried(batch, &work.kept)?;
        let rows = batch.ids.len();
        for tensor in [&mut work.stream, &mut work.normed, &mut work.query, &mut work.attended, &mut work.gated] {
            self.backend.resize(tensor, rows)?;
        }
        self.backend.embed(&self.embedding, &batch.ids, &mut work.stream).map_err(|error| self.embed_error(error))?;
        let mut wanted = layers.iter().peekable();
        for layer in 0..=deepest {
            let few = batch.deepest.as_ref().filter(|_| layer == deepest);
            self.run_block(layer, batch, few, work)?;
            if wanted.next_if_eq(&&layer).is_some() {
                self.hand_out(layer, batch, few, output, work, sink)?;
            }
        }
        work.kept.walk = batch.walk;
        work.kept.rows = batch.keep.len();
        work.kept.deepest_rows = batch.deepest.as_ref().map_or(0, |deepest| deepest.keep.len());
        Ok(())
    }
}

/// Cosines and sines of all angles, `[positions, head_dim / 2]`, each angle one `f32` product as in transformers.
fn rope_angles(config: &ModelConfig, positions: usize) -> (Vec<f32>, Vec<f32>) {
    let frequencies = config.rope_frequencies();
    let angles = |positions: Range<usize>| {
        positions.flat_map(|position| frequencies.iter().map(move |frequency| position as f32 * frequency))
    };
    (angles(0..positions).map(f32::cos).collect(), angles(0..positions).map(f32::sin).collect())
}

/// The one wording for a layer that the model does not have.
pub fn too_deep(layer: usize, n_layers: usize) -> Error {
    Error::usage(format!(
        "layer {layer} is too deep: the model has {n_layers} layers, 0 to {}",
        n_layers.saturating_sub(1)
    ))
}
