//! What a case is: the settings of a run, one task, one method. It travels from parent to child as JSON.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use actbench_kernels::{DType, PoolMethod};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::injection::Injection;
use crate::error::{Error, Result};
use crate::measure::limit::MemoryLimit;
use actbench_activations::plan::Rules;
use actbench_activations::probe::{LinfaSolver, NewtonSolver, Solver};
use actbench_activations::text::MaskKind;

/// A benchmarked task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// One layer, one probe.
    Train,
    /// Many layers, a probe for each and for each C.
    Sweep,
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Task::Train => "train",
            Task::Sweep => "sweep",
        })
    }
}

/// A way to get activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// Full tensors in host memory.
    Eager,
    /// An optimised, streamed plan.
    Lazy,
    /// The same plan through a cache file.
    LazyDisk,
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Method::Eager => "eager",
            Method::Lazy => "lazy",
            Method::LazyDisk => "lazy-disk",
        })
    }
}

/// Where the model runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceMap {
    /// A GPU where there is one, else the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// One GPU, by number.
    Cuda(usize),
    /// All GPUs, blocks split between them.
    Balanced,
    /// So many GPUs, the whole model on each and the samples dealt to them.
    Replicas(usize),
}

impl fmt::Display for DeviceMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceMap::Auto => f.write_str("auto"),
            DeviceMap::Cpu => f.write_str("cpu"),
            DeviceMap::Cuda(0) => f.write_str("cuda"),
            DeviceMap::Cuda(index) => write!(f, "cuda:{index}"),
            DeviceMap::Balanced => f.write_str("balanced"),
            DeviceMap::Replicas(count) => write!(f, "replicas:{count}"),
        }
    }
}

impl FromStr for DeviceMap {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "auto" => Ok(DeviceMap::Auto),
            "cpu" => Ok(DeviceMap::Cpu),
            "cuda" => Ok(DeviceMap::Cuda(0)),
            "balanced" => Ok(DeviceMap::Balanced),
            _ => {
                let number = |prefix: &str| text.strip_prefix(prefix).and_then(|number| number.parse::<usize>().ok());
                let replicas = || number("replicas:").filter(|count| *count > 0).map(DeviceMap::Replicas);
                number("cuda:").map(DeviceMap::Cuda).or_else(replicas).ok_or_else(|| {
                    let known = "use auto, cpu, cuda, cuda:N, balanced or replicas:K";
                    Error::usage(format!("unknown device '{text}': {known}"))
                })
            }
        }
    }
}

/// What trains the probes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum ProbeSolver {
    /// Newton's method, this program's own.
    #[default]
    Newton,
    /// L-BFGS of `linfa-logistic`, each probe from zero; slower, to check by.
    Linfa,
}

impl ProbeSolver {
    /// The solver itself.
    pub fn solver(self) -> &'static dyn Solver {
        match self {
            ProbeSolver::Newton => &NewtonSolver,
            ProbeSolver::Linfa => &LinfaSolver,
        }
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
    /// Data set name; none is the embedded one.
    pub dataset: Option<String>,
    /// Rows to take.
    pub samples: usize,
    /// Share of them to train on.
    pub train_frac: f64,
    /// Seed of the split and of the order of cases.
    pub seed: u64,
    /// Samples of one batch.
    pub batch_size: usize,
    /// How masked positions become one vector.
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
    /// Iterations of the task `train`'s probe, at most.
    pub train_max_iter: usize,
    /// Iterations of each of the task `sweep`'s probes, at most.
    pub sweep_max_iter: usize,
    /// What trains the probes; result files from before there was a choice have none and are linfa's.
    #[serde(default = "solver_without_a_choice")]
    pub solver: ProbeSolver,
    /// Storage type of weights and activations.
    #[serde(with = "super::names")]
    pub dtype: DType,
    /// Where the model runs.
    #[serde(with = "super::names")]
    pub device_map: DeviceMap,
    /// Whether `lazy` means lazy with the disk cache.
    pub lazy_cache_disk: bool,
    /// Threads; none is all cores.
    pub threads: Option<usize>,
    /// Memory that a case may use.
    #[serde(with = "super::names", default)]
    pub memory_limit: MemoryLimit,
    /// Where local copies of registered data sets are.
    pub data_dir: Option<PathBuf>,
    /// Optimiser rules that are off, by name; `all` is every one.
    pub no_opt: Vec<String>,
    /// Whether the lazy plans are also run without each rule.
    #[serde(default)]
    pub ablate: bool,
    /// Counted blocks; none is until the ratios of times are known well enough, or the budget is used up.
    pub repetitions: Option<usize>,
    /// Seconds that a run without a number of repetitions may take; none is no limit.
    #[serde(default)]
    pub budget_s: Option<f64>,
    /// Blocks before them that are not counted.
    pub warmup: usize,
}

fn solver_without_a_choice() -> ProbeSolver {
    ProbeSolver::Linfa
}

