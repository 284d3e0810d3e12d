//! Consecutive blocks of a model on one device, and the forward pass through them.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use actbench_kernels::{Activation, AttentionShape, Backend, DType, HostTensor, KernelError, PendingCopy, ScoreRule};

use super::load_options::LoadOptions;
use super::output_sink::OutputSink;
use super::weights::DecoderBlock;
use super::workspace::{PrefixCache, Workspace};
use crate::error::{Error, Result};
use crate::model::config::ModelConfig;
use crate::model::loader::{WeightLoader, embedding_table, not_finite};
use crate::model::memory_model::{prefix_cache_bytes, token_bytes};
use crate::model::weights::Weights;
use crate::model::{LastLayerTokens, LayerOutput, ModelStep, TokenBatch};

/// The fraction of free memory that batches may fill: their tensors grow one after the other, and memory pools grow in
/// steps.
const USABLE_FRACTION: f64 = 0.8;

/// Consecutive blocks on a device.
pub(super) struct PipelineStage<B: Backend> {
    pub(super) backend: B,
    config: ModelConfig,
    dtype: DType,
    weights: Arc<Weights>,
    max_positions: usize,
    /// The number of the first block.
    pub(super) first: usize,
    blocks: Vec<DecoderBlock<B>>,
    /// The embedding table, on the first stage alone.
    embedding: Option<B::Embedding>,
    cos: B::Vector,
    sin: B::Vector,
    workspace: Mutex<Option<Workspace<B>>>,
}

