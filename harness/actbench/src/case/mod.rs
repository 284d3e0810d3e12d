//! The vocabulary of the benchmark: tasks, methods, the settings of a run, one case and its outcome. A leaf: it knows
//! no module that runs, stores or reports a case.

mod ablation;
mod config;
mod device_map;
mod fault;
mod injection;
mod memory_limit;
mod method;
mod metrics;
mod names;
mod observer;
mod outcome;
mod phases;
mod spec;
mod task;

pub use ablation::Ablation;
pub use actbench_activations::model::LAYER_NUMBERING;
pub use config::{ProbeSolver, RunConfig, check_threads};
pub use device_map::DeviceMap;
pub use fault::Fault;
pub use injection::Injection;
pub use memory_limit::MemoryLimit;
pub use method::Method;
pub use metrics::CaseMetrics;
pub use observer::{CaseObserver, NoopObserver, Phase};
pub use outcome::{CaseOutcome, GpuPeaks};
pub use phases::{CasePhases, NamedPhase, start_up_share};
pub use spec::CaseSpec;
pub use task::Task;
