//! The flags that say what is run, shared by the commands that run it.

use std::path::PathBuf;

use actbench_kernels::{DType, PoolMethod};
use clap::Args;

use crate::measure::limit::MemoryLimit;
use crate::workload::case::{DeviceMap, Method, ProbeSolver, RunConfig, Task};
use actbench_activations::text::MaskKind;

/// What is run.
#[derive(Args, Clone, Debug)]
pub struct SettingsArgs {
    /// Model: a Hugging Face id, a folder, a .gguf file, or synthetic:PRESET [default: the embedded model]
    #[arg(long, value_name = "MODEL")]
    pub model: Option<String>,
    /// Data set: embedded, embedded:short|medium|long|mixed, repe, or a .jsonl, .csv or .parquet file [default: embedded]
    #[arg(long, value_name = "DATASET")]
    pub dataset: Option<String>,
    /// Folder with local copies of registered data sets
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Rows to take, stratified by label
    #[arg(long, default_value_t = 600, value_name = "N")]
    pub samples: usize,
    /// Share of them to train on
    #[arg(long, default_value_t = 0.8, value_name = "SHARE")]
    pub train_frac: f64,
    /// Seed of the split and of the order of cases
    #[arg(long, default_value_t = 0, value_name = "SEED")]
    pub seed: u64,
    /// Samples in a batch
    #[arg(long, default_value_t = 8, value_name = "N")]
    pub batch_size: usize,
    /// How masked positions become one vector: mean, max, last or sum
    #[arg(long, default_value = "mean", value_name = "METHOD")]
    pub pool: PoolMethod,
    /// Which tokens are pooled: assistant (header, content and closing of its messages) or content alone
    #[arg(long, default_value = "assistant", value_name = "MASK")]
    pub mask: MaskKind,
    /// Layer of the task train [default: 12; half the depth of the embedded model]
    #[arg(long, value_name = "LAYER")]
    pub layer: Option<usize>,
    /// Layers of the task sweep, from 0 on [default: 16; all of the embedded model]
    #[arg(long, value_name = "N")]
    pub sweep_layers: Option<usize>,
    /// Values of C of the task sweep
    #[arg(long, value_delimiter = ',', default_value = "0.1,1.0,10.0", value_name = "C,...")]
    pub sweep_cs: Vec<f64>,
    /// C of the task train
    #[arg(long, default_value_t = 1.0, value_name = "C")]
    pub train_c: f64,
    /// Most iterations of the probe of the task train; a Newton step each, or a step of L-BFGS with --solver linfa
    #[arg(long, default_value_t = 100, value_name = "N")]
    pub train_max_iter: usize,
    /// Most iterations of each probe of the task sweep
    #[arg(long, default_value_t = 60, value_name = "N")]
    pub sweep_max_iter: usize,
    /// What trains the probes: newton, or linfa (L-BFGS, slower, to check by)
    #[arg(long, default_value = "newton", value_name = "SOLVER")]
    pub solver: ProbeSolver,
    /// Storage type of weights and activations: bf16, fp16 or fp32 (or bfloat16, float16, float32)
    #[arg(long, default_value = "bf16", value_name = "DTYPE")]
    pub dtype: DType,
    /// Where the model runs: auto, cpu, cuda, cuda:N, balanced (blocks split over the GPUs) or replicas:K (the model on
    /// each of K GPUs)
    #[arg(long, default_value = "auto", value_name = "DEVICE")]
    pub device_map: DeviceMap,
    /// Let lazy mean lazy with the disk cache
    #[arg(long)]
    pub lazy_cache_disk: bool,
    /// Threads [default: all cores]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Memory a case may use: bytes, 500MB, 8GiB, a share of what is available, or none
    #[arg(long, default_value = "80%", value_name = "SIZE")]
    pub memory_limit: MemoryLimit,
    /// Switch an optimiser rule off: depth, packing, mask, pooling, prefix, layers, batch or all; repeatable
    #[arg(long, value_name = "RULE")]
    pub no_opt: Vec<String>,
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
        RunConfig {
            tasks,
            methods,
            model: self.model.clone(),
            dataset: self.dataset.clone(),
            samples: self.samples,
            train_frac: self.train_frac,
            seed: self.seed,
            batch_size: self.batch_size,
            pool: self.pool,
            mask: self.mask,
            layer: self.layer,
            sweep_layers: self.sweep_layers,
            sweep_cs: self.sweep_cs.clone(),
            train_c: self.train_c,
            train_max_iter: self.train_max_iter,
            sweep_max_iter: self.sweep_max_iter,
            solver: self.solver,
            dtype: self.dtype,
            device_map: self.device_map,
            lazy_cache_disk: self.lazy_cache_disk,
            threads: self.threads,
            memory_limit: self.memory_limit,
            data_dir: self.data_dir.clone(),
            no_opt: self.no_opt.clone(),
            ablate: false,
            repetitions,
            budget_s: None,
            warmup,
        }
    }
}
