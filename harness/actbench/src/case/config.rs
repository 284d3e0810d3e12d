//! The settings of a run, with the names of the command line's flags, and their defaults.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use actbench_kernels::{DType, PoolMethod};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::memory_limit::MemoryLimit;
use super::{DeviceMap, Method, Task};
use crate::error::{Error, Result};
use actbench_activations::plan::Rules;
use actbench_activations::probe::{LinfaSolver, NewtonSolver, Solver};
use actbench_activations::text::MaskKind;

/// The solver of the probes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum ProbeSolver {
    /// Newton's method, implemented in the engine.
    #[default]
    Newton,
    /// L-BFGS of `linfa-logistic`, each probe from zero; slower, for verification.
    Linfa,
}

impl ProbeSolver {
    /// The solver's implementation.
    pub fn solver(self) -> &'static dyn Solver {
        match self {
            ProbeSolver::Newton => &NewtonSolver,
            ProbeSolver::Linfa => &LinfaSolver,
        }
    }
}

impl fmt::Display for ProbeSolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            ProbeSolver::Newton => "newton",
            ProbeSolver::Linfa => "linfa",
        })
    }
}

/// The settings of a run, with the names of the command line's flags.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunConfig {
    /// Tasks, in order.
    pub tasks: Vec<Task>,
    /// Methods, in order.
    pub methods: Vec<Method>,
    /// Model name; none is the embedded one.
    pub model: Option<String>,
    /// The directory of the LoRA adapter that is merged into the model. Files of runs without one do not have the key, as before
    /// there were adapters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter: Option<PathBuf>,
    /// Data set name; none is the embedded one.
    pub dataset: Option<String>,
    /// Samples to use.
    pub samples: usize,
    /// Fraction of the samples used for training.
    pub train_frac: f64,
    /// Seed of the split and of the order of cases.
    pub seed: u64,
    /// Samples of one batch.
    pub batch_size: usize,
    /// Whether no batch may be larger: lazy on a GPU takes larger ones unless the user has named a size. Files of runs without a
    /// named size do not have the key.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub batch_size_is_limit: bool,
    /// Pooling of the masked positions into one vector.
    #[serde(with = "super::names")]
    pub pool: PoolMethod,
    /// Which positions are masked.
    #[serde(with = "super::names")]
    pub mask: MaskKind,
    /// Layer of the task `train`; none follows the model.
    pub layer: Option<usize>,
    /// Layers of the task `sweep`, from 0 on; none follows the model.
    pub sweep_layers: Option<usize>,
    /// Values of C of the task `sweep`.
    pub sweep_cs: Vec<f64>,
    /// C of the task `train`.
    pub train_c: f64,
    /// Maximum solver iterations for the probe of the task `train`.
    pub train_max_iter: usize,
    /// Maximum solver iterations for each probe of the task `sweep`.
    pub sweep_max_iter: usize,
    /// Solver of the probes. Result files older than this setting lack it; their probes were trained by linfa.
    #[serde(default = "solver_of_old_files")]
    pub solver: ProbeSolver,
    /// Storage type of weights and activations.
    #[serde(with = "super::names")]
    pub dtype: DType,
    /// The devices the model runs on.
    #[serde(with = "super::names")]
    pub device_map: DeviceMap,
    /// Whether `lazy` means lazy with the disk cache.
    pub lazy_cache_disk: bool,
    /// Threads; none uses all cores.
    pub threads: Option<usize>,
    /// Memory available to a case.
    #[serde(with = "super::names", default)]
    pub memory_limit: MemoryLimit,
    /// The directory of local copies of registered data sets.
    pub data_dir: Option<PathBuf>,
    /// Names of the optimizer rules that are switched off; `all` stands for every rule.
    pub no_opt: Vec<String>,
    /// Whether the lazy plans are also run without each rule.
    #[serde(default)]
    pub ablate: bool,
    /// Measured blocks; none continues until the time ratios are precise enough or the time is spent.
    pub repetitions: Option<usize>,
    /// Time limit in seconds of a run without fixed repetitions; none is the default of the stopping rule.
    #[serde(default)]
    pub budget_s: Option<f64>,
    /// Warm-up blocks before the measured ones; their results are discarded.
    pub warmup: usize,
}

fn solver_of_old_files() -> ProbeSolver {
    ProbeSolver::Linfa
}

/// The defaults of `actbench run`, which its help shows.
impl Default for RunConfig {
    fn default() -> Self {
        RunConfig {
            tasks: vec![Task::Train, Task::Sweep],
            methods: vec![Method::Eager, Method::Lazy],
            model: None,
            adapter: None,
            dataset: None,
            samples: 600,
            train_frac: 0.8,
            seed: 0,
            batch_size: 8,
            batch_size_is_limit: false,
            pool: PoolMethod::Mean,
            mask: MaskKind::Assistant,
            layer: None,
            sweep_layers: None,
            sweep_cs: vec![0.1, 1.0, 10.0],
            train_c: 1.0,
            train_max_iter: 100,
            sweep_max_iter: 60,
            solver: ProbeSolver::Newton,
            dtype: DType::Bf16,
            device_map: DeviceMap::Auto,
            lazy_cache_disk: false,
            threads: None,
            memory_limit: MemoryLimit::default(),
            data_dir: None,
            no_opt: Vec::new(),
            ablate: false,
            repetitions: None,
            budget_s: None,
            warmup: 1,
        }
    }
}

