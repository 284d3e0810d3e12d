//! The flags that define the work of a run and of an extraction, shared by several commands. A command takes no flag that has
//! no effect on it.

use std::path::PathBuf;

use actbench_kernels::{DType, PoolMethod};
use clap::Args;

use super::defaults;
use crate::case::MemoryLimit;
use crate::case::{DeviceMap, LAYER_NUMBERING, Method, ProbeSolver, RunConfig, Task};
use actbench_activations::text::MaskKind;

/// The flags that decide the samples, the model and the plan. The device and the threads change only its batches.
#[derive(Args, Clone, Debug)]
pub struct SampleArgs {
    /// Model: a Hugging Face id, a directory, a .gguf file, or synthetic:PRESET [default: the embedded model]
    #[arg(long, value_name = "MODEL")]
    pub model: Option<String>,
    /// Directory of a LoRA adapter of PEFT, merged into the model
    ///
    /// The directory has adapter_config.json and adapter_model.safetensors. Weights are merged in f32 and then rounded to --dtype.
    #[arg(long, value_name = "DIR")]
    pub adapter: Option<PathBuf>,
    /// Data set: embedded, embedded:short|medium|long|mixed, repe, or a .jsonl, .csv or .parquet file [default: embedded]
    #[arg(long, value_name = "DATASET")]
    pub dataset: Option<String>,
    /// Directory with local copies of registered data sets
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Number of samples to use, stratified by label
    #[arg(long, default_value_t = RunConfig::default().samples, value_name = "N")]
    pub samples: usize,
    /// Fraction of samples used for training
    #[arg(long, default_value_t = RunConfig::default().train_frac, value_name = "FRACTION")]
    pub train_frac: f64,
    /// Seed of the choice of samples, of the split and, in a run, of the order of cases
    #[arg(long, default_value_t = RunConfig::default().seed, value_name = "SEED")]
    pub seed: u64,
    /// Samples in a batch [default: 8; on a GPU, lazy then takes larger batches]
    ///
    /// Lazy packs as many tokens as a padded batch of that many samples could have. Without this flag it takes at least as many on
    /// a GPU as keep it busy, about 0.9 GB of activations; with it, no batch is larger.
    #[arg(long, value_name = "N")]
    pub batch_size: Option<usize>,
    /// Pooling of the masked positions into one vector: mean, max, last or sum
    ///
    /// `last` is the last masked token: with `--mask assistant` that is the end of the closing of the last answer, in
    /// many templates a line break behind the end-of-turn token; with `--mask content` it is the last token of its text.
    #[arg(long, default_value_t = RunConfig::default().pool, value_name = "METHOD")]
    pub pool: PoolMethod,
    /// Tokens to pool: assistant (header, content and closing of its messages) or content (only the content)
    ///
    /// The chat template of the model is rendered as by transformers. A template that prints the date gets 26 Jul 2024 on
    /// every day, so that features can be reproduced.
    #[arg(long, default_value_t = RunConfig::default().mask, value_name = "MASK")]
    pub mask: MaskKind,
    /// Storage type of weights and activations: bf16, fp16 or fp32 (or bfloat16, float16, float32)
    #[arg(long, default_value_t = RunConfig::default().dtype, value_name = "DTYPE")]
    pub dtype: DType,
    /// Disable an optimizer rule: depth, packing, mask, tail, pooling, prefix, layers, batch or all; repeatable
    #[arg(long, value_name = "RULE")]
    pub no_opt: Vec<String>,
}

impl SampleArgs {
    /// The default settings with those of these flags.
    pub fn config(&self) -> RunConfig {
        RunConfig {
            model: self.model.clone(),
            adapter: self.adapter.clone(),
            dataset: self.dataset.clone(),
            data_dir: self.data_dir.clone(),
            samples: self.samples,
            train_frac: self.train_frac,
            seed: self.seed,
            batch_size: self.batch_size.unwrap_or(RunConfig::default().batch_size),
            batch_size_is_limit: self.batch_size.is_some(),
            pool: self.pool,
            mask: self.mask,
            dtype: self.dtype,
            no_opt: self.no_opt.clone(),
            ..RunConfig::default()
        }
    }
}

/// The flags of an extraction: the samples and the plan, and where they run.
#[derive(Args, Clone, Debug)]
pub struct ExtractionArgs {
    /// The samples, the model and the plan.
    #[command(flatten)]
    pub samples: SampleArgs,
    /// Device of the model: auto, cpu, cuda, cuda:N, balanced (blocks split over the GPUs) or replicas:K (a copy of the model
    /// on each of K GPUs)
    #[arg(long, default_value_t = RunConfig::default().device_map, value_name = "DEVICE")]
    pub device_map: DeviceMap,
    /// Threads [default: all cores]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
}

