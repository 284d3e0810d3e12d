//! A decoder on one backend or over several, as an [`ActivationModel`].

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use actbench_kernels::{Backend, DType, DeviceUsage};

use super::load_options::LoadOptions;
use super::pipeline::PipelineSession;
use super::split;
use super::stage::PipelineStage;
use super::stage_session::StageSession;
use crate::error::{Error, Result};
use crate::model::memory_model::{block_bytes, embedding_bytes, filled_batch_tokens};
use crate::model::spec::DecoderSpec;
use crate::model::weights::Weights;
use crate::model::{ActivationModel, ModelSession, TokenBatch, check_layer};

/// A model on one backend or over several, ready to run.
pub struct Decoder<B: Backend> {
    spec: DecoderSpec,
    dtype: DType,
    weights: Arc<Weights>,
    fingerprint: OnceLock<String>,
    /// In the order of their blocks; at least one.
    stages: Vec<Arc<PipelineStage<B>>>,
    n_blocks: usize,
}

impl<B: Backend> Decoder<B> {
    /// Loads the embedding and the first blocks. `progress` is called with blocks loaded and blocks
    /// in all.
    ///
    /// # Errors
    /// More blocks than the model has; a weight that is missing, has another shape or is not finite; no memory.
    pub fn load(
        backend: B,
        spec: DecoderSpec,
        weights: Arc<Weights>,
        options: &LoadOptions,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Self> {
        Decoder::load_over(vec![backend], spec, weights, options, progress)
    }

    /// Loads over several devices: consecutive blocks on each, in proportion to its free memory.
    ///
    /// # Errors
    /// As for [`Decoder::load`], or no device.
    pub fn load_over(
        backends: Vec<B>,
        spec: DecoderSpec,
        weights: Arc<Weights>,
        options: &LoadOptions,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Self> {
        if let Some(deepest) = options.n_blocks.checked_sub(1) {
            check_layer(deepest, spec.n_layers)?;
        }
        spec.check_row_length(options.max_positions).map_err(|what| Error::usage(format!("a row {what}")))?;
        let free = backends.iter().map(|backend| Ok(backend.free_memory()?)).collect::<Result<Vec<_>>>()?;
        let element = options.dtype.size() as u64;
        let embedding = embedding_bytes(&spec, element);
        let block = (0..options.n_blocks).map(|layer| block_bytes(&spec, layer, element)).max().unwrap_or_default();
        let ranges = split::split_by_free_memory(options.n_blocks, block, embedding, &free);
        let stages = backends
            .into_iter()
            .zip(ranges)
            .map(|(backend, blocks)| {
                PipelineStage::load(backend, &spec, &weights, options, blocks, progress).map(Arc::new)
            })
            .collect::<Result<Vec<_>>>()?;
        if stages.is_empty() {
            return Err(Error::usage("no device was given to load the model on"));
        }
        progress(options.n_blocks, options.n_blocks);
        let (dtype, n_blocks) = (options.dtype, options.n_blocks);
        Ok(Decoder { spec, dtype, weights, fingerprint: OnceLock::new(), stages, n_blocks })
    }

    /// The shape of the model.
    pub fn spec(&self) -> &DecoderSpec {
        &self.spec
    }

    /// The blocks of each device, in order.
    pub fn blocks(&self) -> Vec<Range<usize>> {
        let starts = self.stages.iter().map(|stage| stage.first);
        let ends = self.stages.iter().skip(1).map(|stage| stage.first).chain([self.n_blocks]);
        starts.zip(ends).map(|(start, end)| start..end).collect()
    }

    fn check_layers(&self, layers: &[usize]) -> Result<()> {
        if !layers.is_sorted_by(|a, b| a < b) {
            return Err(Error::usage(format!("layers {layers:?} are not increasing")));
        }
        let Some(&deepest) = layers.last() else { return Err(Error::usage("name at least one layer to run")) };
        check_layer(deepest, self.spec.n_layers)?;
        if deepest < self.n_blocks {
            return Ok(());
        }
        Err(Error::usage(format!("layer {deepest} is not loaded: {} blocks are", self.n_blocks)))
    }

    /// The stages that have a block up to the deepest of `layers`.
    fn stages_up_to(&self, layers: &[usize]) -> &[Arc<PipelineStage<B>>] {
        let n_stages = layers.last().map_or(0, |deepest| self.stages.partition_point(|stage| stage.first <= *deepest));
        &self.stages[..n_stages]
    }
}

impl<B: Backend> ActivationModel for Decoder<B> {
    fn n_layers(&self) -> usize {
        self.spec.n_layers
    }

    fn hidden_size(&self) -> usize {
        self.spec.hidden_size
    }

    fn vocab_size(&self) -> usize {
        self.spec.vocab_size
    }

    fn dtype(&self) -> DType {
        self.dtype
    }

    fn fingerprint(&self) -> &str {
        self.fingerprint.get_or_init(|| {
            // All stages run one arithmetic, however blocks are split.
            let kernel = self.stages.first().map(|stage| stage.backend.kernel_id()).unwrap_or_default();
            let (spec, weights) = (&self.spec, self.weights.fingerprint());
            blake3::hash(format!("{spec:?} {} {kernel} {weights}", self.dtype).as_bytes()).to_hex().to_string()
        })
    }

    fn describe(&self) -> String {
        let devices = match &self.stages[..] {
            [stage] => stage.backend.describe(),
            stages => {
                let blocks = self.blocks().into_iter().zip(stages).map(|(blocks, stage)| {
                    format!("{} (blocks {} to {})", stage.backend.describe(), blocks.start, blocks.end - 1)
                });
                blocks.collect::<Vec<_>>().join(", ")
            }
        };
        format!("{} on {devices}", self.spec.describe(self.dtype))
    }

    fn flops(&self, batch: &TokenBatch, n_blocks: usize) -> u64 {
        self.spec.flops(batch, n_blocks)
    }

    /// Stages run one stream of batches between them.
    fn streams(&self) -> usize {
        1
    }

    fn release_and_measure_capacity(&self) -> Result<Option<usize>> {
        let capacities =
            self.stages.iter().map(|stage| stage.release_and_measure_capacity()).collect::<Result<Vec<_>>>()?;
        Ok(capacities.into_iter().flatten().min())
    }

    fn filled_batch_tokens(&self) -> Result<Option<usize>> {
        // In host memory batches stay as requested, so that the peak of memory does.
        let on_devices = self.device_usage()?.is_some();
        Ok(on_devices.then(|| filled_batch_tokens(&self.spec, self.dtype)))
    }

    fn reserve(&self, tokens: usize) -> Result<()> {
        self.stages.iter().try_for_each(|stage| stage.reserve(tokens))
    }

    fn device_usage(&self) -> Result<Option<DeviceUsage>> {
        let used = self.stages.iter().map(|stage| Ok(stage.backend.device_usage()?)).collect::<Result<Vec<_>>>()?;
        Ok(used.into_iter().collect::<Option<Vec<_>>>().map(|used| used.into_iter().sum()))
    }

    fn reset_device_usage(&self) -> Result<()> {
        self.stages.iter().try_for_each(|stage| Ok(stage.backend.reset_device_usage()?))
    }

    fn session(&self, layers: &[usize]) -> Result<Box<dyn ModelSession + '_>> {
        self.check_layers(layers)?;
        Ok(match self.stages_up_to(layers) {
            [stage] => Box::new(StageSession::new(stage, layers)?),
            stages => Box::new(PipelineSession::new(stages, layers)?),
        })
    }
}