/// Threads of a core that are accepted: further ones only wait for each other, and thousands take minutes to start.
const MAX_THREADS_PER_CORE: usize = 4;

/// Threads that are accepted on any machine, so that settings of a larger machine can be tried on a smaller one.
const MAX_THREADS_ANYWHERE: usize = 64;

/// Checks a number of threads.
///
/// # Errors
/// More threads than this machine can use.
pub fn check_threads(threads: usize) -> Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let max = (MAX_THREADS_PER_CORE * cores).max(MAX_THREADS_ANYWHERE);
    if threads > max {
        return Err(Error::usage(format!(
            "--threads {threads}: this machine has {cores} cores, on which at most {max} threads are accepted; more would only \
             wait for each other"
        )));
    }
    Ok(())
}

impl RunConfig {
    /// Checks the settings that clap cannot check one by one: empty lists, numbers out of range, contradictions.
    ///
    /// # Errors
    /// The first invalid setting.
    pub fn check(&self) -> Result<()> {
        let refuse = |message: String| Err(Error::usage(message));
        if self.tasks.is_empty() || self.methods.is_empty() || self.sweep_cs.is_empty() {
            return refuse("--tasks, --methods and --sweep-cs need at least one value each".to_owned());
        }
        if self.lazy_cache_disk && self.methods.contains(&Method::Lazy) && self.methods.contains(&Method::LazyDisk) {
            return refuse("--lazy-cache-disk makes lazy the same as lazy-disk: remove one of the two".to_owned());
        }
        for (flag, value) in [
            ("--samples", self.samples),
            ("--batch-size", self.batch_size),
            ("--repetitions", self.repetitions.unwrap_or(1)),
            ("--train-max-iter", self.train_max_iter),
            ("--sweep-max-iter", self.sweep_max_iter),
            ("--threads", self.threads.unwrap_or(1)),
            ("--sweep-layers", self.sweep_layers.unwrap_or(1)),
        ] {
            if value == 0 {
                return refuse(format!("{flag} must be at least 1"));
            }
        }
        if let Some(threads) = self.threads {
            check_threads(threads)?;
        }
        for (flag, c) in self.sweep_cs.iter().map(|c| ("--sweep-cs", *c)).chain([("--train-c", self.train_c)]) {
            if !(c.is_finite() && c > 0.0) {
                return refuse(format!("{flag} {c}: C must be positive and finite"));
            }
        }
        if self.ablate && self.methods.iter().all(|method| *method == Method::Eager) {
            return refuse("--ablate needs a lazy method: eager has no rules to disable".to_owned());
        }
        if !(self.train_frac > 0.0 && self.train_frac < 1.0) {
            return refuse(format!("--train-frac {} is not between 0 and 1 (both excluded)", self.train_frac));
        }
        Rules::all_but(&self.no_opt).map(|_| ())
    }

    /// The model for people: `embedded`, `smollm2`, or `smollm2 with the adapter ./lora`.
    pub fn model_name(&self) -> String {
        let model = self.model.as_deref().unwrap_or("embedded");
        match &self.adapter {
            Some(adapter) => format!("{model} with the adapter {}", adapter.display()),
            None => model.to_owned(),
        }
    }

    /// Whether `method` uses a cache file.
    pub fn caches_on_disk(&self, method: Method) -> bool {
        method == Method::LazyDisk || (method == Method::Lazy && self.lazy_cache_disk)
    }

    /// The requested time limit of a run without fixed repetitions.
    pub fn budget(&self) -> Option<Duration> {
        self.budget_s.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
    }

    /// The number of threads to use.
    pub fn n_threads(&self) -> usize {
        self.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limit_of_batches_is_a_key_only_where_it_is_set() {
        let plain = RunConfig::default();
        let written = serde_json::to_value(&plain).unwrap();
        assert_eq!((&written["batch_size"], written.get("batch_size_is_limit")), (&serde_json::json!(8), None));
        let limited = RunConfig { batch_size_is_limit: true, ..plain };
        let written = serde_json::to_value(&limited).unwrap();
        assert_eq!(written["batch_size_is_limit"], true);
        assert_eq!(serde_json::from_value::<RunConfig>(written).unwrap(), limited);
    }

    #[test]
    fn adapter_is_a_key_only_where_there_is_one() {
        let plain = RunConfig::default();
        let written = serde_json::to_value(&plain).unwrap();
        assert!(written.get("adapter").is_none(), "{written}");
        assert_eq!(serde_json::from_value::<RunConfig>(written).unwrap(), plain);
        let adapted = RunConfig { adapter: Some("out/lora".into()), ..plain };
        let written = serde_json::to_value(&adapted).unwrap();
        assert_eq!(written["adapter"], "out/lora");
        assert_eq!(serde_json::from_value::<RunConfig>(written).unwrap(), adapted);
        assert_eq!(adapted.model_name(), "embedded with the adapter out/lora");
    }
}
