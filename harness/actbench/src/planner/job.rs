//! A planned run: settings with their layers, the shape of the model and the tokens of the data.

use std::sync::Arc;

use crate::case::{Method, RunConfig, Task};
use crate::error::{Error, Result};
use crate::workload::extract::{Extraction, plan};
use crate::workload::layers_of;
use crate::workload::prepare::{LabeledTokens, Prepared, SampledInputs};
use actbench_activations::eager;
use actbench_activations::model::ActivationModel;
use actbench_activations::model::config_only::ConfigOnlyModel;
use actbench_activations::model::locate::ModelLocation;
use actbench_activations::model::spec::DecoderSpec;
use actbench_activations::plan::{Acts, PlanCost, Rules};
use actbench_activations::tokens::{JoinedTokens, TokenSequence, TokenSet};

/// Number of tokens of synthetic sequences whose batches are counted; counts are scaled up to the number of samples.
const MAX_COUNTED_TOKENS: usize = 4 << 20;

/// Number of tokens above which a job is refused: counts derived from it, such as operations, must not exceed 64 bits.
const MAX_TOKENS: f64 = 1e15;

/// A run that is planned and not executed.
#[derive(Clone, Debug)]
pub struct Job {
    /// The settings; layers are filled in.
    pub config: RunConfig,
    /// Shape of the model.
    pub model: DecoderSpec,
    /// Whether the weights are generated in memory; weights of files are mapped.
    pub synthetic_weights: bool,
    /// Training and test set. Each may represent more samples than it has, see `scale`.
    sides: [LabeledTokens; 2],
    /// The number of samples that each sample of the sets represents.
    scale: f64,
    /// Whether the model is on a GPU, whose lazy batches may be larger.
    on_gpu: bool,
    /// Heap bytes of the tokenizer and the tokens, if they were read.
    pub data_bytes: Option<u64>,
}

/// The extents of synthetic sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyntheticTokens {
    /// Tokens in a sequence.
    pub length: usize,
    /// Leading tokens that all sequences have in common.
    pub shared: usize,
    /// Trailing tokens that are pooled.
    pub pooled: usize,
}

impl Job {
    /// The job of settings whose data were read.
    pub fn from_data(config: &RunConfig, data: &Prepared) -> Self {
        Job {
            config: config.clone(),
            model: data.model.spec.clone(),
            synthetic_weights: matches!(data.model.location, ModelLocation::Synthetic(_)),
            sides: [data.train.clone(), data.test.clone()],
            scale: 1.0,
            on_gpu: false,
            data_bytes: None,
        }
    }

    /// The job of settings of whose data a sample was read; its counts are scaled up.
    pub fn from_sample(config: &RunConfig, data: &SampledInputs) -> Self {
        Job { scale: data.scale(), ..Job::from_data(config, &data.inputs) }
    }

    /// The same job with weights that are mapped from files.
    #[must_use]
    pub fn with_mapped_weights(self) -> Self {
        Job { synthetic_weights: false, ..self }
    }

    /// The same job with the heap size of its tokenizer and tokens. 0 means unknown: `measure::memory` returns it in a process
    /// with another allocator.
    #[must_use]
    pub fn with_data_bytes(self, bytes: u64) -> Self {
        Job { data_bytes: (bytes > 0).then_some(bytes), ..self }
    }

    /// The same job in batches of another size, of which none is larger.
    #[must_use]
    pub fn with_batch_size(self, batch_size: usize) -> Self {
        Job { config: RunConfig { batch_size, batch_size_is_limit: true, ..self.config }, ..self }
    }

    /// The same job on a GPU, or in host memory.
    #[must_use]
    pub fn on_gpu(self, on_gpu: bool) -> Self {
        Job { on_gpu, ..self }
    }

