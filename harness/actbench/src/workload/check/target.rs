//! The device to check, the scope of a check, and its results.

use serde::Serialize;

use crate::case::{DeviceMap, Method, RunConfig, Task};
use crate::devices::choose::{DeviceChoice, Placement};
use crate::error::Result;
use crate::workload::device;
use crate::workload::layers::with_layers;
use crate::workload::prepare::{Prepared, prepare, request};

/// The result of one check.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CheckResult {
    /// The name of the check.
    #[serde(rename = "what")]
    pub name: String,
    /// Whether it passed.
    pub passed: bool,
    /// The measured error, or why the check failed.
    pub detail: String,
}

impl CheckResult {
    /// A passed or a failed check, with its detail.
    pub(super) fn new(name: String, result: std::result::Result<String, String>) -> CheckResult {
        let passed = result.is_ok();
        let (Ok(detail) | Err(detail)) = result;
        CheckResult { name, passed, detail }
    }
}

/// The scope of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckScope {
    /// Number of samples whose features are compared.
    pub(super) samples: usize,
    /// Whether all storage types are checked, or only bf16.
    pub(super) all_dtypes: bool,
    /// Whether probes are trained as well.
    pub(super) probes: bool,
}

impl CheckScope {
    /// Takes seconds on a GPU.
    pub const FULL: CheckScope = CheckScope { samples: 200, all_dtypes: true, probes: true };
    /// Takes seconds on the emulator. Probes on so few samples would be meaningless.
    pub const QUICK: CheckScope = CheckScope { samples: 4, all_dtypes: false, probes: false };
}

/// The device to check; [`run`](super::run) opens it.
pub struct CheckTarget {
    pub(super) config: RunConfig,
    pub(super) prepared: Prepared,
    pub(super) choice: DeviceChoice,
}

impl CheckTarget {
    /// Resolves the model and the device map of `config` on this machine, without opening a device.
    ///
    /// # Errors
    /// A device that does not exist.
    pub fn find(config: &RunConfig, scope: CheckScope) -> Result<Self> {
        let tasks = vec![Task::Sweep];
        let methods = vec![Method::Lazy];
        let dataset = Some(if scope.all_dtypes { "embedded" } else { "embedded:short" }.to_owned());
        // Half of the samples on each side: with few samples a smaller side might lack a class.
        let (samples, train_frac) = (scope.samples, 0.5);
        let config = RunConfig { tasks, methods, dataset, samples, train_frac, ..config.clone() };
        let prepared = prepare(request(&config, true))?;
        let config = with_layers(&config, &prepared);
        let choice = device::choose(&config, &prepared)?;
        Ok(CheckTarget { config, prepared, choice })
    }

    /// Describes the device.
    pub fn describe(&self) -> String {
        match &self.choice.placement {
            Placement::Cpu => "cpu".to_owned(),
            Placement::Gpus(gpus, ordinals, _) => {
                let name = |ordinal: &usize| gpus.devices.get(*ordinal).map(|gpu| gpu.name.clone());
                ordinals.iter().filter_map(name).collect::<Vec<_>>().join(", ")
            }
        }
    }

    /// The settings with the CPU as the device.
    pub(super) fn on_cpu(&self) -> RunConfig {
        RunConfig { device_map: DeviceMap::Cpu, ..self.config.clone() }
    }
}
