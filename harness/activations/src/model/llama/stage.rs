//! Consecutive blocks of a model on one device, and what runs through them.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use actbench_kernels::{AttentionShape, Backend, DType, HostTensor, KernelError, PendingCopy};

use super::LoadOptions;
use super::outlet::Outlet;
use super::workspace::{Kept, Workspace, kept_bytes, row_bytes};
use crate::error::{Error, Result};
use crate::model::config::ModelConfig;
use crate::model::loader::{Loader, not_finite, tensor_named};
use crate::model::weights::Weights;
use crate::model::{DeepestRows, LayerOutput, Step, TokenBatch};

/// Of free memory, what batches may fill: their tensors grow one after the other, and pools take memory in steps.
const FILL: f64 = 0.8;

/// Blocks on a device.
pub(super) struct Stage<B: Backend> {
    pub(super) backend: B,
    config: ModelConfig,
    dtype: DType,
    weights: Arc<Weights>,
    max_positions: usize,
    /// The number of the first block.
    pub(super) first: usize,
    blocks: Vec<Block<B>>,
    /// Where rows begin, on the first stage alone.
    embedding: Option<B::Embedding>,
    cos: B::Vector,
    sin: B::Vector,
    workspace: Mutex<Option<Workspace<B>>>,
}

/// The weights of one decoder block.
pub(in crate::model) struct Block<B: Backend> {
    pub(in crate::model) attention_norm: B::Vector,
    pub(in crate::model) query: Projection<B>,
    pub(in crate::model) key_value: Projection<B>,
    pub(in crate::model) attention_output: Projection<B>,
    pub(in crate::model) mlp_norm: B::Vector,
    pub(in crate::model) gate_up: Projection<B>,
    pub(in crate::model) down: Projection<B>,
}

pub(in crate::model) struct Projection<B: Backend> {
    pub(in crate::model) weight: B::Linear,
    pub(in crate::model) bias: Option<B::Vector>,
}

