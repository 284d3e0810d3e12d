//! What is to be run: settings with their layers, the model's shape and the data's tokens.

use std::sync::Arc;

use crate::case::{Method, RunConfig, Task};
use crate::error::{Error, Result};
use crate::workload::extract::{Extraction, plan};
use crate::workload::layers_of;
use crate::workload::prepare::{LabelledTokens, Prepared};
use actbench_activations::eager;
use actbench_activations::model::ActivationModel;
use actbench_activations::model::config::ModelConfig;
use actbench_activations::model::locate::ModelLocation;
use actbench_activations::model::outline::ModelOutline;
use actbench_activations::plan::{PlanCost, Rules};
use actbench_activations::tokens::{TokenSequence, TokenSet};

/// Tokens of made-up sequences that are counted one by one; more are taken to be like them.
const COUNTED_TOKENS: usize = 4 << 20;

/// A run before it runs.
#[derive(Clone, Debug)]
pub struct Job {
    /// The settings with the layers filled in.
    pub config: RunConfig,
    /// The model's shape.
    pub model: ModelConfig,
    /// Whether its weights are made up in memory; those of files are mapped.
    pub made_up: bool,
    /// Training and test side. Each may stand for more samples than it has, see `times`.
    sides: [LabelledTokens; 2],
    /// How many samples each sample of the sides stands for.
    times: f64,
    /// Bytes that the tokenizer and the tokens take, where they were read.
    pub data_bytes: Option<u64>,
}

/// Sequences of which nothing is known but their extents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MadeUpTokens {
    /// Tokens of a sequence.
    pub length: usize,
    /// Tokens at its head that all sequences share.
    pub shared: usize,
    /// Tokens at its end that are pooled.
    pub pooled: usize,
}

impl Job {
    /// Of settings whose data were read.
    pub fn of(config: &RunConfig, data: &Prepared) -> Self {
        Job {
            config: config.clone(),
            model: data.model.config.clone(),
            made_up: matches!(data.model.location, ModelLocation::Synthetic(_)),
            sides: [data.train.clone(), data.test.clone()],
            times: 1.0,
            data_bytes: None,
        }
    }

    /// The same where the weights come from files, whatever stood for them.
    #[must_use]
    pub fn with_mapped_weights(self) -> Self {
        Job { made_up: false, ..self }
    }

    /// The same whose tokenizer and tokens are known to take `bytes`. 0 is what a program counts that has another allocator.
    #[must_use]
    pub fn with_data_bytes(self, bytes: u64) -> Self {
        Job { data_bytes: (bytes > 0).then_some(bytes), ..self }
    }

    /// Of made-up sequences.
    ///
    /// # Errors
    /// Extents that contradict each other, or settings that leave a side without samples.
    pub fn made_up(config: &RunConfig, model: ModelConfig, made_up: bool, tokens: MadeUpTokens) -> Result<Self> {
        let MadeUpTokens { length, shared, pooled } = tokens;
        if length == 0 || shared >= length || pooled == 0 || pooled > length {
            return Err(Error::usage(format!(
                "--seq-len {length}, --shared-tokens {shared}, --pooled-tokens {pooled}: both must fit into the sequence, \
                 and at least one token is pooled and one is not shared"
            )));
        }
        let counted = (COUNTED_TOKENS / length).clamp(2, config.samples.max(2));
        let n_train = ((counted as f64 * config.train_frac).round() as usize).clamp(1, counted - 1);
        let sequence = |sample: usize| {
            // The first two tokens that are not shared tell each sequence from all others.
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
            LabelledTokens { tokens: Arc::new(TokenSet { sequences: samples.map(sequence).collect() }), labels }
        };
        let sides = [side(0..n_train), side(n_train..counted)];
        let times = config.samples.max(2) as f64 / counted as f64;
        Ok(Job { config: config.clone(), model, made_up, sides, times, data_bytes: None })
    }

    /// Tasks and methods, in the order of the settings.
    pub fn cases(&self) -> impl Iterator<Item = (Task, Method)> + '_ {
        self.config.tasks.iter().flat_map(|task| self.config.methods.iter().map(|method| (*task, *method)))
    }

    /// Samples of each side.
    pub fn samples(&self) -> [u64; 2] {
        [0, 1].map(|side| (self.sides[side].tokens.len() as f64 * self.times).round() as u64)
    }

    /// Tokens of the longest sequence of each side.
    pub fn longest(&self) -> [u64; 2] {
        [0, 1].map(|side| self.sides[side].tokens.max_len() as u64)
    }

    /// Tokens of all samples, and how many of them are pooled.
    pub fn tokens(&self) -> (u64, u64) {
        let all: usize = self.sides.iter().map(|side| side.tokens.n_tokens()).sum();
        let sequences = self.sides.iter().flat_map(|side| &side.tokens.sequences);
        let pooled: usize = sequences.map(|sequence| sequence.masked_positions().count()).sum();
        ((all as f64 * self.times) as u64, (pooled as f64 * self.times) as u64)
    }

    /// How many different tokens there are.
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

    /// What the model is asked to do for a case: the batches it would run, counted.
    ///
    /// # Errors
    /// Tokens that the model cannot be run on, or layers that it does not have.
    pub fn count(&self, task: Task, method: Method) -> Result<PlanCost> {
        let layers = layers_of(&self.config, task);
        let mut sum = PlanCost::default();
        for side in &self.sides {
            let cost = match method {
                Method::Eager => eager::cost(&self.outline(), &side.tokens, &layers, self.config.batch_size)?,
                Method::Lazy | Method::LazyDisk => self.lazy_plan(side, &layers)?.cost()?.unwrap_or_default(),
            };
            sum = sum + cost;
        }
        let scaled = |count: u64| (count as f64 * self.times).round() as u64;
        Ok(PlanCost {
            samples: scaled(sum.samples),
            tokens: scaled(sum.tokens),
            rows: scaled(sum.rows),
            deepest_rows: scaled(sum.deepest_rows),
            batches: scaled(sum.batches),
            flops: scaled(sum.flops),
            bytes_out: scaled(sum.bytes_out),
            ..sum
        })
    }

    /// Operations of all cases.
    ///
    /// # Errors
    /// As [`Job::count`].
    pub fn flops(&self) -> Result<f64> {
        let counts = self.cases().map(|(task, method)| Ok(self.count(task, method)?.flops as f64));
        counts.sum()
    }

    /// The lazy plan of the training side, for what is measured of a few of its batches.
    ///
    /// # Errors
    /// As [`Job::count`].
    pub fn train_plan(&self, layers: &[usize]) -> Result<actbench_activations::plan::Acts> {
        self.lazy_plan(&self.sides[0], layers)
    }

    /// The training side.
    pub fn train_tokens(&self) -> &TokenSet {
        &self.sides[0].tokens
    }

    fn lazy_plan(&self, side: &LabelledTokens, layers: &[usize]) -> Result<actbench_activations::plan::Acts> {
        let model: Arc<dyn ActivationModel> = Arc::new(self.outline());
        let how = Extraction {
            batch_size: self.config.batch_size,
            pool: self.config.pool,
            rules: Rules::all_but(&self.config.no_opt)?,
            cache_directory: None,
        };
        plan(&model, side, layers, how)
    }

    fn outline(&self) -> ModelOutline {
        ModelOutline::new(self.model.clone(), self.config.dtype)
    }
}