    /// The job of synthetic sequences.
    ///
    /// # Errors
    /// Extents that contradict each other, or sequences that are too long for the model.
    pub fn synthetic(
        config: &RunConfig,
        model: DecoderSpec,
        synthetic_weights: bool,
        tokens: SyntheticTokens,
    ) -> Result<Self> {
        let SyntheticTokens { length, shared, pooled } = tokens;
        if length == 0 || shared >= length || pooled == 0 || pooled > length {
            return Err(Error::usage(format!(
                "--seq-len {length}, --shared-tokens {shared}, --pooled-tokens {pooled}: shared tokens must be fewer than \
                 --seq-len, and pooled tokens between 1 and --seq-len"
            )));
        }
        model.check_row_length(length).map_err(|what| Error::usage(format!("--seq-len {length}: a row {what}")))?;
        if config.samples as f64 * length as f64 > MAX_TOKENS {
            return Err(Error::usage(format!(
                "--samples {} of --seq-len {length} tokens are more than 1e15 tokens, which no machine runs; use fewer",
                config.samples
            )));
        }
        let counted = (MAX_COUNTED_TOKENS / length).clamp(2, config.samples.max(2));
        let n_train = ((counted as f64 * config.train_frac).round() as usize).clamp(1, counted - 1);
        let sequence = |sample: usize| {
            // The first two tokens after the shared ones distinguish each sequence from all others.
            let id = |position: usize| match position.checked_sub(shared) {
                None => (position % model.vocab_size) as u32,
                Some(0) => (sample % model.vocab_size) as u32,
                Some(1) => (sample / model.vocab_size % model.vocab_size) as u32,
                Some(_) => ((sample * 31 + position) % model.vocab_size) as u32,
            };
            let mask = (0..length).map(|position| position >= length - pooled).collect();
            TokenSequence { ids: (0..length).map(id).collect(), mask }
        };
        let side = |samples: std::ops::Range<usize>| {
            let labels = samples.clone().map(|sample| (sample % 2) as u8).collect();
            let rows = samples.clone().collect();
            LabeledTokens { tokens: Arc::new(TokenSet { sequences: samples.map(sequence).collect() }), labels, rows }
        };
        let sides = [side(0..n_train), side(n_train..counted)];
        let scale = config.samples.max(2) as f64 / counted as f64;
        Ok(Job { config: config.clone(), model, synthetic_weights, sides, scale, on_gpu: false, data_bytes: None })
    }

    /// The cases in the order of the settings.
    pub fn cases(&self) -> impl Iterator<Item = (Task, Method)> + '_ {
        self.config.tasks.iter().flat_map(|task| self.config.methods.iter().map(|method| (*task, *method)))
    }

    /// Samples of the training and the test set.
    pub fn samples(&self) -> [u64; 2] {
        [0, 1].map(|side| (self.sides[side].tokens.len() as f64 * self.scale).round() as u64)
    }

    /// Length of the longest sequence of each set.
    pub fn longest(&self) -> [u64; 2] {
        [0, 1].map(|side| self.sides[side].tokens.max_len() as u64)
    }

    /// Tokens of all samples, and how many of them are pooled.
    pub fn tokens(&self) -> (u64, u64) {
        let all: usize = self.sides.iter().map(|side| side.tokens.n_tokens()).sum();
        let sequences = self.sides.iter().flat_map(|side| &side.tokens.sequences);
        let pooled: usize = sequences.map(|sequence| sequence.masked_positions().count()).sum();
        ((all as f64 * self.scale) as u64, (pooled as f64 * self.scale) as u64)
    }

    /// Number of distinct token ids.
    pub fn distinct_tokens(&self) -> u64 {
        let mut seen = vec![false; self.model.vocab_size];
        let ids = self.sides.iter().flat_map(|side| &side.tokens.sequences).flat_map(|sequence| &sequence.ids);
        ids.for_each(|id| {
            if let Some(seen) = seen.get_mut(*id as usize) {
                *seen = true;
            }
        });
        seen.into_iter().filter(|seen| *seen).count() as u64
    }

    /// Counts the batches that a case would run.
    ///
    /// # Errors
    /// Tokens that the model cannot run, or layers that it does not have.
    pub fn count(&self, task: Task, method: Method) -> Result<PlanCost> {
        let layers = layers_of(&self.config, task);
        let cost = match method {
            Method::Eager => {
                let model = self.outline();
                let side = |side: &LabeledTokens| eager::cost(&model, &side.tokens, &layers, self.config.batch_size);
                side(&self.sides[0])? + side(&self.sides[1])?
            }
            Method::Lazy | Method::LazyDisk => self.lazy_plan(&layers)?.cost()?.unwrap_or_default(),
        };
        Ok(cost.scaled(self.scale))
    }

    /// Floating-point operations of all cases.
    ///
    /// # Errors
    /// As [`Job::count`].
    pub fn flops(&self) -> Result<f64> {
        let counts = self.cases().map(|(task, method)| Ok(self.count(task, method)?.flops as f64));
        counts.sum()
    }

    /// The tokens of the training set.
    pub fn train_tokens(&self) -> &TokenSet {
        &self.sides[0].tokens
    }

    /// The lazy plan, of which a calibration runs a few batches.
    ///
    /// # Errors
    /// As [`Job::count`].
    pub fn lazy_plan(&self, layers: &[usize]) -> Result<Acts> {
        let model: Arc<dyn ActivationModel> = Arc::new(self.outline());
        let extraction = Extraction {
            batch_size: self.config.batch_size,
            fill_batches: !self.config.batch_size_is_limit,
            pool: self.config.pool,
            rules: Rules::all_but(&self.config.no_opt)?,
            cache_directory: None,
        };
        let tokens: JoinedTokens = [self.sides[0].tokens.clone(), self.sides[1].tokens.clone()].into();
        plan(&model, tokens, layers, extraction)
    }

    fn outline(&self) -> ConfigOnlyModel {
        let model = ConfigOnlyModel::new(self.model.clone(), self.config.dtype).on_gpu(self.on_gpu);
        model.with_threads(self.config.n_threads())
    }
}
