//! The machine and the build that figures come from, as plain data.

use std::fs;

use actbench_kernels::cpu::Isa;
use serde::{Deserialize, Serialize};

use super::MIB;
use super::gpu::gpu_facts;

/// The machine, the build and the command line. Unknown facts are null in JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Environment {
    /// When the run began, RFC 3339 in UTC.
    pub date: String,
    /// The model name that the processor reports.
    pub cpu_model: Option<String>,
    /// Processors that threads can run on.
    pub cores_logical: usize,
    /// Cores; hyper-threads of a core count once.
    pub cores_physical: Option<usize>,
    /// Memory, in MiB.
    pub ram_mb: Option<f64>,
    /// Frequency governor of the first processor.
    pub governor: Option<String>,
    /// Kernel name and release.
    pub kernel: Option<String>,
    /// Instruction set that the CPU backend uses; see `ACTBENCH_CPU_ISA`.
    #[serde(default)]
    pub instruction_set: Option<String>,
    /// Transparent huge pages: `always`, `madvise` or `never`.
    #[serde(default)]
    pub huge_pages: Option<String>,
    /// Names of the GPUs, as reported by their driver.
    pub gpus: Vec<String>,
    /// Version of the GPU driver.
    pub driver: Option<String>,
    /// Version of CUDA that the driver supports.
    pub cuda: Option<String>,
    /// Version of actbench.
    pub version: String,
    /// Compiler of the build.
    pub rustc: Option<String>,
    /// `release` or `debug`.
    pub profile: String,
    /// Target triple of the build, as in `x86_64-unknown-linux-gnu`.
    #[serde(default)]
    pub target: Option<String>,
    /// Cargo features of the build.
    #[serde(default)]
    pub features: Vec<String>,
    /// Compiler flags in addition to those of the profile.
    #[serde(default)]
    pub rustflags: Option<String>,
    /// Commit of the build.
    pub commit: Option<String>,
    /// Whether the working tree differed from the commit.
    pub dirty: Option<bool>,
    /// The command line, beginning with the name of the executable.
    pub command_line: Vec<String>,
}

impl Environment {
    /// Reads the facts of this machine and build. `huge_pages` comes from the caller, who has read it with the other
    /// conditions.
    pub fn read(huge_pages: Option<String>) -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let gpu = gpu_facts();
        let known = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let features = env!("ACTBENCH_FEATURES").split(',').filter(|feature| !feature.is_empty());
        Environment {
            date: chrono::DateTime::<chrono::Utc>::from(std::time::SystemTime::now())
                .format("%Y-%m-%dT%H:%M:%S%.3fZ")
                .to_string(),
            cpu_model: field(&cpuinfo, "model name"),
            cores_logical: std::thread::available_parallelism().map_or(1, usize::from),
            cores_physical: physical_cores(&cpuinfo),
            ram_mb: field(&meminfo, "MemTotal").and_then(|text| kibibytes(&text)).map(|kib| kib * 1024.0 / MIB),
            governor: line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            kernel: line("/proc/sys/kernel/ostype")
                .zip(line("/proc/sys/kernel/osrelease"))
                .map(|(name, release)| format!("{name} {release}")),
            instruction_set: Some(Isa::detect().to_string()),
            huge_pages,
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
        }
    }

    /// The differences of machine or build to another environment, as `processor: A and B`; empty if figures are
    /// comparable.
    pub fn differences(&self, other: &Environment) -> Vec<String> {
        // Firmware and kernels reserve a small and varying part of the memory, so sizes are rounded to 0.25 GiB.
        let ram = |environment: &Environment| environment.ram_mb.map(|mib| (mib / 256.0).round() / 4.0);
        let facts = |environment: &Environment| {
            let Environment { cpu_model, cores_logical, cores_physical, governor, kernel, gpus, .. } = environment;
            let Environment { driver, cuda, version, rustc, profile, commit, dirty, .. } = environment;
            let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "unknown".to_owned());
            let cores = cores_physical.map_or_else(|| "unknown".to_owned(), |cores| cores.to_string());
            let memory = ram(environment).map_or_else(|| "unknown".to_owned(), |gib| format!("{gib:.2} GiB"));
            [
                ("processor", text(cpu_model)),
                ("processors", cores_logical.to_string()),
                ("cores", cores),
                ("memory", memory),
                ("governor", text(governor)),
                ("kernel", text(kernel)),
                ("GPUs", gpus.join(", ")),
                ("driver", text(driver)),
                ("CUDA", text(cuda)),
                ("version", version.clone()),
                ("compiler", text(rustc)),
                ("profile", profile.clone()),
                ("commit", text(commit)),
                (
                    "changes since the commit",
                    dirty.map_or("unknown", |dirty| if dirty { "yes" } else { "no" }).to_owned(),
                ),
            ]
        };
        let pairs = facts(self).into_iter().zip(facts(other));
        let different = pairs.filter(|((_, mine), (_, theirs))| mine != theirs);
        different.map(|((name, mine), (_, theirs))| format!("{name}: {mine} and {theirs}")).collect()
    }
}

/// The first value of a `name : value` line.
fn field(text: &str, name: &str) -> Option<String> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.trim() == name)
        .map(|(_, value)| value.trim().to_owned())
}

fn kibibytes(text: &str) -> Option<f64> {
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
    fn hyper_threads_of_a_core_count_once() {
        let cpuinfo = "processor : 0\nphysical id : 0\ncore id : 0\n\nprocessor : 1\nphysical id : 0\ncore id : 0\n\n\
                       processor : 2\nphysical id : 0\ncore id : 1\n";
        assert_eq!(physical_cores(cpuinfo), Some(2));
        assert_eq!(physical_cores("processor : 0\n"), None);
    }

    #[test]
    fn differences_name_the_fact_and_ignore_time() {
        let here = Environment::read(None);
        let later = Environment { date: "2030-01-01T00:00:00Z".to_owned(), command_line: Vec::new(), ..here.clone() };
        assert_eq!(here.differences(&later), [""; 0]);
        let there = Environment { cpu_model: Some("Another".to_owned()), version: "9".to_owned(), ..here.clone() };
        let differences = here.differences(&there);
        assert_eq!(differences.len(), 2, "{differences:?}");
        assert!(
            differences[0].starts_with("processor: ") && differences[0].ends_with(" and Another"),
            "{differences:?}"
        );
    }
}