impl RunConfig {
    /// Checks what no single flag can: lists that are empty, numbers out of range.
    ///
    /// # Errors
    /// The first setting that cannot be.
    pub fn check(&self) -> Result<()> {
        let refuse = |what: String| Err(Error::usage(what));
        if self.tasks.is_empty() || self.methods.is_empty() || self.sweep_cs.is_empty() {
            return refuse("--tasks, --methods and --sweep-cs need at least one value each".to_owned());
        }
        if self.lazy_cache_disk && self.methods.contains(&Method::Lazy) && self.methods.contains(&Method::LazyDisk) {
            return refuse("--lazy-cache-disk makes lazy the same as lazy-disk: leave one of the two out".to_owned());
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
        for (flag, c) in self.sweep_cs.iter().map(|c| ("--sweep-cs", *c)).chain([("--train-c", self.train_c)]) {
            if !(c.is_finite() && c > 0.0) {
                return refuse(format!("{flag} {c}: C must be positive and finite"));
            }
        }
        if self.ablate && self.methods.iter().all(|method| *method == Method::Eager) {
            return refuse("--ablate needs a lazy method: eager has no rules to go without".to_owned());
        }
        if !(self.train_frac > 0.0 && self.train_frac < 1.0) {
            return refuse(format!("--train-frac {} is not between 0 and 1 (both excluded)", self.train_frac));
        }
        Rules::all_but(&self.no_opt).map(|_| ())
    }

    /// Whether `method` goes through a cache file.
    pub fn caches_on_disk(&self, method: Method) -> bool {
        method == Method::LazyDisk || (method == Method::Lazy && self.lazy_cache_disk)
    }

    /// The time that a run without a number of repetitions may take.
    pub fn budget(&self) -> Option<Duration> {
        self.budget_s.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
    }

    /// The number of threads to use.
    pub fn n_threads(&self) -> usize {
        self.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
    }
}

/// One case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CaseSpec {
    /// What is done.
    pub task: Task,
    /// How.
    pub method: Method,
    /// The settings.
    pub config: RunConfig,
    /// A folder of its own for cache files.
    pub cache_folder: PathBuf,
    /// A failure to act out instead, for the tests of the runner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
    /// Work and memory beyond the case's own, to try the regression gate on.
    #[serde(default)]
    pub injection: Injection,
}

/// Failures that a child can be told to act out, so that the runner's answer to each can be tested.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// Never ends.
    Sleep,
    /// Kills itself, as the kernel does when memory runs out.
    Kill,
    /// Asks for more memory than there can be.
    Allocate,
    /// Leaves without a message, with last words on its standard error.
    Exit,
    /// The same by `abort`.
    Abort,
    /// Panics.
    Panic,
    /// Says things that are no messages, and leaves.
    Garbage,
    /// Says something that never ends.
    Flood,
    /// Does the work, and does not leave.
    Linger,
    /// Says that its input is bad.
    Input,
    /// Reports an error of the work.
    Error,
    /// Gives another digest than the other methods.
    Disagree,
}

/// What is going on in a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Reading data and weights; not timed.
    Loading,
    /// Running the model.
    Extracting,
    /// Training and scoring probes.
    Training,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Phase::Loading => "loading",
            Phase::Extracting => "extracting",
            Phase::Training => "training",
        })
    }
}

/// Hears of a case while it runs.
pub trait CaseObserver: Send + Sync {
    /// Another phase begins.
    fn phase(&self, phase: Phase);
    /// So many units of the phase are done.
    fn progress(&self, done: u64, total: u64, unit: &str);
    /// Loading has ended: what is measured begins.
    fn loaded(&self);
    /// What is measured has ended.
    fn measured(&self);
}

/// Nobody hears of it.
pub struct Silent;

impl CaseObserver for Silent {
    fn phase(&self, _phase: Phase) {}
    fn progress(&self, _done: u64, _total: u64, _unit: &str) {}
    fn loaded(&self) {}
    fn measured(&self) {}
}

/// What a case came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CaseOutcome {
    /// Seconds of everything after loading.
    pub elapsed_s: f64,
    /// Seconds until the features were there.
    pub extract_s: f64,
    /// Seconds of training and scoring.
    pub train_eval_s: f64,
    /// `auroc` or `mean_auroc`.
    pub metric_name: String,
    /// Its value.
    pub metric_value: f64,
    /// What the GPUs it ran on held at most; none where it ran on the CPU.
    #[serde(default)]
    pub gpu: Option<GpuPeaks>,
    /// Everything else, with the names of the result file.
    pub extra: serde_json::Map<String, serde_json::Value>,
}

/// High-water marks of GPU memory in the measured part of a case, summed over its GPUs, in MB of 2^20 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct GpuPeaks {
    /// Memory in use.
    pub alloc_mb: f64,
    /// Memory that the pools had taken from the devices.
    pub reserved_mb: f64,
}
