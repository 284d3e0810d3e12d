//! Derives warnings and their remedies from the state of the machine, and from what changed during a measurement.

use super::counters::CounterChanges;
use super::state::Conditions;
use super::warning::{Kind, Warning};

/// Load average for each processor above which other processes compete for it.
const MAX_LOAD_PER_PROCESSOR: f64 = 0.25;

/// Fraction of stolen CPU time that is visible in medians.
const MAX_STOLEN_FRACTION: f64 = 0.01;

/// Fraction of memory that should be available.
const MIN_AVAILABLE_FRACTION: f64 = 0.1;

/// Swap in use, in MiB, above which memory of other processes is swapped in and out.
const MAX_SWAP_USED_MB: f64 = 64.0;

/// Percentages of time in which tasks wait for memory, and for I/O.
const MAX_MEMORY_PRESSURE: f64 = 1.0;
const MAX_IO_PRESSURE: f64 = 10.0;

/// Warnings about the state before a measurement, the most severe first.
pub fn warnings(state: &Conditions) -> Vec<Warning> {
    let mut found: Vec<Warning> = [build(state), processors(state), memory(state), gpus(state)].concat();
    found.sort_by_key(|warning| std::cmp::Reverse(warning.level));
    found
}

fn build(state: &Conditions) -> Vec<Warning> {
    let debug = || {
        Warning::new(
            Kind::DebugBuild,
            "this is a debug build: it is many times slower than a release build, and has other hot spots",
            "measure with a release build (`cargo build --release`)",
        )
    };
    state.debug_build.then(debug).into_iter().collect()
}

fn processors(state: &Conditions) -> Vec<Warning> {
    let mut found = Vec::new();
    let slow: Vec<&str> =
        state.governors.iter().map(String::as_str).filter(|governor| *governor != "performance").collect();
    if !slow.is_empty() {
        found.push(Warning::new(
            Kind::Governor,
            format!("the frequency governor is {}, so the clock follows the load", slow.join(", ")),
            "as root: `cpupower frequency-set -g performance`, or `echo performance | tee \
             /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor`",
        ));
    }
    if state.turbo == Some(true) {
        found.push(Warning::note(
            Kind::Turbo,
            "turbo is on: the clock depends on heat and on how many cores are busy",
            "for steadier figures, as root: `echo 1 > /sys/devices/system/cpu/intel_pstate/no_turbo` or `echo 0 > \
             /sys/devices/system/cpu/cpufreq/boost`",
        ));
    }
    if let Some([last_minute, ..]) = state.load_average
        && last_minute > MAX_LOAD_PER_PROCESSOR * state.processors as f64
    {
        found.push(Warning::new(
            Kind::Load,
            format!(
                "the load average is {last_minute:.2} on {} processors: other processes are running",
                state.processors
            ),
            "stop other processes and wait a minute; `top` lists them",
        ));
    }
    if let Some(quota) = state.processor_quota
        && quota < state.processors as f64
    {
        found.push(Warning::new(
            Kind::Quota,
            format!("the cgroup CPU quota is {quota:.2} of {} CPUs; the run will be throttled", state.processors),
            "raise the quota (`--cpus` of a container, `CPUQuota=` of systemd), or pass --threads N with N at most the quota",
        ));
    }
    if let Some(fraction) = state.stolen_fraction.filter(|fraction| *fraction > MAX_STOLEN_FRACTION) {
        found.push(Warning::new(
            Kind::Steal,
            format!("{:.1}% of CPU time since boot was stolen by other virtual machines", 100.0 * fraction),
            "use a machine with dedicated processors; rely on ratios within blocks, not on times",
        ));
    }
    if state.is_virtual {
        found.push(Warning::note(
            Kind::Virtual,
            "this is a virtual machine: its clock frequency is unknown, and other machines share caches and memory bandwidth",
            "rely on ratios within blocks; compare times only with those of the same machine",
        ));
    }
    if let Some(events) = state.thermal_events.filter(|events| *events > 0) {
        found.push(Warning::note(
            Kind::Thermal,
            format!("processors were throttled for heat {events} times since boot"),
            "improve cooling; later runs will report throttling again",
        ));
    }
    if state.on_battery == Some(true) {
        found.push(Warning::new(
            Kind::Battery,
            "the machine runs on battery",
            "plug it in: clocks are lower on battery",
        ));
    }
    found
}