impl<B: Backend> PipelineStage<B> {
    /// Loads blocks `blocks`, and the embedding if the first block of the model is among them. `progress` is called before
    /// each block.
    pub(super) fn load(
        backend: B,
        config: &ModelConfig,
        weights: &Arc<Weights>,
        options: &LoadOptions,
        blocks: Range<usize>,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Self> {
        let loader = WeightLoader { backend: &backend, config, weights, dtype: options.dtype };
        let first = blocks.start;
        let embedding = (first == 0).then(|| loader.embedding()).transpose()?;
        let mut loaded = Vec::with_capacity(blocks.len());
        for layer in blocks {
            progress(layer, options.n_blocks);
            loaded.push(loader.block(layer)?);
        }
        let (cos, sin) = rope_angles(config, options.max_positions);
        let angles = |values: Vec<f32>| -> Result<B::Vector> {
            // Angles stay in f32 whatever the run's type: in bf16 neighboring positions would have equal angles.
            let tensor = HostTensor::from_f32(DType::F32, vec![values.len()], &values)?;
            Ok(backend.prepare_vector(&[tensor], DType::F32)?)
        };
        let (cos, sin) = (angles(cos)?, angles(sin)?);
        Ok(PipelineStage {
            backend,
            config: config.clone(),
            dtype: options.dtype,
            weights: weights.clone(),
            max_positions: options.max_positions,
            first,
            blocks: loaded,
            embedding,
            cos,
            sin,
            workspace: Mutex::new(None),
        })
    }

    /// Drops the workspace, cached prefixes included, and gives the tokens of a batch that the free memory of the device
    /// can take.
    pub(super) fn release_and_measure_capacity(&self) -> Result<Option<usize>> {
        // Buffers of earlier batches are freed first: their memory is available to later batches.
        *self.workspace.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let Some(free) = self.backend.free_memory()? else { return Ok(None) };
        let cache = prefix_cache_bytes(&self.config, self.dtype, self.blocks.len(), self.max_positions);
        let usable = (USABLE_FRACTION * free as f64) as u64;
        let tokens = usable.saturating_sub(cache) / token_bytes(&self.config, self.dtype);
        Ok(Some(usize::try_from(tokens).unwrap_or(usize::MAX)))
    }

    /// Runs `step` through the blocks of this stage up to the deepest of `layers` and emits the outputs of those in
    /// `layers` to `outputs`. `input` is the residual stream of the stage before; none for the first.
    ///
    /// # Returns
    /// The residual stream, `[own tokens, hidden]`, if deeper blocks are on the next stage.
    pub(super) fn run(
        &self,
        step: &ModelStep,
        input: Option<&[u8]>,
        layers: &[usize],
        outputs: &mut dyn OutputSink,
    ) -> Result<Option<Vec<u8>>> {
        // A poisoned workspace may be used: a batch overwrites its buffers before it reads them, and the prefix cache is
        // checked.
        let mut slot = self.workspace.lock().unwrap_or_else(PoisonError::into_inner);
        let work = match slot.as_mut() {
            Some(work) => work,
            None => slot.insert(Workspace::new(&self.backend, &self.config, self.dtype, self.blocks.len())?),
        };
        let ran = self.run_in(work, step, input, layers, outputs);
        if let Err(Error::Kernel(KernelError::OutOfMemory { .. })) = &ran {
            // Frees the memory for the smaller batches that the plan tries next.
            *slot = None;
        }
        ran
    }

    fn run_in(
        &self,
        work: &mut Workspace<B>,
        step: &ModelStep,
        input: Option<&[u8]>,
        layers: &[usize],
        outputs: &mut dyn OutputSink,
    ) -> Result<Option<Vec<u8>>> {
        let batch = &step.batch;
        let Some(&deepest) = layers.last() else { return Ok(None) };
        check_cached_prefix(batch, &work.prefix_cache)?;
        let n_tokens = batch.ids.len();
        for tensor in [&mut work.stream, &mut work.normed, &mut work.query, &mut work.attended, &mut work.gated] {
            self.backend.resize(tensor, n_tokens)?;
        }
        match (&self.embedding, input) {
            (Some(embedding), None) => {
                let embedded = self.backend.embed(embedding, &batch.ids, 1.0, &mut work.stream);
                embedded.map_err(|error| self.embed_error(error))?;
            }
            (None, Some(input)) => self.backend.upload(input, &mut work.stream)?,
            _ => return Err(Error::internal("a pipeline stage received the input of another")),
        }
        let last = deepest.min(self.first + self.blocks.len() - 1);
        let pruned_in = |layer: usize| batch.last_layer.as_ref().filter(|_| layer == deepest);
        let mut layer = self.first;
        while layer <= last {
            // Up to the next block with an output, so that the backend can group the launches of several blocks.
            let emitting = layers.iter().copied().find(|asked| *asked >= layer).filter(|asked| *asked <= last);
            let end = emitting.unwrap_or(last);
            let mut blocks =
                || (layer..=end).try_for_each(|layer| self.run_block(layer, batch, pruned_in(layer), work));
            self.backend.launch_grouped(layer, n_tokens, &mut blocks)?;
            if emitting.is_some() {
                self.emit(end, step, pruned_in(end), work, outputs)?;
            }
            layer = end + 1;
        }
        work.prefix_cache.session = batch.session;
        work.prefix_cache.n_tokens = batch.keep.len();
        work.prefix_cache.n_last_layer_tokens = batch.last_layer.as_ref().map_or(0, |last| last.keep.len());
        if last == deepest {
            return Ok(None);
        }
        let mut stream = vec![0; n_tokens * self.config.hidden_size * self.dtype.size()];
        self.backend.download(&work.stream, n_tokens, &mut stream)?;
        Ok(Some(stream))
    }

    /// Rows of the embedding table are read as tokens need them, so a weight that is not finite is found only here.
    fn embed_error(&self, error: KernelError) -> Error {
        let named = || {
            let (name, table) = embedding_table(&self.config, &self.weights).ok()?;
            not_finite(&self.weights, name, &table, self.dtype)
        };
        match error {
            KernelError::NotFinite { .. } => named().unwrap_or(Error::Kernel(error)),
            other => Error::from(other),
        }
    }

    /// One decoder block: `stream += attention(norm(stream))`, then `stream += mlp(norm(stream))`.
    ///
    /// With `pruned`, keys and values are computed for all tokens and everything after them for the tokens left; the stream
    /// then holds those.
    fn run_block(
        &self,
        layer: usize,
        batch: &TokenBatch,
        pruned: Option<&LastLayerTokens>,
        work: &mut Workspace<B>,
    ) -> std::result::Result<(), KernelError> {
        let (backend, config, block) = (&self.backend, &self.config, &self.blocks[layer - self.first]);
        let shape =
            AttentionShape { n_heads: config.n_heads, n_kv_heads: config.n_kv_heads, head_dim: config.head_dim };
        let eps = config.rms_norm_eps;
        let rope = |tensor: &mut B::Tensor, heads: usize, positions: &[u32]| {
            backend.rope(tensor, heads, shape.head_dim, shape.head_dim, positions, &self.cos, &self.sin)
        };
        backend.rms_norm(&work.stream, &block.attention_norm, eps, &mut work.normed)?;

        let own = batch.ids.len();
        backend.resize(&mut work.key_value, own + batch.n_cached)?;
        let key_value = &block.key_value;
        backend.linear(&work.normed, &key_value.weight, key_value.bias.as_ref(), &mut work.key_value)?;
        rope(&mut work.key_value, shape.n_kv_heads, &batch.positions)?;
        let kept = &mut work.prefix_cache.key_values[layer - self.first];
        backend.copy_rows(kept, 0, batch.n_cached, &mut work.key_value, own)?;
        backend.resize(kept, batch.keep.len())?;
        backend.gather_rows(&work.key_value, &batch.keep, kept)?;

        let mut layout = &batch.layout;
        let mut pruned_positions = Vec::new();
        if let Some(pruned) = pruned {
            layout = &pruned.layout;
            pruned_positions.extend(pruned.tokens.iter().map(|token| batch.positions[*token as usize]));
            for tensor in [&mut work.stream, &mut work.normed] {
                backend.resize(&mut work.pruned, pruned.tokens.len())?;
                backend.gather_rows(tensor, &pruned.tokens, &mut work.pruned)?;
                std::mem::swap(tensor, &mut work.pruned);
            }
            for tensor in [&mut work.query, &mut work.attended, &mut work.gated] {
                backend.resize(tensor, pruned.tokens.len())?;
            }
        }
        let positions = if pruned.is_some() { &pruned_positions } else { &batch.positions };

        backend.linear(&work.normed, &block.query.weight, block.query.bias.as_ref(), &mut work.query)?;
        rope(&mut work.query, shape.n_heads, positions)?;
        backend.attention(
            &work.query,
            &work.key_value,
            layout,
            shape,
            ScoreRule::of_head_dim(shape.head_dim),
            &mut work.attended,
        )?;
        let output = &block.attention_output;
        backend.linear_residual(&work.attended, &output.weight, output.bias.as_ref(), &mut work.stream)?;
        backend.rms_norm(&work.stream, &block.mlp_norm, eps, &mut work.normed)?;
        backend.linear_gated(
            &work.normed,
            &block.gate_up.weight,
            block.gate_up.bias.as_ref(),
            Activation::Silu,
            &mut work.gated,
        )?;
        backend.linear_residual(&work.gated, &block.down.weight, block.down.bias.as_ref(), &mut work.stream)
    }

    /// Appends the cached tokens of a layer's output to the own ones, and keeps those that the next batch needs.
    fn join_cached(
        &self,
        layer: usize,
        own: usize,
        cached: usize,
        keep: &[u32],
        work: &mut Workspace<B>,
    ) -> Result<()> {
        let kept = &mut work.prefix_cache.outputs[layer - self.first];
        self.backend.resize(&mut work.joined, own + cached)?;
        self.backend.copy_rows(&work.stream, 0, own, &mut work.joined, 0)?;
        self.backend.copy_rows(kept, 0, cached, &mut work.joined, own)?;
        self.backend.resize(kept, keep.len())?;
        self.backend.gather_rows(&work.joined, keep, kept)?;
        Ok(())
    }

    /// Copies a layer's output to the host and emits it.
    fn emit(
        &self,
        layer: usize,
        step: &ModelStep,
        pruned: Option<&LastLayerTokens>,
        work: &mut Workspace<B>,
        outputs: &mut dyn OutputSink,
    ) -> Result<()> {
        let batch = &step.batch;
        let (own, cached, keep) = match pruned {
            Some(pruned) => (pruned.tokens.len(), pruned.n_cached, &pruned.keep),
            None => (batch.ids.len(), batch.n_cached, &batch.keep),
        };
        let joined = cached > 0 || !keep.is_empty();
        if joined {
            self.join_cached(layer, own, cached, keep, work)?;
        }
        let output = step.output.as_layer_output();
        if self.backend.downloads_are_async() {
            let source = if joined { &work.joined } else { &work.stream };
            let copy = self.start_copy(own + cached, pruned, output, source)?;
            return outputs.emit_copy(step.id, layer, copy);
        }
        let all = if joined { &work.joined } else { &work.stream };
        let (source, n_vectors) = match output {
            LayerOutput::Tokens => (all, own + cached),
            LayerOutput::Pooled { groups, last_layer_groups, method } => {
                let groups = pruned.and(last_layer_groups).unwrap_or(groups);
                self.backend.resize(&mut work.pooled, groups.len())?;
                self.backend.pool(all, groups, method, &mut work.pooled)?;
                (&work.pooled, groups.len())
            }
        };
        let bytes = n_vectors * self.config.hidden_size * self.dtype.size();
        // Not amortized: the buffer grows to the largest batch and no further, so that its size is predictable.
        work.host.reserve_exact(bytes.saturating_sub(work.host.len()));
        work.host.resize(bytes, 0);
        self.backend.download(source, n_vectors, &mut work.host)?;
        outputs.emit(step.id, layer, &work.host)
    }

    /// Starts the copy of a layer's output to the host, from memory of its own: the next block overwrites `all`.
    fn start_copy(
        &self,
        n_tokens: usize,
        pruned: Option<&LastLayerTokens>,
        output: LayerOutput<'_>,
        all: &B::Tensor,
    ) -> Result<Box<dyn PendingCopy>> {
        let (backend, columns) = (&self.backend, self.config.hidden_size);
        let (emitted, n_vectors) = match output {
            LayerOutput::Tokens => {
                let mut emitted = backend.alloc(self.dtype, n_tokens, columns)?;
                backend.copy_rows(all, 0, n_tokens, &mut emitted, 0)?;
                (emitted, n_tokens)
            }
            LayerOutput::Pooled { groups, last_layer_groups, method } => {
                let groups = pruned.and(last_layer_groups).unwrap_or(groups);
                let mut emitted = backend.alloc(self.dtype, groups.len(), columns)?;
                backend.pool(all, groups, method, &mut emitted)?;
                (emitted, groups.len())
            }
        };
        Ok(backend.download_async(emitted, n_vectors)?)
    }
}

/// Refuses a batch whose cached tokens are not those that the last batch of its session kept.
fn check_cached_prefix<B: Backend>(batch: &TokenBatch, cache: &PrefixCache<B>) -> Result<()> {
    let n_last_layer = batch.last_layer.as_ref().map_or(0, |last| last.n_cached);
    if batch.n_cached == 0 && n_last_layer == 0 {
        return Ok(());
    }
    let expected = (batch.session, batch.n_cached, n_last_layer);
    if (cache.session, cache.n_tokens, cache.n_last_layer_tokens) == expected {
        return Ok(());
    }
    Err(Error::internal("the prefix cache belongs to another session"))
}

/// Cosines and sines of all angles, `[positions, head_dim / 2]`, each angle one `f32` multiplication as in transformers.
fn rope_angles(config: &ModelConfig, positions: usize) -> (Vec<f32>, Vec<f32>) {
    let frequencies = config.rope_frequencies();
    let angles = |positions: Range<usize>| {
        positions.flat_map(|position| frequencies.iter().map(move |frequency| position as f32 * frequency))
    };
    (angles(0..positions).map(f32::cos).collect(), angles(0..positions).map(f32::sin).collect())
}
