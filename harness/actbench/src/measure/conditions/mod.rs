//! What about the machine disturbs measurements, and what to do about it.
//!
//! [`read`] gathers the texts of the system, [`parse`] understands them, [`judge`] turns what they say into [`Warning`]s.
//! [`counters`] is what only shows over a stretch of time: processor time that was stolen, pages that were swapped, clocks
//! that were throttled. Nothing here fails: what cannot be read is not known.

use serde::{Deserialize, Serialize};

pub mod counters;
pub mod judge;
pub mod parse;
pub mod read;

pub use counters::Counters;
pub use judge::{during, warnings};
pub use read::conditions;

use parse::GpuProcess;

/// The state of the machine before a measurement; what is not known is none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Conditions {
    /// Processors that threads can run on.
    pub processors: usize,
    /// Whether it is a virtual machine.
    pub is_virtual: bool,
    /// The governors of the processors, each once.
    pub governors: Vec<String>,
    /// Whether processors may run above their nominal clock.
    pub turbo: Option<bool>,
    /// Running tasks on average over 1, 5 and 15 minutes.
    pub load_average: Option<[f64; 3]>,
    /// Processors that the control group may use at once, where that is limited.
    pub processor_quota: Option<f64>,
    /// Share of the processors' time since the machine started that went to other virtual machines.
    pub stolen_share: Option<f64>,
    /// Times that a processor was too hot since the machine started.
    pub thermal_events: Option<u64>,
    /// Memory that can be had without swapping, in MB of 2^20 bytes.
    pub memory_available_mb: Option<f64>,
    /// All memory.
    pub memory_total_mb: Option<f64>,
    /// Swap space in use.
    pub swap_used_mb: Option<f64>,
    /// Share of the last 10 seconds, in per cent, in which a task waited for memory.
    pub memory_pressure: Option<f64>,
    /// The same for files and disks.
    pub io_pressure: Option<f64>,
    /// Transparent huge pages: `always`, `madvise` or `never`.
    pub huge_pages: Option<String>,
    /// Whether the machine runs on its battery.
    pub on_battery: Option<bool>,
    /// Other processes on the GPUs.
    pub gpu_processes: Vec<GpuProcess>,
    /// GPUs whose clock is kept down, with the reasons.
    pub gpu_throttling: Vec<(u32, Vec<String>)>,
    /// Whether this program was built without optimisation.
    pub debug_build: bool,
}

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Good to know when figures of two machines are compared.
    Note,
    /// Figures are likely to be worse or less certain than they could be.
    Warning,
}

/// What it is about; programs that read result files go by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A build without optimisation.
    DebugBuild,
    /// The governor lets the clock vary.
    Governor,
    /// The clock may rise above its nominal value.
    Turbo,
    /// Other work on the processors.
    Load,
    /// A limit on processor time.
    Quota,
    /// Time taken by other virtual machines.
    Steal,
    /// A virtual machine.
    Virtual,
    /// Processors that were too hot.
    Thermal,
    /// Little memory left.
    Memory,
    /// Swap space in use.
    Swap,
    /// Tasks that wait for memory or disks.
    Pressure,
    /// Transparent huge pages.
    HugePages,
    /// Battery.
    Battery,
    /// Others on a GPU.
    GpuProcesses,
    /// A GPU whose clock is kept down.
    GpuClock,
    /// Files that are not in memory yet.
    PageCache,
}

/// A finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    /// What it is about.
    pub kind: Kind,
    /// How much it matters.
    pub level: Level,
    /// What was found.
    pub what: String,
    /// What to do.
    pub advice: String,
}

impl Warning {
    /// Something that makes figures worse.
    pub fn new(kind: Kind, what: impl Into<String>, advice: impl Into<String>) -> Self {
        Warning { kind, level: Level::Warning, what: what.into(), advice: advice.into() }
    }

    /// Something good to know.
    pub fn note(kind: Kind, what: impl Into<String>, advice: impl Into<String>) -> Self {
        Warning { level: Level::Note, ..Warning::new(kind, what, advice) }
    }
}

/// The findings that matter, in one short line: `2 things disturb ...: A; B (actbench env says what to do)`; none without any.
pub fn short_line(warnings: &[Warning]) -> Option<String> {
    let told: Vec<&str> =
        warnings.iter().filter(|it| it.level == Level::Warning).map(|warning| warning.what.as_str()).collect();
    (!told.is_empty())
        .then(|| format!("the machine disturbs measurements: {} (`actbench env` says what to do)", told.join("; ")))
}
