//! The Llama forward pass (Touvron et al. 2023) as a composition of backend operations.
//!
//! Nothing here knows the device. Blocks past the deepest layer asked for are neither loaded nor run, and there is
//! no final norm and no LM head: a layer is the residual stream after its block.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use actbench_kernels::{AttentionShape, Backend, DType, HostTensor};

use super::config::ModelConfig;
use super::loader::Loader;
use super::weights::Weights;
use super::{ActivationModel, LayerOutput, LayerSink, TokenBatch};
use crate::error::{Error, Result};

/// A model on a backend, ready to run.
pub struct Llama<B: Backend> {
    backend: B,
    config: ModelConfig,
    dtype: DType,
    fingerprint: String,
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
    normed: B::Tensor,
    query: B::Tensor,
    key_value: B::Tensor,
    attended: B::Tensor,
    gated: B::Tensor,
    pooled: B::Tensor,
    host: Vec<u8>,
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
        weights: &Weights,
        options: &LoadOptions,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Self> {
        if options.n_blocks > config.n_layers {
            return Err(too_deep(options.n_blocks - 1, config.n_layers));
        }
        let loader = Loader { backend: &backend, config: &config, weights, dtype: options.dtype };
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
        let fingerprint = blake3::hash(
            format!("{config:?} {} {} {}", options.dtype, backend.kernel_id(), weights.fingerprint()?).as_bytes(),
        )
        .to_hex()
        .to_string();
        Ok(Llama {
            backend,
            config,
            dtype: options.dtype,
            fingerprint,
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
            pooled: alloc(config.hidden_size)?,
            host: Vec::new(),
        })
    }

    /// One decoder block: `stream += attention(norm(stream))`, then `stream += mlp(norm(stream))`.
    fn run_block(&self, block: &Block<B>, batch: &TokenBatch, work: &mut Workspace<B>) -> Result<()> {
        let (backend, config) = (&self.backend, &self.config);
        let shape =
            AttentionShape { n_heads: config.n_heads, n_kv_heads: config.n_kv_heads, head_dim: config.head_dim };
        let eps = config.rms_norm_eps;
        backend.rms_norm(&work.stream, &block.attention_norm, eps, &mut work.normed)?;
        backend.linear(&work.normed, &block.query.weight, block.query.bias.as_ref(), &mut work.query)?;
        let key_value = &block.key_value;
        backend.linear(&work.normed, &key_value.weight, key_value.bias.as_ref(), &mut work.key_value)?;
        for (tensor, heads) in [(&mut work.query, shape.n_heads), (&mut work.key_value, shape.n_kv_heads)] {
            backend.rope(tensor, heads, shape.head_dim, &batch.positions, &self.cos, &self.sin)?;
        }
        backend.attention(&work.query, &work.key_value, &batch.layout, shape, &mut work.attended)?;
        let output = &block.attention_output;
        backend.linear_residual(&work.attended, &output.weight, output.bias.as_ref(), &mut work.stream)?;
        backend.rms_norm(&work.stream, &block.mlp_norm, eps, &mut work.normed)?;
        backend.linear_swiglu(&work.normed, &block.gate_up.weight, block.gate_up.bias.as_ref(), &mut work.gated)?;
        backend.linear_residual(&work.gated, &block.down.weight, block.down.bias.as_ref(), &mut work.stream)?;
        Ok(())
    }

    /// Brings a layer's output to the host and hands it on.
    fn hand_out(
        &self,
        layer: usize,
        output: LayerOutput<'_>,
        work: &mut Workspace<B>,
        n_rows: usize,
        sink: &mut LayerSink<'_>,
    ) -> Result<()> {
        let row_bytes = self.config.hidden_size * self.dtype.size();
        let (source, rows) = match output {
            LayerOutput::Rows => (&work.stream, n_rows),
            LayerOutput::Pooled { groups, method } => {
                self.backend.resize(&mut work.pooled, groups.len())?;
                self.backend.pool(&work.stream, groups, method, &mut work.pooled)?;
                (&work.pooled, groups.len())
            }
        };
        work.host.resize(rows * row_bytes, 0);
        self.backend.download(source, rows, &mut work.host)?;
        sink(layer, &work.host)
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
        &self.fingerprint
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

    fn flops_per_token(&self, n_blocks: usize) -> u64 {
        self.config.linear_flops_per_block() * n_blocks as u64
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
        let rows = batch.ids.len();
        for tensor in [
            &mut work.stream,
            &mut work.normed,
            &mut work.query,
            &mut work.key_value,
            &mut work.attended,
            &mut work.gated,
        ] {
            self.backend.resize(tensor, rows)?;
        }
        self.backend.embed(&self.embedding, &batch.ids, &mut work.stream)?;
        let mut wanted = layers.iter().peekable();
        for (layer, block) in self.blocks[..=deepest].iter().enumerate() {
            self.run_block(block, batch, work)?;
            if wanted.next_if_eq(&&layer).is_some() {
                self.hand_out(layer, output, work, rows, sink)?;
            }
        }
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