impl ExtractionArgs {
    /// The default settings with those of these flags.
    pub fn config(&self) -> RunConfig {
        RunConfig { device_map: self.device_map, threads: self.threads, ..self.samples.config() }
    }
}

/// The flags that select the layers of the tasks.
#[derive(Args, Clone, Copy, Debug)]
pub struct TaskLayerArgs {
    /// Layer of the task train [default: 12, or the last of a smaller model; half the depth of the embedded one]
    #[arg(long, value_name = "LAYER", long_help = layer_help(TRAIN_LAYER))]
    pub layer: Option<usize>,
    /// Layers of the task sweep, 0 to N - 1 [default: 16, or all of a smaller model and of the embedded one]
    #[arg(long, value_name = "N", long_help = layer_help(SWEEP_LAYERS))]
    pub sweep_layers: Option<usize>,
}

/// The flags of the probes of the task train.
#[derive(Args, Clone, Copy, Debug)]
pub struct TrainProbeArgs {
    /// C of the task train
    #[arg(long, default_value_t = RunConfig::default().train_c, value_name = "C")]
    pub train_c: f64,
    /// Maximum solver iterations for the train task
    #[arg(long, default_value_t = RunConfig::default().train_max_iter, value_name = "N")]
    pub train_max_iter: usize,
}

/// The flags that decide the work of a case, except those of [`TrainProbeArgs`].
#[derive(Args, Clone, Debug)]
pub struct CaseArgs {
    /// The extraction.
    #[command(flatten)]
    pub extraction: ExtractionArgs,
    /// The layers.
    #[command(flatten)]
    pub layers: TaskLayerArgs,
    /// Values of C of the task sweep
    #[arg(long, value_delimiter = ',', default_value = defaults::SWEEP_CS.as_str(), value_name = "C,...")]
    pub sweep_cs: Vec<f64>,
    /// Maximum solver iterations for each probe of the sweep task
    #[arg(long, default_value_t = RunConfig::default().sweep_max_iter, value_name = "N")]
    pub sweep_max_iter: usize,
    /// Solver of the probes: newton, or linfa (L-BFGS; slower, for verification)
    #[arg(long, default_value_t = RunConfig::default().solver, value_name = "SOLVER")]
    pub solver: ProbeSolver,
    /// Use the on-disk feature cache for lazy
    #[arg(long)]
    pub lazy_cache_disk: bool,
}

impl CaseArgs {
    /// The settings of `tasks` by `methods`.
    pub fn config(&self, tasks: Vec<Task>, methods: Vec<Method>) -> RunConfig {
        RunConfig {
            tasks,
            methods,
            layer: self.layers.layer,
            sweep_layers: self.layers.sweep_layers,
            sweep_cs: self.sweep_cs.clone(),
            sweep_max_iter: self.sweep_max_iter,
            solver: self.solver,
            lazy_cache_disk: self.lazy_cache_disk,
            ..self.extraction.config()
        }
    }
}

/// The flags that decide the cost of a run, which `plan` predicts.
#[derive(Args, Clone, Debug)]
pub struct SettingsArgs {
    /// The work of a case.
    #[command(flatten)]
    pub case: CaseArgs,
    /// Memory limit of a case: bytes, 500MB, 8GiB, a percentage of the available memory, or none
    #[arg(long, default_value_t = RunConfig::default().memory_limit, value_name = "SIZE")]
    pub memory_limit: MemoryLimit,
}

const TRAIN_LAYER: &str =
    "Layer of the task train [default: 12, or the last of a smaller model; half the depth of the embedded one]";
const SWEEP_LAYERS: &str =
    "Layers of the task sweep, 0 to N - 1 [default: 16, or all of a smaller model and of the embedded one]";

/// The long help of a flag that takes a layer or a number of layers, whose short help is `flag`.
pub(super) fn layer_help(flag: &str) -> String {
    format!("{flag}\n\nNumbering: {LAYER_NUMBERING}.")
}

impl SettingsArgs {
    /// The settings of a run of `tasks` by `methods`.
    pub fn config(
        &self,
        tasks: Vec<Task>,
        methods: Vec<Method>,
        repetitions: Option<usize>,
        warmup: usize,
    ) -> RunConfig {
        RunConfig { memory_limit: self.memory_limit, repetitions, warmup, ..self.case.config(tasks, methods) }
    }
}
