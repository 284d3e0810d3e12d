//! The settings that are fixed along a curve: only cells with equal settings are points of one curve.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::case::{DeviceMap, RunConfig, Task};
use crate::results::ResultFile;
use crate::results::identity::RunIdentity;

/// The class of devices that a model ran on; recommendations are made for each class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeviceClass {
    /// The CPU.
    Cpu,
    /// One GPU.
    OneGpu,
    /// Several GPUs, blocks split between them.
    SeveralGpus,
}

impl DeviceClass {
    /// All classes, in the order of reports.
    pub const ALL: [DeviceClass; 3] = [DeviceClass::Cpu, DeviceClass::OneGpu, DeviceClass::SeveralGpus];

    /// The class for the rows of `results`. A row that ran on a GPU has GPU memory figures.
    fn of(results: &ResultFile) -> Self {
        let on_gpu = results.rows.iter().any(|row| row.gpu_peak_alloc_mb.is_some());
        let several = results.environment.gpus.len() > 1;
        match (on_gpu, results.config.device_map) {
            (true, DeviceMap::Balanced) if several => DeviceClass::SeveralGpus,
            (_, DeviceMap::Replicas(count)) if count > 1 => DeviceClass::SeveralGpus,
            (true, _) => DeviceClass::OneGpu,
            // If every case failed, no row has GPU figures, and the requested device decides.
            (false, DeviceMap::Cuda(_) | DeviceMap::Replicas(_)) => DeviceClass::OneGpu,
            (false, DeviceMap::Balanced) if several => DeviceClass::SeveralGpus,
            (false, _) => DeviceClass::Cpu,
        }
    }
}

impl fmt::Display for DeviceClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            DeviceClass::Cpu => "CPU",
            DeviceClass::OneGpu => "one GPU",
            DeviceClass::SeveralGpus => "several GPUs",
        })
    }
}

/// All settings except samples and methods.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Setting {
    /// The workload.
    pub task: Task,
    /// Model as named by the user; `embedded` by default.
    pub model: String,
    /// Data set as named by the user; `embedded` by default.
    pub dataset: String,
    /// The layer for the task `train`, the number of layers for the task `sweep`.
    pub layers: usize,
    /// Pooling method.
    pub pool: String,
    /// Which positions are pooled.
    pub mask: String,
    /// Storage type.
    pub dtype: String,
    /// Samples of a batch.
    pub batch_size: usize,
    /// Class of the devices that the model ran on.
    pub device: DeviceClass,
    /// Processor and GPUs: times of different machines are not points of one curve.
    pub machine: String,
    /// Optimizer rules that were disabled in all cases.
    pub without: String,
    /// Number of threads, or `all`.
    pub threads: String,
    /// C, solver, iterations, seed and training fraction of the probes.
    pub probe: String,
    /// Digest of the data set; empty for files without one, which are identified by name.
    pub data: String,
    /// Digest of the model; empty for files without one.
    pub weights: String,
    /// The end of the label, if another setting has the same label without it; usually empty.
    #[serde(skip)]
    pub distinction: String,
}

/// Characters of a digest that a label has.
const DIGEST_SHOWN: usize = 8;

/// Lets labels that are equal, although data, model or probes differ, end with the difference.
pub(super) fn distinguish_labels(settings: &mut [&mut Setting]) {
    let short = |digest: &str| digest.get(..DIGEST_SHOWN).unwrap_or("unknown").to_owned();
    type Part<'a> = (&'a str, &'a dyn Fn(&Setting) -> String);
    let parts: [Part<'_>; 3] = [
        ("probes", &|setting| setting.probe.clone()),
        ("data", &|setting| short(&setting.data)),
        ("weights", &|setting| short(&setting.weights)),
    ];
    let mut values: BTreeMap<(String, &str), BTreeSet<String>> = BTreeMap::new();
    for setting in settings.iter() {
        for (name, value) in &parts {
            values.entry((setting.label_without_layers(), name)).or_default().insert(value(setting));
        }
    }
    for setting in settings {
        let label = setting.label_without_layers();
        let varies = |name: &str| values.get(&(label.clone(), name)).is_some_and(|values| values.len() > 1);
        let varying = parts.iter().filter(|(name, _)| varies(name));
        setting.distinction =
            varying.map(|(name, value)| format!("{name} {}", value(setting))).collect::<Vec<_>>().join(", ");
    }
}

