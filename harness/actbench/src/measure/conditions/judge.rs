//! What is worth saying of a machine's state, and what to do about it.

use super::counters::Changes;
use super::{Conditions, Kind, Warning};

/// Load a processor above which others compete for it.
const LOAD_A_PROCESSOR: f64 = 0.25;

/// Share of stolen time that shows in medians.
const STOLEN: f64 = 0.01;

/// Share of memory that should be left.
const MEMORY_LEFT: f64 = 0.1;

/// Swap in use, in MB, from which on parts of other programs' memory come and go.
const SWAP_USED_MB: f64 = 64.0;

/// Per cent of time in which tasks wait for memory, and for disks.
const MEMORY_PRESSURE: f64 = 1.0;
const IO_PRESSURE: f64 = 10.0;

/// Findings on the state before a measurement, those that matter first.
pub fn warnings(state: &Conditions) -> Vec<Warning> {
    let mut found: Vec<Warning> = [build(state), processors(state), memory(state), gpus(state)].concat();
    found.sort_by_key(|warning| std::cmp::Reverse(warning.level));
    found
}

fn build(state: &Conditions) -> Vec<Warning> {
    let debug = || {
        Warning::new(
            Kind::DebugBuild,
            "this is a debug build, many times slower than a release build and in other places",
            "build with `cargo build --release` and measure with that",
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
        && last_minute > LOAD_A_PROCESSOR * state.processors as f64
    {
        found.push(Warning::new(
            Kind::Load,
            format!("the load average is {last_minute:.2} on {} processors: others are at work", state.processors),
            "end other work and wait a minute; `top` shows who it is",
        ));
    }
    if let Some(quota) = state.processor_quota
        && quota < state.processors as f64
    {
        found.push(Warning::new(
            Kind::Quota,
            format!("the control group may use {quota:.2} of {} processors, and is stopped beyond", state.processors),
            "lift the limit (`--cpus` of a container, `CPUQuota=` of systemd), or pass --threads at most as large",
        ));
    }
    if let Some(share) = state.stolen_share.filter(|share| *share > STOLEN) {
        found.push(Warning::new(
            Kind::Steal,
            format!("{:.1}% of processor time since the machine started went to other virtual machines", 100.0 * share),
            "take a machine with processors of its own; trust ratios within blocks and not the times",
        ));
    }
    if state.is_virtual {
        found.push(Warning::note(
            Kind::Virtual,
            "this is a virtual machine: its clock cannot be seen, and neighbours share caches and memory",
            "trust ratios within blocks; compare times only with those of the same machine",
        ));
    }
    if let Some(events) = state.thermal_events.filter(|events| *events > 0) {
        found.push(Warning::note(
            Kind::Thermal,
            format!("processors were too hot {events} times since the machine started"),
            "see to its cooling; a run in which it happens again says so",
        ));
    }
    if state.on_battery == Some(true) {
        found.push(Warning::new(
            Kind::Battery,
            "the machine runs on its battery",
            "plug it in: batteries bring lower clocks",
        ));
    }
    found
}

fn memory(state: &Conditions) -> Vec<Warning> {
    let mut found = Vec::new();
    if let (Some(left), Some(total)) = (state.memory_available_mb, state.memory_total_mb)
        && left < MEMORY_LEFT * total
    {
        found.push(Warning::new(
            Kind::Memory,
            format!("{left:.0} MB of {total:.0} MB of memory are left"),
            "end what holds memory (`ps aux --sort -rss | head`): short memory drops cached files and swaps",
        ));
    }
    if let Some(used) = state.swap_used_mb.filter(|used| *used > SWAP_USED_MB) {
        found.push(Warning::new(
            Kind::Swap,
            format!("{used:.0} MB are in swap space: peaks of resident memory may be too low, times too high"),
            "free memory, then as root `swapoff -a && swapon -a`, or measure with swap off",
        ));
    }
    for (of, share, limit) in
        [("memory", state.memory_pressure, MEMORY_PRESSURE), ("disks", state.io_pressure, IO_PRESSURE)]
    {
        if let Some(share) = share.filter(|share| *share > limit) {
            found.push(Warning::new(
                Kind::Pressure,
                format!("tasks waited for {of} in {share:.1}% of the last 10 s"),
                "wait until other work is done; `cat /proc/pressure/*` shows when",
            ));
        }
    }
    if state.huge_pages.as_deref() == Some("always") {
        found.push(Warning::note(
            Kind::HugePages,
            "transparent huge pages are on for all memory: resident memory grows in steps of 2 MiB",
            "as root `echo madvise > /sys/kernel/mm/transparent_hugepage/enabled`, and compare memory only between machines \
             with the same setting",
        ));
    }
    found
}

fn gpus(state: &Conditions) -> Vec<Warning> {
    let mut found = Vec::new();
    if !state.gpu_processes.is_empty() {
        let told: Vec<String> = state
            .gpu_processes
            .iter()
            .map(|process| format!("{} ({}, {})", process.name, process.pid, process.memory))
            .collect();
        found.push(Warning::new(
            Kind::GpuProcesses,
            format!("other processes use the GPUs: {}", told.join(", ")),
            "end them, or choose another GPU with --device-map cuda:N",
        ));
    }
    for (gpu, reasons) in &state.gpu_throttling {
        found.push(Warning::new(
            Kind::GpuClock,
            format!("the clock of GPU {gpu} is kept down: {}", reasons.join(", ")),
            "let it cool, see to its power, or lock a clock it can hold: `nvidia-smi --lock-gpu-clocks`",
        ));
    }
    found
}

/// Findings on what happened during a measurement.
pub fn during(changes: &Changes) -> Vec<Warning> {
    let mut found = Vec::new();
    if let Some(share) = changes.stolen_share.filter(|share| *share > STOLEN) {
        found.push(Warning::new(
            Kind::Steal,
            format!("{:.1}% of processor time during the run went to other virtual machines", 100.0 * share),
            "run again at another time, or with more --repetitions; trust ratios within blocks and not the times",
        ));
    }
    if let Some(pages) = changes.swapped_pages.filter(|pages| *pages > 0) {
        found.push(Warning::new(
            Kind::Swap,
            format!("{pages} pages were swapped during the run"),
            "take fewer samples, or free memory, and run again: times hold the waiting, peaks miss what was out",
        ));
    }
    if let Some(events) = changes.thermal_events.filter(|events| *events > 0) {
        found.push(Warning::new(
            Kind::Thermal,
            format!("processors were too hot {events} times during the run and lowered their clock"),
            "let the machine cool, see to its cooling or turn turbo off, and run again",
        ));
    }
    if let Some(stops) = changes.quota_stops.filter(|stops| *stops > 0) {
        found.push(Warning::new(
            Kind::Quota,
            format!("the control group was stopped {stops} times during the run for having used up its processor time"),
            "lift the limit, or pass a smaller --threads, and run again",
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
            stolen_share: Some(0.001),
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
    fn a_quiet_machine_and_one_of_which_nothing_is_known_have_no_findings() {
        assert_eq!(warnings(&quiet()), []);
        assert_eq!(warnings(&Conditions { processors: 1, ..Conditions::default() }), []);
        assert_eq!(during(&Changes::default()), []);
        assert_eq!(short_line(&[]), None);
    }

    #[test]
    fn each_trouble_is_a_finding_of_its_own_with_what_to_do() {
        type Spoil = fn(&mut Conditions);
        let troubles: [(Kind, Level, Spoil); 15] = [
            (Kind::DebugBuild, Level::Warning, |it| it.debug_build = true),
            (Kind::Governor, Level::Warning, |it| it.governors = vec!["performance".into(), "powersave".into()]),
            (Kind::Turbo, Level::Note, |it| it.turbo = Some(true)),
            (Kind::Load, Level::Warning, |it| it.load_average = Some([2.1, 0.0, 0.0])),
            (Kind::Quota, Level::Warning, |it| it.processor_quota = Some(7.5)),
            (Kind::Steal, Level::Warning, |it| it.stolen_share = Some(0.02)),
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
        for (kind, level, spoil) in troubles {
            let mut state = quiet();
            spoil(&mut state);
            let found = warnings(&state);
            assert_eq!(found.len(), 1, "{kind:?}: {found:?}");
            assert_eq!((found[0].kind, found[0].level), (kind, level));
            assert!(!found[0].what.is_empty() && !found[0].advice.is_empty());
            assert_eq!(short_line(&found).is_some(), level == Level::Warning, "{kind:?}");
        }
    }

    #[test]
    fn what_happens_during_a_run_is_told_after_it() {
        let changes =
            Changes { stolen_share: Some(0.03), swapped_pages: Some(4), thermal_events: Some(1), quota_stops: Some(2) };
        let kinds: Vec<Kind> = during(&changes).into_iter().map(|warning| warning.kind).collect();
        assert_eq!(kinds, [Kind::Steal, Kind::Swap, Kind::Thermal, Kind::Quota]);
        let calm =
            Changes { stolen_share: Some(0.0), swapped_pages: Some(0), thermal_events: Some(0), quota_stops: Some(0) };
        assert_eq!(during(&calm), []);
    }

    #[test]
    fn what_matters_comes_first() {
        let mut state = quiet();
        (state.is_virtual, state.swap_used_mb) = (true, Some(500.0));
        let kinds: Vec<Kind> = warnings(&state).into_iter().map(|warning| warning.kind).collect();
        assert_eq!(kinds, [Kind::Swap, Kind::Virtual]);
    }
}
