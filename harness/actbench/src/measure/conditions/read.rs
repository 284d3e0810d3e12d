//! Gathers the conditions of the system, below a root directory that tests replace.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::Conditions;
use super::parse::{
    chosen, gpu_processes, gpu_throttling, is_virtual, load_average, named_number, number, pressure_some,
    processor_quota, processor_ticks,
};
use crate::measure::gpu;

/// The state of this machine, with the report of `nvidia-smi` if there is a driver.
pub fn conditions() -> Conditions {
    let mut found = below(Path::new("/"));
    if let Some(text) = gpu::query(&["--query-compute-apps=pid,process_name,used_memory", "--format=csv,noheader"]) {
        let own = std::process::id();
        found.gpu_processes = gpu_processes(&text).into_iter().filter(|process| process.pid != own).collect();
    }
    if let Some(text) = gpu::query(&["--query-gpu=index,clocks_throttle_reasons.active", "--format=csv,noheader"]) {
        let owned = |reasons: Vec<&str>| reasons.into_iter().map(str::to_owned).collect();
        found.gpu_throttling = gpu_throttling(&text).into_iter().map(|(gpu, reasons)| (gpu, owned(reasons))).collect();
    }
    found
}

/// The state according to the files below `root`.
pub fn below(root: &Path) -> Conditions {
    let meminfo = text(root, "proc/meminfo").unwrap_or_default();
    let mib = |name: &str| named_number(&meminfo, name).map(|kib| kib as f64 / 1024.0);
    let ticks = text(root, "proc/stat").as_deref().and_then(processor_ticks).filter(|ticks| ticks.total > 0);
    let pressure = |resource: &str| text(root, &format!("proc/pressure/{resource}")).as_deref().and_then(pressure_some);
    Conditions {
        processors: std::thread::available_parallelism().map_or(1, usize::from),
        is_virtual: text(root, "proc/cpuinfo").is_some_and(|cpuinfo| is_virtual(&cpuinfo)),
        governors: governors(root),
        turbo: turbo(root),
        load_average: text(root, "proc/loadavg").as_deref().and_then(load_average),
        processor_quota: own_cgroup(root).and_then(|cgroup| processor_quota(&read(&cgroup.join("cpu.max"))?)),
        stolen_fraction: ticks.map(|ticks| ticks.stolen as f64 / ticks.total as f64),
        thermal_events: thermal_events(root),
        memory_available_mb: mib("MemAvailable"),
        memory_total_mb: mib("MemTotal"),
        swap_used_mb: mib("SwapTotal").zip(mib("SwapFree")).map(|(total, free)| total - free),
        memory_pressure: pressure("memory"),
        io_pressure: pressure("io"),
        huge_pages: text(root, "sys/kernel/mm/transparent_hugepage/enabled").as_deref().and_then(chosen),
        on_battery: on_battery(root),
        gpu_processes: Vec::new(),
        gpu_throttling: Vec::new(),
        debug_build: env!("ACTBENCH_PROFILE") == "debug",
    }
}

/// The file `name` below `root`; none where it cannot be read.
pub(super) fn text(root: &Path, name: &str) -> Option<String> {
    read(&root.join(name))
}

fn read(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok()
}

/// The directories `/sys/devices/system/cpu/cpuN`, by name.
fn processors(root: &Path) -> Vec<PathBuf> {
    directories(&root.join("sys/devices/system/cpu"), |name| {
        name.strip_prefix("cpu").is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()))
    })
}

fn directories(parent: &Path, wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    let named = entries.filter(|entry| wanted(&entry.file_name().to_string_lossy()));
    let mut found: Vec<PathBuf> = named.map(|entry| entry.path()).collect();
    found.sort();
    found
}

fn governors(root: &Path) -> Vec<String> {
    let names = processors(root).into_iter().filter_map(|cpu| read(&cpu.join("cpufreq/scaling_governor")));
    names.map(|name| name.trim().to_owned()).collect::<BTreeSet<String>>().into_iter().collect()
}

/// Whether turbo is on. Intel's driver reports whether it is off, other drivers whether boost is on.
fn turbo(root: &Path) -> Option<bool> {
    let flag = |name: &str| text(root, &format!("sys/devices/system/cpu/{name}")).as_deref().and_then(number);
    flag("intel_pstate/no_turbo").map(|off| off == 0).or_else(|| flag("cpufreq/boost").map(|on| on != 0))
}

/// Thermal throttling events of all cores and packages.
pub(super) fn thermal_events(root: &Path) -> Option<u64> {
    let counts = processors(root).into_iter().flat_map(|cpu| {
        ["core_throttle_count", "package_throttle_count"]
            .map(|name| read(&cpu.join("thermal_throttle").join(name)).as_deref().and_then(number))
    });
    counts.flatten().reduce(u64::saturating_add)
}

