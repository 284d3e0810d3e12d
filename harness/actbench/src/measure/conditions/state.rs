//! The state of the machine, as far as it affects measurements.

use serde::{Deserialize, Serialize};

use super::parse::GpuProcess;

/// The state of the machine before a measurement; unknown facts are none.
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
    /// CPU quota of the cgroup, in processors; none if it has no quota.
    pub processor_quota: Option<f64>,
    /// Fraction of CPU time since boot that the hypervisor gave to other virtual machines.
    pub stolen_fraction: Option<f64>,
    /// Thermal throttling events since boot.
    pub thermal_events: Option<u64>,
    /// Memory available without swapping, in MiB.
    pub memory_available_mb: Option<f64>,
    /// Size of the memory, in MiB.
    pub memory_total_mb: Option<f64>,
    /// Swap space in use, in MiB.
    pub swap_used_mb: Option<f64>,
    /// Percentage of the last 10 seconds in which a task waited for memory.
    pub memory_pressure: Option<f64>,
    /// The same for I/O.
    pub io_pressure: Option<f64>,
    /// Transparent huge pages: `always`, `madvise` or `never`.
    pub huge_pages: Option<String>,
    /// Whether the machine runs on its battery.
    pub on_battery: Option<bool>,
    /// Other processes on the GPUs.
    pub gpu_processes: Vec<GpuProcess>,
    /// GPUs whose clock is throttled, with the reasons.
    pub gpu_throttling: Vec<(u32, Vec<String>)>,
    /// Whether actbench was built without optimization.
    pub debug_build: bool,
}
