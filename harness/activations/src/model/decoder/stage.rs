//! Consecutive blocks of a model on one device, and the forward pass through them.

use std::ops::{Range, RangeInclusive};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use actbench_kernels::{Backend, DType, HostTensor, KernelError, PendingCopy};

use super::load_options::LoadOptions;
use super::rope_table::RopeTable;
use super::stream_squares::StreamSquares;
use super::weights::{DecoderBlock, folds_norms};
use super::workspace::Workspace;
use crate::error::{Error, Result};
use crate::model::loader::{WeightLoader, embedding_table, not_finite, position_table};
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
    pub(super) max_positions: usize,
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
    /// The buffers of earlier sessions, for the next ones: as many as ran at the same time.
    spare: Mutex<Vec<Workspace<B>>>,
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
        loader.verify()?;
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
            spare: Mutex::default(),
        })
    }

    /// Drops the spare workspaces and gives the tokens of a batch that the free memory of the device
    /// can take.
    pub(super) fn release_and_measure_capacity(&self) -> Result<Option<usize>> {
        // Buffers of earlier batches are freed first: their memory is available to later batches.
        self.spare().clear();
        let Some(free) = self.backend.free_memory()? else { return Ok(None) };
        let cache = prefix_cache_bytes(&self.spec, self.dtype, self.blocks.len(), self.max_positions);
        let usable = (USABLE_FRACTION * free as f64) as u64;
        let squares = match folds_norms(&self.backend, &self.spec, self.dtype) {
            true => StreamSquares::<B>::token_bytes(self.spec.hidden_size),
            false => 0,
        };
        let tokens = usable.saturating_sub(cache) / (token_bytes(&self.spec, self.dtype) + squares);
        Ok(Some(usize::try_from(tokens).unwrap_or(usize::MAX)))
    }

    /// A spare workspace, or a new one; its prefix cache is empty.
    pub(super) fn take_workspace(&self) -> Result<Workspace<B>> {
        let spare = self.spare().pop();
        match spare {
            Some(mut spare) => {
                spare.prefix_cache.clear();
                Ok(spare)
            }
            None => Workspace::new(&self.backend, &self.spec, self.dtype, self.blocks.len()),
        }
    }

    /// Keeps a workspace for batches of `tokens` own tokens.
    pub(super) fn reserve(&self, tokens: usize) -> Result<()> {
        let mut workspace = self.take_workspace()?;
        workspace.resize(&self.backend, tokens)?;
        self.keep_workspace(workspace);
        Ok(())
    }

    /// Keeps `workspace` for the next session.
    pub(super) fn keep_workspace(&self, workspace: Workspace<B>) {
        self.spare().push(workspace);
    }

    fn spare(&self) -> MutexGuard<'_, Vec<Workspace<B>>> {
        // A poisoned lock is harmless: a batch overwrites the buffers before it reads them.
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts the input of `batch` into the stream: the embedding, or `input`, the stream of the stage before.
    pub(super) fn begin(&self, batch: &TokenBatch, input: Option<&[u8]>, work: &mut Workspace<B>) -> Result<()> {
        work.prefix_cache.check(batch)?;
        work.resize(&self.backend, batch.ids.len())?;
        match (&self.embedding, input) {
            (Some(embedding), None) => {
                let embedded = self.backend.embed(embedding, &batch.ids, self.embedding_scale, &mut work.stream);
                let table = || embedding_table(&self.spec, &self.weights).map(Some);
                embedded.map_err(|error| self.embed_error(error, table))?;
                if let Some(positions) = &self.positions {
                    let added = self.backend.add_embedding(positions, &batch.positions, &mut work.stream);
                    let table = || position_table(&self.spec, &self.weights);
                    added.map_err(|error| self.embed_error(error, table))?;
                }
                Ok(())
            }
            (None, Some(input)) => Ok(self.backend.upload(input, &mut work.stream)?),
            _ => Err(Error::internal("a pipeline stage received the input of another")),
        }
    }

    /// Runs blocks `blocks`; the backend may group their launches, unless the host chooses experts between them. `deepest` is the
    /// last layer asked for, which may be pruned.
    pub(super) fn run_blocks(
        &self,
        blocks: RangeInclusive<usize>,
        batch: &TokenBatch,
        deepest: usize,
        work: &mut Workspace<B>,
    ) -> Result<()> {
        let slot = *blocks.start();
        let pruned_in = |layer: usize| batch.last_layer.as_ref().filter(|_| layer == deepest);
        let mut run = || blocks.clone().try_for_each(|layer| self.run_block(layer, batch, pruned_in(layer), work));
        if blocks.clone().any(|layer| self.spec.experts_of(layer).is_some()) {
            return Ok(run()?);
        }
        Ok(self.backend.launch_grouped(slot, batch.ids.len(), &mut run)?)
    }

    /// The residual stream, `[own tokens, hidden]`, for the next stage.
    pub(super) fn download_stream(&self, n_tokens: usize, work: &Workspace<B>) -> Result<Vec<u8>> {
        let mut stream = vec![0; n_tokens * self.spec.hidden_size * self.dtype.size()];
        self.backend.download(&work.stream, n_tokens, &mut stream)?;
        Ok(stream)
    }

    /// Rows of an embedding table are read as tokens need them, so a weight that is not finite is found only here.
    fn embed_error(
        &self,
        error: KernelError,
        table: impl FnOnce() -> Result<Option<(&'static str, HostTensor)>>,
    ) -> Error {
        let named = || {
            let (name, table) = table().ok()??;
            not_finite(&self.weights, name, &table, self.dtype)
        };
        match error {
            KernelError::NotFinite { .. } => named().unwrap_or(Error::Kernel(error)),
            KernelError::Read { path, what } => Error::file(path, what),
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

    /// Copies a layer's output to the host: into `work.host`, or by a copy that may be pending.
    ///
    /// # Returns
    /// The copy, on a backend whose copies are asynchronous.
    pub(super) fn emit(
        &self,
        layer: usize,
        step: &ModelStep,
        deepest: usize,
        work: &mut Workspace<B>,
    ) -> Result<Option<Box<dyn PendingCopy>>> {
        let batch = &step.batch;
        let pruned = batch.last_layer.as_ref().filter(|_| layer == deepest);
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
            return self.start_copy(own + cached, pruned, output, source).map(Some);
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
        Ok(None)
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

/// Refuses a batch that cannot be run with `max_positions` prepared positions.
pub(super) fn check_batch(batch: &TokenBatch, max_positions: usize) -> Result<()> {
    if batch.positions.len() != batch.ids.len() {
        return Err(Error::usage(format!("{} ids but {} positions", batch.ids.len(), batch.positions.len())));
    }
    match batch.positions.iter().find(|position| **position as usize >= max_positions) {
        None => Ok(()),
        Some(position) => {
            Err(Error::usage(format!("position {position} is out of range: {max_positions} positions were prepared")))
        }
    }
}