fn memory(state: &Conditions) -> Vec<Warning> {
    let mut found = Vec::new();
    if let (Some(left), Some(total)) = (state.memory_available_mb, state.memory_total_mb)
        && left < MIN_AVAILABLE_FRACTION * total
    {
        found.push(Warning::new(
            Kind::Memory,
            format!("{left:.0} MiB of {total:.0} MiB of memory are available"),
            "close programs that use much memory (`ps aux --sort -rss | head`): low memory evicts cached files and causes swapping",
        ));
    }
    if let Some(used) = state.swap_used_mb.filter(|used| *used > MAX_SWAP_USED_MB) {
        found.push(Warning::new(
            Kind::Swap,
            format!("{used:.0} MiB are in swap space: peaks of resident memory may be too low, and times too high"),
            "free memory, then as root `swapoff -a && swapon -a`, or measure without swap",
        ));
    }
    for (resource, percent, limit) in
        [("memory", state.memory_pressure, MAX_MEMORY_PRESSURE), ("I/O", state.io_pressure, MAX_IO_PRESSURE)]
    {
        if let Some(percent) = percent.filter(|percent| *percent > limit) {
            found.push(Warning::new(
                Kind::Pressure,
                format!("tasks waited for {resource} in {percent:.1}% of the last 10 s"),
                "wait until other work has finished; watch `cat /proc/pressure/*`",
            ));
        }
    }
    if state.huge_pages.as_deref() == Some("always") {
        found.push(Warning::note(
            Kind::HugePages,
            "transparent huge pages are enabled for all memory: resident memory grows in steps of 2 MiB",
            "as root `echo madvise > /sys/kernel/mm/transparent_hugepage/enabled`, and compare memory only between machines \
             with the same setting",
        ));
    }
    found
}

fn gpus(state: &Conditions) -> Vec<Warning> {
    let mut found = Vec::new();
    if !state.gpu_processes.is_empty() {
        let processes: Vec<String> = state
            .gpu_processes
            .iter()
            .map(|process| format!("{} ({}, {})", process.name, process.pid, process.memory))
            .collect();
        found.push(Warning::new(
            Kind::GpuProcesses,
            format!("other processes use the GPUs: {}", processes.join(", ")),
            "stop them, or choose another GPU with --device-map cuda:N",
        ));
    }
    for (gpu, reasons) in &state.gpu_throttling {
        found.push(Warning::new(
            Kind::GpuClock,
            format!("the clock of GPU {gpu} is throttled: {}", reasons.join(", ")),
            "let it cool, raise its power limit, or lock a sustainable clock: `nvidia-smi --lock-gpu-clocks`",
        ));
    }
    found
}

