//! Disturbances of measurements, as result files keep them and terminals show them.

use serde::{Deserialize, Serialize};

/// The severity of a warning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Relevant when figures of two machines are compared.
    Note,
    /// Figures are likely to be worse or less certain than on an undisturbed machine.
    Warning,
}

/// The subject of a warning, for programs that read result files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A build without optimization.
    DebugBuild,
    /// A frequency governor that varies the clock.
    Governor,
    /// A clock that may exceed its nominal value.
    Turbo,
    /// Load by other processes.
    Load,
    /// A CPU quota.
    Quota,
    /// CPU time stolen by other virtual machines.
    Steal,
    /// A virtual machine.
    Virtual,
    /// Thermal throttling of processors.
    Thermal,
    /// Little available memory.
    Memory,
    /// Swap space in use.
    Swap,
    /// Tasks that wait for memory or I/O.
    Pressure,
    /// Transparent huge pages.
    HugePages,
    /// Battery power.
    Battery,
    /// Other processes on a GPU.
    GpuProcesses,
    /// A GPU whose clock is throttled.
    GpuClock,
    /// Files that are not in the page cache.
    PageCache,
}

/// A disturbance of measurements, with its remedy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    /// The subject.
    pub kind: Kind,
    /// The severity.
    pub level: Level,
    /// The disturbance.
    pub what: String,
    /// The remedy.
    pub advice: String,
}

impl Warning {
    /// A disturbance that affects figures.
    pub fn new(kind: Kind, what: impl Into<String>, advice: impl Into<String>) -> Self {
        Warning { kind, level: Level::Warning, what: what.into(), advice: advice.into() }
    }

    /// A fact that matters for comparisons.
    pub fn note(kind: Kind, what: impl Into<String>, advice: impl Into<String>) -> Self {
        Warning { level: Level::Note, ..Warning::new(kind, what, advice) }
    }
}

/// One line with all warnings: `the machine disturbs measurements: A; B (...)`; none if there are only notes.
pub fn short_line(warnings: &[Warning]) -> Option<String> {
    let disturbances: Vec<&str> =
        warnings.iter().filter(|it| it.level == Level::Warning).map(|warning| warning.what.as_str()).collect();
    (!disturbances.is_empty()).then(|| {
        format!("the machine disturbs measurements: {} (`actbench env` lists remedies)", disturbances.join("; "))
    })
}
