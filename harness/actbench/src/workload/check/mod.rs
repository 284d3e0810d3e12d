//! What a device has to prove before its figures are worth anything: reference values, and the same bits every way.
//!
//! This is what tests check where a device is emulated, as a part of the program, for machines that have a real one and
//! no sources. It goes through the same loading and the same extraction as a run.

use std::path::Path;

use serde::Serialize;

use super::case::{DeviceMap, Method, RunConfig, Task};
use super::device;
use super::prepare::{Prepared, prepare};
use super::{request, with_layers};
use crate::devices::choose::{DeviceChoice, Placement};
use crate::error::Result;

mod goldens;
mod same_bits;

/// One thing that was checked.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// What was checked.
    pub what: String,
    /// Whether it holds.
    pub passed: bool,
    /// How far it was from failing, or why it failed.
    pub detail: String,
}

impl Finding {
    /// From what a check came to.
    fn of(what: String, result: std::result::Result<String, String>) -> Finding {
        let passed = result.is_ok();
        let (Ok(detail) | Err(detail)) = result;
        Finding { what, passed, detail }
    }
}

/// How much is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Samples of the features that are compared bit by bit.
    samples: usize,
    /// Whether all storage types are gone through, or bf16 alone.
    all_dtypes: bool,
    /// Whether probes are trained too.
    probes: bool,
}

impl Extent {
    /// What a GPU does in seconds.
    pub const WHOLE: Extent = Extent { samples: 200, all_dtypes: true, probes: true };
    /// What an emulated one does in seconds. Probes on so few samples would have nothing to say.
    pub const QUICK: Extent = Extent { samples: 4, all_dtypes: false, probes: false };
}

/// The device that a check is of, opened and checked by [`run`].
pub struct Subject {
    config: RunConfig,
    prepared: Prepared,
    choice: DeviceChoice,
}

impl Subject {
    /// What `config` (its model and device map) comes to on this machine. Opens nothing.
    ///
    /// # Errors
    /// A device that is not there.
    pub fn find(config: &RunConfig, extent: Extent) -> Result<Self> {
        let tasks = vec![Task::Sweep];
        let methods = vec![Method::Lazy];
        let dataset = Some(if extent.all_dtypes { "embedded" } else { "embedded:short" }.to_owned());
        // Half of the samples on each side: with few of them a smaller side would lack a class.
        let (samples, train_frac) = (extent.samples, 0.5);
        let config = RunConfig { tasks, methods, dataset, samples, train_frac, ..config.clone() };
        let prepared = prepare(request(&config, true))?;
        let config = with_layers(&config, &prepared);
        let choice = device::choose(&config, &prepared)?;
        Ok(Subject { config, prepared, choice })
    }

    /// What it is, for people.
    pub fn describe(&self) -> String {
        match &self.choice.placement {
            Placement::Cpu => "cpu".to_owned(),
            Placement::Gpus(gpus, ordinals, _) => {
                let name = |ordinal: &usize| gpus.devices.get(*ordinal).map(|gpu| gpu.name.clone());
                ordinals.iter().filter_map(name).collect::<Vec<_>>().join(", ")
            }
        }
    }
}

/// Checks `subject` against the goldens in `folder` and against itself and the CPU. What is found is told to `tell` at once.
///
/// # Errors
/// Goldens that cannot be read. What goes wrong on the device is a finding.
pub fn run(subject: &Subject, folder: &Path, extent: Extent, tell: &mut dyn FnMut(&Finding)) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let mut found = |finding: Finding| {
        tell(&finding);
        findings.push(finding);
    };
    goldens::check(subject, folder, extent, &mut found)?;
    same_bits::check(subject, extent, &mut found)?;
    Ok(findings)
}

impl Subject {
    /// The settings, on the CPU.
    fn on_cpu(&self) -> RunConfig {
        RunConfig { device_map: DeviceMap::Cpu, ..self.config.clone() }
    }
}