/// Warnings about what changed during a measurement.
pub fn during(changes: &CounterChanges) -> Vec<Warning> {
    let mut found = Vec::new();
    if let Some(fraction) = changes.stolen_fraction.filter(|fraction| *fraction > MAX_STOLEN_FRACTION) {
        found.push(Warning::new(
            Kind::Steal,
            format!("{:.1}% of CPU time during the run was stolen by other virtual machines", 100.0 * fraction),
            "run again at another time, or with more --repetitions; rely on ratios within blocks, not on times",
        ));
    }
    if let Some(pages) = changes.swapped_pages.filter(|pages| *pages > 0) {
        found.push(Warning::new(
            Kind::Swap,
            format!("{pages} pages were swapped during the run"),
            "use fewer samples, or free memory, and run again: times include swap I/O; peak RSS excludes swapped-out pages",
        ));
    }
    if let Some(events) = changes.thermal_events.filter(|events| *events > 0) {
        found.push(Warning::new(
            Kind::Thermal,
            format!("processors were throttled for heat {events} times during the run"),
            "let the machine cool, improve cooling or disable turbo, and run again",
        ));
    }
    if let Some(periods) = changes.throttled_periods.filter(|periods| *periods > 0) {
        found.push(Warning::new(
            Kind::Quota,
            format!("the cgroup was throttled in {periods} periods during the run: it had used up its CPU quota"),
            "raise the quota, or pass a smaller --threads, and run again",
        ));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::conditions::{Level, short_line};

    fn quiet() -> Conditions {
        Conditions {
            processors: 8,
            governors: vec!["performance".to_owned()],
            turbo: Some(false),
            load_average: Some([1.9, 9.0, 9.0]),
            stolen_fraction: Some(0.001),
            thermal_events: Some(0),
            memory_available_mb: Some(4000.0),
            memory_total_mb: Some(8000.0),
            swap_used_mb: Some(0.0),
            memory_pressure: Some(0.0),
            io_pressure: Some(1.0),
            huge_pages: Some("madvise".to_owned()),
            on_battery: Some(false),
            ..Conditions::default()
        }
    }

    #[test]
    fn quiet_or_unknown_machine_has_no_warnings() {
        assert_eq!(warnings(&quiet()), []);
        assert_eq!(warnings(&Conditions { processors: 1, ..Conditions::default() }), []);
        assert_eq!(during(&CounterChanges::default()), []);
        assert_eq!(short_line(&[]), None);
    }

    #[test]
    fn each_disturbance_has_a_warning_and_remedy() {
        type Disturb = fn(&mut Conditions);
        let disturbances: [(Kind, Level, Disturb); 15] = [
            (Kind::DebugBuild, Level::Warning, |it| it.debug_build = true),
            (Kind::Governor, Level::Warning, |it| it.governors = vec!["performance".into(), "powersave".into()]),
            (Kind::Turbo, Level::Note, |it| it.turbo = Some(true)),
            (Kind::Load, Level::Warning, |it| it.load_average = Some([2.1, 0.0, 0.0])),
            (Kind::Quota, Level::Warning, |it| it.processor_quota = Some(7.5)),
            (Kind::Steal, Level::Warning, |it| it.stolen_fraction = Some(0.02)),
            (Kind::Virtual, Level::Note, |it| it.is_virtual = true),
            (Kind::Thermal, Level::Note, |it| it.thermal_events = Some(1)),
            (Kind::Battery, Level::Warning, |it| it.on_battery = Some(true)),
            (Kind::Memory, Level::Warning, |it| it.memory_available_mb = Some(700.0)),
            (Kind::Swap, Level::Warning, |it| it.swap_used_mb = Some(100.0)),
            (Kind::Pressure, Level::Warning, |it| it.memory_pressure = Some(1.5)),
            (Kind::Pressure, Level::Warning, |it| it.io_pressure = Some(15.0)),
            (Kind::HugePages, Level::Note, |it| it.huge_pages = Some("always".into())),
            (Kind::GpuClock, Level::Warning, |it| it.gpu_throttling = vec![(1, vec!["power cap".into()])]),
        ];
        for (kind, level, disturb) in disturbances {
            let mut state = quiet();
            disturb(&mut state);
            let found = warnings(&state);
            assert_eq!(found.len(), 1, "{kind:?}: {found:?}");
            assert_eq!((found[0].kind, found[0].level), (kind, level));
            assert!(!found[0].what.is_empty() && !found[0].advice.is_empty());
            assert_eq!(short_line(&found).is_some(), level == Level::Warning, "{kind:?}");
        }
    }

    #[test]
    fn changes_during_run_are_warnings() {
        let changes = CounterChanges {
            stolen_fraction: Some(0.03),
            swapped_pages: Some(4),
            thermal_events: Some(1),
            throttled_periods: Some(2),
        };
        let kinds: Vec<Kind> = during(&changes).into_iter().map(|warning| warning.kind).collect();
        assert_eq!(kinds, [Kind::Steal, Kind::Swap, Kind::Thermal, Kind::Quota]);
        let calm = CounterChanges {
            stolen_fraction: Some(0.0),
            swapped_pages: Some(0),
            thermal_events: Some(0),
            throttled_periods: Some(0),
        };
        assert_eq!(during(&calm), []);
    }

    #[test]
    fn severe_warnings_come_first() {
        let mut state = quiet();
        (state.is_virtual, state.swap_used_mb) = (true, Some(500.0));
        let kinds: Vec<Kind> = warnings(&state).into_iter().map(|warning| warning.kind).collect();
        assert_eq!(kinds, [Kind::Swap, Kind::Virtual]);
    }
}