/// The settings of the probes of `task`.
fn probe_settings(config: &RunConfig, task: Task) -> String {
    let (c, iterations) = match task {
        Task::Train => (config.train_c.to_string(), config.train_max_iter),
        Task::Sweep => {
            (config.sweep_cs.iter().map(f64::to_string).collect::<Vec<_>>().join("/"), config.sweep_max_iter)
        }
    };
    let (solver, seed, fraction) = (config.solver, config.seed, config.train_frac);
    format!("C {c} {solver} {iterations} iterations seed {seed} train fraction {fraction}")
}

impl Setting {
    /// The setting of `task` in `results`.
    pub fn of(results: &ResultFile, task: Task) -> Self {
        let (config, environment) = (&results.config, &results.environment);
        let name = |name: &Option<String>| name.clone().unwrap_or_else(|| "embedded".to_owned());
        let layers = match task {
            Task::Train => config.layer,
            Task::Sweep => config.sweep_layers,
        };
        let digest =
            |of: fn(&RunIdentity) -> Option<String>| results.identity.as_ref().and_then(of).unwrap_or_default();
        let cpu = environment.cpu_model.as_deref().unwrap_or("unknown processor");
        let machine = [format!("{cpu}, {} processors", environment.cores_logical)];
        Setting {
            task,
            model: name(&config.model),
            dataset: name(&config.dataset),
            layers: layers.unwrap_or(0),
            pool: config.pool.name().to_owned(),
            mask: config.mask.name().to_owned(),
            dtype: config.dtype.name().to_owned(),
            batch_size: config.batch_size,
            device: DeviceClass::of(results),
            machine: machine.into_iter().chain(environment.gpus.clone()).collect::<Vec<_>>().join(", "),
            without: config.no_opt.join(", "),
            threads: config.threads.map_or_else(|| "all".to_owned(), |threads| threads.to_string()),
            probe: probe_settings(config, task),
            data: digest(|identity| identity.data.clone()),
            weights: digest(|identity| identity.weights.clone()),
            distinction: String::new(),
        }
    }

    /// `layer 12` for the task `train`, `16 layers` for the task `sweep`.
    pub fn depth(&self) -> String {
        match (self.task, self.layers) {
            (Task::Train, layer) => format!("layer {layer}"),
            (Task::Sweep, 1) => "1 layer".to_owned(),
            (Task::Sweep, layers) => format!("{layers} layers"),
        }
    }

    /// A label without the machine: `sweep, embedded, 8 layers, mean, bf16, batch 8, CPU`.
    pub fn label(&self) -> String {
        self.label_with(Some(&self.depth()))
    }

    /// The same without the layers, for charts with layers as an axis.
    pub fn label_without_layers(&self) -> String {
        self.label_with(None)
    }

    fn label_with(&self, depth: Option<&str>) -> String {
        let mut parts = vec![self.task.to_string(), self.model.clone()];
        if self.dataset != "embedded" {
            parts.push(self.dataset.clone());
        }
        parts.extend(depth.map(str::to_owned));
        parts.push(self.pool.clone());
        if self.mask != "assistant" {
            parts.push(format!("mask {}", self.mask));
        }
        parts.extend([self.dtype.clone(), format!("batch {}", self.batch_size), self.device.to_string()]);
        if self.threads != "all" {
            parts.push(format!("{} threads", self.threads));
        }
        if !self.without.is_empty() {
            parts.push(format!("without {}", self.without));
        }
        if !self.distinction.is_empty() {
            parts.push(self.distinction.clone());
        }
        parts.join(", ")
    }
}