impl<B: Backend> Stage<B> {
    /// Loads blocks `blocks`, and the embedding if the first block of the model is among them. `progress` hears of each
    /// block before it is loaded.
    pub(super) fn load(
        backend: B,
        config: &ModelConfig,
        weights: &Arc<Weights>,
        options: &LoadOptions,
        blocks: Range<usize>,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Self> {
        let loader = Loader { backend: &backend, config, weights, dtype: options.dtype };
        let first = blocks.start;
        let embedding = (first == 0).then(|| loader.embedding()).transpose()?;
        let mut loaded = Vec::with_capacity(blocks.len());
        for layer in blocks {
            progress(layer, options.n_blocks);
            loaded.push(loader.block(layer)?);
        }
        let (cos, sin) = rope_angles(config, options.max_positions);
        let angles = |values: Vec<f32>| -> Result<B::Vector> {
            // Angles stay in f32 whatever the run's type: in bf16 neighbouring positions would fall together.
            let tensor = HostTensor::from_f32(DType::F32, vec![values.len()], &values)?;
            Ok(backend.prepare_vector(&[tensor], DType::F32)?)
        };
        let (cos, sin) = (angles(cos)?, angles(sin)?);
        Ok(Stage {
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

    /// Rows of a batch that the device's free memory has room for.
    pub(super) fn rows_that_fit(&self) -> Result<Option<usize>> {
        // What batches before took is free for those to come.
        *self.workspace.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let Some(free) = self.backend.free_memory()? else { return Ok(None) };
        let kept = kept_bytes(&self.config, self.dtype, self.blocks.len(), self.max_positions);
        let room = (FILL * free as f64) as u64;
        let rows = room.saturating_sub(kept) / row_bytes(&self.config, self.dtype);
        Ok(Some(usize::try_from(rows).unwrap_or(usize::MAX)))
    }

    /// Runs `step` through the blocks of this stage up to the deepest of `layers`; outputs of those among them go to
    /// `outlet`. All stages but the first are given the residual stream of the stage before.
    ///
    /// # Returns
    /// The residual stream, `[rows, hidden]`, where the next stage has to go on.
    pub(super) fn run(
        &self,
        step: &Step,
        input: Option<&[u8]>,
        layers: &[usize],
        outlet: &mut dyn Outlet,
    ) -> Result<Option<Vec<u8>>> {
        // A panic elsewhere leaves nothing in a workspace that the next batch would read.
        let mut slot = self.workspace.lock().unwrap_or_else(PoisonError::into_inner);
        let work = match slot.as_mut() {
            Some(work) => work,
            None => slot.insert(Workspace::new(&self.backend, &self.config, self.dtype, self.blocks.len())?),
        };
        let ran = self.run_in(work, step, input, layers, outlet);
        if let Err(Error::Kernel(KernelError::OutOfMemory { .. })) = &ran {
            // Smaller batches are to find room.
            *slot = None;
        }
        ran
    }

    fn run_in(
        &self,
        work: &mut Workspace<B>,
        step: &Step,
        input: Option<&[u8]>,
        layers: &[usize],
        outlet: &mut dyn Outlet,
    ) -> Result<Option<Vec<u8>>> {
        let batch = &step.batch;
        let Some(&deepest) = layers.last() else { return Ok(None) };
        self.check_carried(batch, &work.kept)?;
        let rows = batch.ids.len();
        for tensor in [&mut work.stream, &mut work.normed, &mut work.query, &mut work.attended, &mut work.gated] {
            self.backend.resize(tensor, rows)?;
        }
        match (&self.embedding, input) {
            (Some(embedding), None) => {
                let embedded = self.backend.embed(embedding, &batch.ids, &mut work.stream);
                embedded.map_err(|error| self.embed_error(error))?;
            }
            (None, Some(input)) => self.backend.upload(input, &mut work.stream)?,
            _ => return Err(Error::usage("a stage was given rows that are not for it")),
        }
        let last = deepest.min(self.first + self.blocks.len() - 1);
        let few_of = |layer: usize| batch.deepest.as_ref().filter(|_| layer == deepest);
        let mut layer = self.first;
        while layer <= last {
            // Up to the next block that hands something out.
            let wanted = layers.iter().copied().find(|wanted| *wanted >= layer).filter(|wanted| *wanted <= last);
            let end = wanted.unwrap_or(last);
            let mut blocks = || (layer..=end).try_for_each(|layer| self.run_block(layer, batch, few_of(layer), work));
            self.backend.grouped(layer, rows, &mut blocks)?;
            if wanted.is_some() {
                self.hand_out(end, step, few_of(end), work, outlet)?;
            }
            layer = end + 1;
        }
        work.kept.walk = batch.walk;
        work.kept.rows = batch.keep.len();
        work.kept.deepest_rows = batch.deepest.as_ref().map_or(0, |deepest| deepest.keep.len());
        if last == deepest {
            return Ok(None);
        }
        let mut stream = vec![0; rows * self.config.hidden_size * self.dtype.size()];
        self.backend.download(&work.stream, rows, &mut stream)?;
        Ok(Some(stream))
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
    ) -> std::result::Result<(), KernelError> {
        let (backend, config, block) = (&self.backend, &self.config, &self.blocks[layer - self.first]);
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
        let kept = &mut work.kept.key_values[layer - self.first];
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
        backend.linear_residual(&work.gated, &block.down.weight, block.down.bias.as_ref(), &mut work.stream)
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
        let kept = &mut work.kept.outputs[layer - self.first];
        self.backend.resize(&mut work.joined, own + carried)?;
        self.backend.copy_rows(&work.stream, 0, own, &mut work.joined, 0)?;
        self.backend.copy_rows(kept, 0, carried, &mut work.joined, own)?;
        self.backend.resize(kept, keep.len())?;
        self.backend.gather_rows(&work.joined, keep, kept)?;
        Ok(())
    }

    /// Sends a layer's output to the host and hands it on.
    fn hand_out(
        &self,
        layer: usize,
        step: &Step,
        few: Option<&DeepestRows>,
        work: &mut Workspace<B>,
        outlet: &mut dyn Outlet,
    ) -> Result<()> {
        let batch = &step.batch;
        let (own, carried, keep) = match few {
            Some(few) => (few.rows.len(), few.n_carried, &few.keep),
            None => (batch.ids.len(), batch.n_carried, &batch.keep),
        };
        let joined = carried > 0 || !keep.is_empty();
        if joined {
            self.join_carried(layer, own, carried, keep, work)?;
        }
        let output = step.output.as_layer_output();
        if self.backend.copies_overlap() {
            let copy = self.send_off(own + carried, few, output, if joined { &work.joined } else { &work.stream })?;
            return outlet.copy(step.id, layer, copy);
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
        work.host.resize(rows * self.config.hidden_size * self.dtype.size(), 0);
        self.backend.download(source, rows, &mut work.host)?;
        outlet.rows(step.id, layer, &work.host)
    }

    /// Starts the copy of a layer's output to the host. It has memory of its own, so that the next block may go on in
    /// that of `all`.
    fn send_off(
        &self,
        n_rows: usize,
        few: Option<&DeepestRows>,
        output: LayerOutput<'_>,
        all: &B::Tensor,
    ) -> Result<Box<dyn PendingCopy>> {
        let (backend, columns) = (&self.backend, self.config.hidden_size);
        let (leaving, rows) = match output {
            LayerOutput::Rows => {
                let mut leaving = backend.alloc(self.dtype, n_rows, columns)?;
                backend.copy_rows(all, 0, n_rows, &mut leaving, 0)?;
                (leaving, n_rows)
            }
            LayerOutput::Pooled { groups, deepest_groups, method } => {
                let groups = few.and(deepest_groups).unwrap_or(groups);
                let mut leaving = backend.alloc(self.dtype, groups.len(), columns)?;
                backend.pool(all, groups, method, &mut leaving)?;
                (leaving, groups.len())
            }
        };
        Ok(backend.download_later(leaving, rows)?)
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

/// Cosines and sines of all angles, `[positions, head_dim / 2]`, each angle one `f32` product as in transformers.
fn rope_angles(config: &ModelConfig, positions: usize) -> (Vec<f32>, Vec<f32>) {
    let frequencies = config.rope_frequencies();
    let angles = |positions: Range<usize>| {
        positions.flat_map(|position| frequencies.iter().map(move |frequency| position as f32 * frequency))
    };
    (angles(0..positions).map(f32::cos).collect(), angles(0..positions).map(f32::sin).collect())
}
