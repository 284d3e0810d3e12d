//! The Llama forward pass (Touvron et al. 2023) as a composition of backend operations.
//!
//! Nothing here knows the device. Blocks past the deepest layer asked for are neither loaded nor run, and there is
//! no final norm and no LM head: a layer is the residual stream after its block.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use actbench_kernels::{AttentionShape, Backend, DType, HostTensor};

use super::config::ModelConfig;
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
struct Block<B: Backend> {
    attention_norm: B::Vector,
    query: Projection<B>,
    key_value: Projection<B>,
    attention_output: Projection<B>,
    mlp_norm: B::Vector,
    gate_up: Projection<B>,
    down: Projection<B>,
}

struct Projection<B: Backend> {
    weight: B::Linear,
    bias: Option<B::Vector>,
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
        let table = loader.tensor("embed_tokens.weight", &[config.vocab_size, config.hidden_size])?;
        let embedding = backend.prepare_embedding(&table, options.dtype)?;
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

/// Finds, checks and prepares weights by their Hugging Face names.
struct Loader<'a, B: Backend> {
    backend: &'a B,
    config: &'a ModelConfig,
    weights: &'a Weights,
    dtype: DType,
}

impl<B: Backend> Loader<'_, B> {
    /// A tensor by its name inside the decoder; files of a bare decoder lack the prefix `model.`.
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<HostTensor> {
        let prefixed = format!("model.{name}");
        let bare = !self.weights.contains(&prefixed) && self.weights.contains(name);
        self.weights.tensor(if bare { name } else { &prefixed }, shape)
    }

    fn block(&self, layer: usize) -> Result<Block<B>> {
        let config = self.config;
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let (query, kv) = (config.query_width(), config.kv_width());
        let attention = format!("layers.{layer}.self_attn");
        let mlp = format!("layers.{layer}.mlp");
        let gate_name = format!("{mlp}.gate_proj");
        let up_name = format!("{mlp}.up_proj");
        let gate = self.tensor(&format!("{gate_name}.weight"), &[inner, hidden])?;
        let up = self.tensor(&format!("{up_name}.weight"), &[inner, hidden])?;
        let gate_up = self.named(&gate_name, self.backend.prepare_gated(&gate, &up, self.dtype))?;
        self.weights.release(&gate);
        self.weights.release(&up);
        Ok(Block {
            attention_norm: self.norm(&format!("layers.{layer}.input_layernorm"))?,
            query: self.projection(&attention, &[("q_proj", query)], hidden, config.attention_bias)?,
            key_value: self.projection(&attention, &[("k_proj", kv), ("v_proj", kv)], hidden, config.attention_bias)?,
            attention_output: self.projection(&attention, &[("o_proj", hidden)], query, config.attention_bias)?,
            mlp_norm: self.norm(&format!("layers.{layer}.post_attention_layernorm"))?,
            gate_up: Projection {
                weight: gate_up,
                bias: self.biases(&mlp, &[("gate_proj", inner), ("up_proj", inner)], config.mlp_bias)?,
            },
            down: self.projection(&mlp, &[("down_proj", hidden)], inner, config.mlp_bias)?,
        })
    }

    fn norm(&self, name: &str) -> Result<B::Vector> {
        let name = format!("{name}.weight");
        let scale = self.tensor(&name, &[self.config.hidden_size])?;
        self.named(&name, self.backend.prepare_vector(&[scale], self.dtype))
    }

    /// One projection, or several stacked, of `module`; `parts` are names and output widths.
    fn projection(&self, module: &str, parts: &[(&str, usize)], inputs: usize, bias: bool) -> Result<Projection<B>> {
        let tensors = parts
            .iter()
            .map(|(name, outputs)| self.tensor(&format!("{module}.{name}.weight"), &[*outputs, inputs]))
            .collect::<Result<Vec<_>>>()?;
        let weight = self.named(&parts_name(module, parts), self.backend.prepare_linear(&tensors, self.dtype))?;
        for tensor in &tensors {
            self.weights.release(tensor);
        }
        Ok(Projection { weight, bias: self.biases(module, parts, bias)? })
    }

    fn biases(&self, module: &str, parts: &[(&str, usize)], present: bool) -> Result<Option<B::Vector>> {
        if !present {
            return Ok(None);
        }
        let tensors = parts
            .iter()
            .map(|(name, outputs)| self.tensor(&format!("{module}.{name}.bias"), &[*outputs]))
            .collect::<Result<Vec<_>>>()?;
        self.named(&parts_name(module, parts), self.backend.prepare_vector(&tensors, self.dtype)).map(Some)
    }

    /// A weight that the backend refuses is bad input, and its name belongs in the message.
    fn named<T>(&self, name: &str, prepared: Result<T, actbench_kernels::KernelError>) -> Result<T> {
        prepared.map_err(|error| match error {
            actbench_kernels::KernelError::NotFinite { .. } => {
                Error::input(self.weights.origin(), format!("tensor model.{name}: {error}"))
            }
            other => Error::from(other),
        })
    }
}

fn parts_name(module: &str, parts: &[(&str, usize)]) -> String {
    let names: Vec<&str> = parts.iter().map(|part| part.0).collect();
    format!("{module}.{}", names.join("+"))
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
