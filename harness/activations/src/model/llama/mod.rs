//! The Llama forward pass (Touvron et al. 2023) as a composition of backend operations.
//!
//! Nothing here knows the device. Blocks past the deepest layer asked for are neither loaded nor run, and there is
//! no final norm and no LM head: a layer is the residual stream after its block. `stage` is consecutive blocks on one
//! device; a model is one stage, or several that batches pass through (`pipeline`), cut by free memory (`split`).

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use actbench_kernels::{Backend, DType, DeviceUse};

use self::outlet::ToSink;
use self::stage::Stage;
use super::config::ModelConfig;
use super::weights::Weights;
use super::{ActivationModel, LayerOutput, LayerSink, Step, StepOutput, StepSink, StepSource, TokenBatch};
use crate::error::{Error, Result};

mod outlet;
mod pipeline;
mod split;
mod stage;
mod workspace;

pub(super) use stage::{Block, Projection};

/// A model on one backend or over several, ready to run.
pub struct Llama<B: Backend> {
    config: ModelConfig,
    dtype: DType,
    weights: Arc<Weights>,
    fingerprint: OnceLock<String>,
    /// In the order of their blocks; at least one.
    stages: Vec<Stage<B>>,
    n_blocks: usize,
    max_positions: usize,
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
        Llama::load_over(vec![backend], config, weights, options, progress)
    }

    /// The same over several devices: consecutive blocks on each, as many as its free memory's share.
    ///
    /// # Errors
    /// As for [`Llama::load`], and no device at all.
    pub fn load_over(
        backends: Vec<B>,
        config: ModelConfig,
        weights: Arc<Weights>,
        options: &LoadOptions,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Self> {
        if options.n_blocks > config.n_layers {
            return Err(too_deep(options.n_blocks - 1, config.n_layers));
        }
        let free = backends.iter().map(|backend| Ok(backend.free_memory()?)).collect::<Result<Vec<_>>>()?;
        let (embedding, all) = (config.weight_bytes(0, options.dtype), config.weight_bytes(1, options.dtype));
        let shares = split::by_free_memory(options.n_blocks, all - embedding, embedding, &free);
        let stages = backends
            .into_iter()
            .zip(shares)
            .map(|(backend, blocks)| Stage::load(backend, &config, &weights, options, blocks, progress))
            .collect::<Result<Vec<_>>>()?;
        if stages.is_empty() {
            return Err(Error::usage("a model was to be loaded on no device"));
        }
        progress(options.n_blocks, options.n_blocks);
        let (dtype, n_blocks, max_positions) = (options.dtype, options.n_blocks, options.max_positions);
        Ok(Llama { config, dtype, weights, fingerprint: OnceLock::new(), stages, n_blocks, max_positions })
    }

    /// The shape of the model.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The blocks of each device, in order.
    pub fn blocks(&self) -> Vec<Range<usize>> {
        let starts = self.stages.iter().map(|stage| stage.first);
        let ends = self.stages.iter().skip(1).map(|stage| stage.first).chain([self.n_blocks]);
        starts.zip(ends).map(|(start, end)| start..end).collect()
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
            Some(&deepest) if deepest >= self.n_blocks => {
                Err(Error::usage(format!("layer {deepest} where {} blocks were loaded", self.n_blocks)))
            }
            _ => Ok(()),
        }
    }

    /// The stages that have a block up to the deepest of `layers`.
    fn stages_up_to(&self, layers: &[usize]) -> &[Stage<B>] {
        let n_stages = layers.last().map_or(0, |deepest| self.stages.partition_point(|stage| stage.first <= *deepest));
        &self.stages[..n_stages]
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
            // All stages run one arithmetic, however blocks are split.
            let kernel = self.stages.first().map(|stage| stage.backend.kernel_id()).unwrap_or_default();
            let (config, weights) = (&self.config, self.weights.fingerprint());
            blake3::hash(format!("{config:?} {} {kernel} {weights}", self.dtype).as_bytes()).to_hex().to_string()
        })
    }

    fn describe(&self) -> String {
        let on = match &self.stages[..] {
            [stage] => stage.backend.describe(),
            stages => {
                let blocks = self.blocks().into_iter().zip(stages).map(|(blocks, stage)| {
                    format!("{} (blocks {} to {})", stage.backend.describe(), blocks.start, blocks.end - 1)
                });
                blocks.collect::<Vec<_>>().join(", ")
            }
        };
        format!("llama, {} layers x {} in {} on {on}", self.config.n_layers, self.config.hidden_size, self.dtype)
    }

    fn flops(&self, batch: &TokenBatch, n_blocks: usize) -> u64 {
        self.config.flops(batch, n_blocks)
    }

    fn rows_that_fit(&self) -> Result<Option<usize>> {
        let fitting = self.stages.iter().map(Stage::rows_that_fit).collect::<Result<Vec<_>>>()?;
        Ok(fitting.into_iter().flatten().min())
    }

    fn device_use(&self) -> Result<Option<DeviceUse>> {
        let used = self.stages.iter().map(|stage| Ok(stage.backend.device_use()?)).collect::<Result<Vec<_>>>()?;
        Ok(used.into_iter().collect::<Option<Vec<_>>>().map(|used| used.into_iter().sum()))
    }

    fn reset_device_use(&self) -> Result<()> {
        self.stages.iter().try_for_each(|stage| Ok(stage.backend.reset_device_use()?))
    }

    fn run(
        &self,
        batch: &TokenBatch,
        layers: &[usize],
        output: LayerOutput<'_>,
        sink: &mut LayerSink<'_>,
    ) -> Result<()> {
        self.check(batch, layers)?;
        let output = match output {
            LayerOutput::Rows => StepOutput::Rows,
            LayerOutput::Pooled { groups, deepest_groups, method } => {
                StepOutput::Pooled { groups: groups.clone(), deepest_groups: deepest_groups.cloned(), method }
            }
        };
        let step = Step { id: 0, batch: batch.clone(), output };
        let mut sink = |_: u64, layer: usize, rows: &[u8]| sink(layer, rows);
        let mut outlet = ToSink::new(&mut sink);
        let mut passed: Option<Vec<u8>> = None;
        for stage in self.stages_up_to(layers) {
            passed = stage.run(&step, passed.as_deref(), layers, &mut outlet)?;
        }
        outlet.finish()
    }

    fn run_all(&self, layers: &[usize], next: &mut StepSource<'_>, sink: &mut StepSink<'_>) -> Result<()> {
        let stages = self.stages_up_to(layers);
        if stages.len() > 1 {
            return pipeline::run(stages, layers, |step| self.check(&step.batch, layers), next, sink);
        }
        let mut outlet = ToSink::new(sink);
        while let Some(step) = next(0) {
            self.check(&step.batch, layers)?;
            for stage in stages {
                stage.run(&step, None, layers, &mut outlet)?;
            }
        }
        outlet.finish()
    }
}

/// The one wording for a layer that the model does not have.
pub fn too_deep(layer: usize, n_layers: usize) -> Error {
    Error::usage(format!(
        "layer {layer} is too deep: the model has {n_layers} layers, 0 to {}",
        n_layers.saturating_sub(1)
    ))
}