/// The directory of this process's cgroup, of version 2; those of version 1 have no `cpu.max`.
fn own_cgroup(root: &Path) -> Option<PathBuf> {
    let groups = text(root, "proc/self/cgroup")?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::/"))?.trim_end().to_owned();
    Some(root.join("sys/fs/cgroup").join(path))
}

/// Periods in which the cgroup was throttled.
pub(super) fn throttled_periods(root: &Path) -> Option<u64> {
    named_number(&read(&own_cgroup(root)?.join("cpu.stat"))?, "nr_throttled")
}

/// Whether the machine has mains supplies and none of them is plugged in.
fn on_battery(root: &Path) -> Option<bool> {
    let supplies = directories(&root.join("sys/class/power_supply"), |_| true);
    let online = |supply: &PathBuf| {
        let mains = read(&supply.join("type"))?.trim() == "Mains";
        mains.then(|| Some(number(&read(&supply.join("online"))?)? != 0))?
    };
    let mains: Vec<bool> = supplies.iter().filter_map(online).collect();
    (!mains.is_empty()).then(|| mains.iter().all(|online| !online))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::conditions::SystemCounters;

    /// A directory with the files of a laptop.
    fn laptop() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let files = [
            ("proc/cpuinfo", "flags : fpu avx2\n"),
            ("proc/loadavg", "0.10 0.20 0.30 1/100 1\n"),
            ("proc/stat", "cpu  100 0 100 700 50 0 0 50 0 0\n"),
            ("proc/meminfo", "MemTotal: 8388608 kB\nMemAvailable: 1048576 kB\nSwapTotal: 2048 kB\nSwapFree: 1024 kB\n"),
            ("proc/vmstat", "pswpin 3\npswpout 4\n"),
            ("proc/pressure/memory", "some avg10=2.50 avg60=0 avg300=0 total=0\n"),
            ("proc/pressure/io", "some avg10=7.50 avg60=0 avg300=0 total=0\n"),
            ("proc/self/cgroup", "1:cpu:/old\n0::/user/job\n"),
            ("sys/fs/cgroup/user/job/cpu.max", "50000 100000\n"),
            ("sys/fs/cgroup/user/job/cpu.stat", "usage_usec 1\nnr_periods 9\nnr_throttled 6\n"),
            ("sys/kernel/mm/transparent_hugepage/enabled", "[always] madvise never\n"),
            ("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "powersave\n"),
            ("sys/devices/system/cpu/cpu1/cpufreq/scaling_governor", "performance\n"),
            ("sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count", "2\n"),
            ("sys/devices/system/cpu/cpu1/thermal_throttle/package_throttle_count", "5\n"),
            ("sys/devices/system/cpu/cpufreq/boost", "1\n"),
            ("sys/class/power_supply/AC/type", "Mains\n"),
            ("sys/class/power_supply/AC/online", "0\n"),
            ("sys/class/power_supply/BAT0/type", "Battery\n"),
        ];
        for (name, text) in files {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn state_and_counters_are_read_from_files() {
        let root = laptop();
        let found = below(root.path());
        assert_eq!(found.governors, ["performance", "powersave"]);
        assert_eq!((found.turbo, found.on_battery, found.is_virtual), (Some(true), Some(true), false));
        assert_eq!((found.processor_quota, found.stolen_fraction), (Some(0.5), Some(0.05)));
        assert_eq!((found.thermal_events, found.swap_used_mb), (Some(7), Some(1.0)));
        assert_eq!((found.memory_available_mb, found.memory_total_mb), (Some(1024.0), Some(8192.0)));
        assert_eq!((found.memory_pressure, found.io_pressure), (Some(2.5), Some(7.5)));
        assert_eq!(found.huge_pages.as_deref(), Some("always"));
        let counters = SystemCounters::read(root.path());
        assert_eq!(
            (counters.swapped_pages, counters.thermal_events, counters.throttled_periods),
            (Some(7), Some(7), Some(6))
        );
        fs::create_dir_all(root.path().join("sys/devices/system/cpu/intel_pstate")).unwrap();
        fs::write(root.path().join("sys/devices/system/cpu/intel_pstate/no_turbo"), "1\n").unwrap();
        assert_eq!(turbo(root.path()), Some(false));
    }

    #[test]
    fn missing_files_are_unknown_facts() {
        let root = tempfile::tempdir().unwrap();
        let found = below(root.path());
        let nothing =
            Conditions { processors: found.processors, debug_build: found.debug_build, ..Conditions::default() };
        assert_eq!(found, nothing);
        assert_eq!(SystemCounters::read(root.path()), SystemCounters::default());
    }
}
