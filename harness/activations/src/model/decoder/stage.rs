//! Consecutive blocks of a model on one device, and the forward pass through them.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use actbench_kernels::{Backend, DType, KernelError, PendingCopy};

use super::load_options::LoadOptions;
use super::output_sink::OutputSink;
use super::rope_table::RopeTable;
use super::weights::DecoderBlock;
use super::workspace::{PrefixCache, Workspace};
use crate::error::{Error, Result};
use crate::model::loader::{WeightLoader, embedding_table, not_finite};
use crate::model::memory_model::{prefix_cache_bytes, token_bytes};
use crate::model::spec::DecoderSpec;
use crate::model::weights::Weights;
use crate::model::{LastLayerTokens, LayerOutput, ModelStep, TokenBatch};

/// The fraction of free memory that batches may fill: their tensors grow one after the other, and memory pools grow in
/// steps.
const USABLE_FRACTION: f64 = 0.8;

/// Consecutive blocks on a device.
pub(super) struct PipelineStage<B: Backend> {
    pub(super) backend: B,
    pub(super) spec: DecoderSpec,
    dtype: DType,
    weights: Arc<Weights>,
    max_positions: usize,
    /// The number of the first block.
    pub(super) first: usize,
    pub(super) blocks: Vec<DecoderBlock<B>>,
    /// The embedding table, on the first stage alone.
    embedding: Option<B::Embedding>,
    /// The factor of the embedding, rounded to the run's dtype as in transformers.
    embedding_scale: f32,
    /// The table of learned positions, on the first stage alone, if the model has one.
    positions: Option<B::Embedding>,
    pub(super) ropes: Vec<RopeTable<B>>,
    workspace: Mutex<Option<Workspace<B>>>,
}

impl<B: Backend> PipelineStage<B> {
    /// Loads blocks `blocks`, and the embedding if the first block of the model is among them. `progress` is called before
    /// each block.
    pub(super) fn load(
        backend: B,
        spec: &DecoderSpec,
        weights: &Arc<Weights>,
        options: &LoadOptions,
        blocks: Range<usize>,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Self> {
        let loader = WeightLoader::new(&backend, spec, weights, options.dtype);
        let first = blocks.start;
        let embedding = (first == 0).then(|| loader.embedding()).transpose()?;
        let positions = if first == 0 { loader.positions()? } else { None };
        let mut loaded = Vec::with_capacity(blocks.len());
        for layer in blocks {
            progress(layer, options.n_blocks);
            loaded.push(loader.block(layer)?);
        }
        let table = |rope| RopeTable::new(&backend, rope, options.max_positions);
        let ropes = spec.ropes.iter().map(table).collect::<Result<Vec<_>>>()?;
        let scale = spec.embedding.scale.map_or(1.0, |scale| scale as f32);
        let embedding_scale = options.dtype.to_f32_vec(&options.dtype.from_f32_slice(&[scale]))[0];
        Ok(PipelineStage {
            backend,
            spec: spec.clone(),
            dtype: options.dtype,
            weights: weights.clone(),
            max_positions: options.max_positions,
            first,
            blocks: loaded,
            embedding,
            embedding_scale,
            positions,
            ropes,
            workspace: Mutex::new(None),
        })
    }

    /// Drops the workspace, cached prefixes included, and gives the tokens of a batch that the free memory of the device
    /// can take.
    pub(super) fn release_and_measure_capacity(&self) -> Result<Option<usize>> {
        // Buffers of earlier batches are freed first: their memory is available to later batches.
        *self.workspace.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let Some(free) = self.backend.free_memory()? else { return Ok(None) };
        let cache = prefix_cache_bytes(&self.spec, self.dtype, self.blocks.len(), self.max_positions);
        let usable = (USABLE_FRACTION * free as f64) as u64;
        let tokens = usable.saturating_sub(cache) / token_bytes(&self.spec, self.dtype);
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
            None => slot.insert(Workspace::new(&self.backend, &self.spec, self.dtype, self.blocks.len())?),
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
        work.resize(&self.backend, n_tokens)?;
        match (&self.embedding, input) {
            (Some(embedding), None) => {
                let embedded = self.backend.embed(embedding, &batch.ids, self.embedding_scale, &mut work.stream);
                embedded.map_err(|error| self.embed_error(error))?;
                if let Some(positions) = &self.positions {
                    self.backend.add_embedding(positions, &batch.positions, &mut work.stream)?;
                }
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
        let mut stream = vec![0; n_tokens * self.spec.hidden_size * self.dtype.size()];
        self.backend.download(&work.stream, n_tokens, &mut stream)?;
        Ok(Some(stream))
    }

    /// Rows of the embedding table are read as tokens need them, so a weight that is not finite is found only here.
    fn embed_error(&self, error: KernelError) -> Error {
        let named = || {
            let (name, table) = embedding_table(&self.spec, &self.weights).ok()?;
            not_finite(&self.weights, name, &table, self.dtype)
        };
        match error {
            KernelError::NotFinite { .. } => named().unwrap_or(Error::Kernel(error)),
            other => Error::from(other),
        }
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
        let bytes = n_vectors * self.spec.hidden_size * self.dtype.size();
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
        let (backend, columns) = (&self.backend, self.spec.hidden_size);
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
