//! What is held fixed while the number of samples varies: only cells of one setting are on one curve.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::case::{DeviceMap, Task};
use crate::results::ResultFile;

/// What a model ran on, as far as a recommendation depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Device {
    /// The CPU.
    Cpu,
    /// One GPU.
    OneGpu,
    /// Several GPUs, blocks split between them.
    SeveralGpus,
}

impl Device {
    /// All of them, in the order of reports.
    pub const ALL: [Device; 3] = [Device::Cpu, Device::OneGpu, Device::SeveralGpus];

    /// What the rows of `results` ran on: a GPU shows itself by its memory figures.
    fn of(results: &ResultFile) -> Self {
        let on_gpu = results.rows.iter().any(|row| row.gpu_peak_alloc_mb.is_some());
        let several = results.environment.gpus.len() > 1;
        match (on_gpu, results.config.device_map) {
            (true, DeviceMap::Balanced) if several => Device::SeveralGpus,
            (_, DeviceMap::Replicas(count)) if count > 1 => Device::SeveralGpus,
            (true, _) => Device::OneGpu,
            // Where every case failed there are no figures, and what was asked for has to do.
            (false, DeviceMap::Cuda(_) | DeviceMap::Replicas(_)) => Device::OneGpu,
            (false, DeviceMap::Balanced) if several => Device::SeveralGpus,
            (false, _) => Device::Cpu,
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Device::Cpu => "CPU",
            Device::OneGpu => "one GPU",
            Device::SeveralGpus => "several GPUs",
        })
    }
}

/// Everything but the samples and the methods.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Setting {
    /// The workload.
    pub task: Task,
    /// Model as the user named it, `embedded` where none was.
    pub model: String,
    /// Data set as the user named it, `embedded` where none was.
    pub dataset: String,
    /// The layer of the task `train`, the number of layers of the task `sweep`.
    pub layers: usize,
    /// How positions are pooled.
    pub pool: String,
    /// Which positions are pooled.
    pub mask: String,
    /// Storage type.
    pub dtype: String,
    /// Samples of a batch.
    pub batch_size: usize,
    /// What the model ran on.
    pub device: Device,
    /// Processor and GPUs: times of two machines are on no common curve.
    pub machine: String,
    /// Optimiser rules that were off in all cases.
    pub without: String,
    /// Threads, or `all`.
    pub threads: String,
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
            device: Device::of(results),
            machine: machine.into_iter().chain(environment.gpus.clone()).collect::<Vec<_>>().join(", "),
            without: config.no_opt.join(", "),
            threads: config.threads.map_or_else(|| "all".to_owned(), |threads| threads.to_string()),
        }
    }

    /// `layer 12` of the task `train`, `16 layers` of the task `sweep`.
    pub fn depth(&self) -> String {
        match (self.task, self.layers) {
            (Task::Train, layer) => format!("layer {layer}"),
            (Task::Sweep, 1) => "1 layer".to_owned(),
            (Task::Sweep, layers) => format!("{layers} layers"),
        }
    }

    /// The setting in words, the machine apart: `sweep, embedded, 8 layers, mean, bf16, batch 8, CPU`.
    pub fn label(&self) -> String {
        self.label_with(Some(&self.depth()))
    }

    /// The same without the layers, for what is shown against them.
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
        parts.join(", ")
    }
}
