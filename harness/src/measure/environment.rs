//! The machine and the build that figures come from.

use std::fs;

use actbench_kernels::cpu::Isa;
use serde::{Deserialize, Serialize};

use super::MEGABYTE;
use super::conditions::{Warning, conditions, warnings};
use super::fingerprint::Fingerprint;
use super::gpu::gpus;
use super::resolution::{self, Resolution};

/// What the result file says of the machine and the build. Unknown is null.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Environment {
    /// When the run began, RFC 3339 in UTC.
    pub date: String,
    /// The processor's own name.
    pub cpu_model: Option<String>,
    /// Processors that threads can run on.
    pub cores_logical: usize,
    /// Cores, hyper-threads not counted.
    pub cores_physical: Option<usize>,
    /// Memory, in MB of 2^20 bytes.
    pub ram_mb: Option<f64>,
    /// Frequency governor of the first processor.
    pub governor: Option<String>,
    /// Kernel name and release.
    pub kernel: Option<String>,
    /// Instructions that the CPU's kernels use; see `ACTBENCH_CPU_ISA`.
    #[serde(default)]
    pub instruction_set: Option<String>,
    /// Transparent huge pages: `always`, `madvise` or `never`.
    #[serde(default)]
    pub huge_pages: Option<String>,
    /// Names of the GPUs, as their driver gives them.
    pub gpus: Vec<String>,
    /// Version of the GPU driver.
    pub driver: Option<String>,
    /// Version of CUDA that the driver supports.
    pub cuda: Option<String>,
    /// Version of this program.
    pub version: String,
    /// Compiler it was built with.
    pub rustc: Option<String>,
    /// `release` or `debug`.
    pub profile: String,
    /// What it was built for, as in `x86_64-unknown-linux-gnu`.
    #[serde(default)]
    pub target: Option<String>,
    /// Features it was built with.
    #[serde(default)]
    pub features: Vec<String>,
    /// Flags for the compiler beyond those of the profile.
    #[serde(default)]
    pub rustflags: Option<String>,
    /// Commit it was built from.
    pub commit: Option<String>,
    /// Whether the tree had changes then.
    pub dirty: Option<bool>,
    /// The arguments it was started with, the program's name first.
    pub command_line: Vec<String>,
    /// Digests of the above that say which figures may be compared; none in files from before there were any.
    #[serde(default)]
    pub fingerprint: Option<Fingerprint>,
    /// What disturbed the measurement, before and during it, and what to do about it.
    #[serde(default)]
    pub warnings: Vec<Warning>,
    /// What `actbench selftest` found out about this machine; none if it was never run here.
    #[serde(default)]
    pub resolution: Option<Resolution>,
}

impl Environment {
    /// Looks around.
    pub fn read() -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let gpu = gpus();
        let known = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let state = conditions();
        let features = env!("ACTBENCH_FEATURES").split(',').filter(|feature| !feature.is_empty());
        let mut environment = Environment {
            date: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            cpu_model: field(&cpuinfo, "model name"),
            cores_logical: std::thread::available_parallelism().map_or(1, usize::from),
            cores_physical: physical_cores(&cpuinfo),
            ram_mb: field(&meminfo, "MemTotal").and_then(|text| kilobytes(&text)).map(|kb| kb * 1024.0 / MEGABYTE),
            governor: line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            kernel: line("/proc/sys/kernel/ostype")
                .zip(line("/proc/sys/kernel/osrelease"))
                .map(|(name, release)| format!("{name} {release}")),
            instruction_set: Some(Isa::detect().to_string()),
            huge_pages: state.huge_pages.clone(),
            gpus: gpu.names,
            driver: gpu.driver,
            cuda: gpu.cuda,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            rustc: known(env!("ACTBENCH_RUSTC")),
            profile: env!("ACTBENCH_PROFILE").to_owned(),
            target: known(env!("ACTBENCH_TARGET")),
            features: features.map(str::to_owned).collect(),
            rustflags: known(env!("ACTBENCH_RUSTFLAGS")),
            commit: known(env!("ACTBENCH_COMMIT")),
            dirty: env!("ACTBENCH_DIRTY").parse().ok(),
            command_line: std::env::args_os().map(|argument| argument.to_string_lossy().into_owned()).collect(),
            resolution: None,
            fingerprint: None,
            warnings: warnings(&state),
        };
        environment.fingerprint = Some(Fingerprint::of(&environment));
        environment.resolution = resolution::known(&environment);
        environment
    }
}

/// The first value of a `name : value` line.
fn field(text: &str, name: &str) -> Option<String> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.trim() == name)
        .map(|(_, value)| value.trim().to_owned())
}

fn kilobytes(text: &str) -> Option<f64> {
    text.strip_suffix("kB")?.trim().parse().ok()
}

/// Distinct pairs of socket and core.
fn physical_cores(cpuinfo: &str) -> Option<usize> {
    let mut cores: Vec<(Option<String>, String)> = cpuinfo
        .split("\n\n")
        .filter_map(|processor| Some((field(processor, "physical id"), field(processor, "core id")?)))
        .collect();
    cores.sort();
    cores.dedup();
    (!cores.is_empty()).then_some(cores.len())
}

fn line(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hyper_threads_are_not_counted_as_cores() {
        let cpuinfo = "processor : 0\nphysical id : 0\ncore id : 0\n\nprocessor : 1\nphysical id : 0\ncore id : 0\n\n\
                       processor : 2\nphysical id : 0\ncore id : 1\n";
        assert_eq!(physical_cores(cpuinfo), Some(2));
        assert_eq!(physical_cores("processor : 0\n"), None);
    }

    #[test]
    fn the_environment_survives_json() {
        let environment = Environment::read();
        let text = serde_json::to_string(&environment).unwrap();
        assert_eq!(serde_json::from_str::<Environment>(&text).unwrap(), environment);
    }
}
