//! SystemCounters of the Linux kernel, read before and after a measurement.

use std::path::Path;

use super::parse::{ProcessorTicks, named_number, processor_ticks};
use super::read::{self, text, thermal_events};

/// SystemCounters since boot; unknown ones are none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SystemCounters {
    /// CPU time.
    pub ticks: Option<ProcessorTicks>,
    /// Pages swapped in and out.
    pub swapped_pages: Option<u64>,
    /// Thermal throttling events.
    pub thermal_events: Option<u64>,
    /// Periods in which the cgroup was throttled because it had used up its CPU quota.
    pub throttled_periods: Option<u64>,
}

/// The differences between two readings.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CounterChanges {
    /// Fraction of CPU time that the hypervisor gave to other virtual machines.
    pub stolen_fraction: Option<f64>,
    /// Pages swapped in and out.
    pub swapped_pages: Option<u64>,
    /// Thermal throttling events.
    pub thermal_events: Option<u64>,
    /// Periods in which the cgroup was throttled.
    pub throttled_periods: Option<u64>,
}

impl SystemCounters {
    /// Reads the counters below `root`, which is `/` except in tests.
    pub fn read(root: &Path) -> Self {
        let vmstat = text(root, "proc/vmstat").unwrap_or_default();
        let swapped = named_number(&vmstat, "pswpin").zip(named_number(&vmstat, "pswpout"));
        SystemCounters {
            ticks: text(root, "proc/stat").as_deref().and_then(processor_ticks),
            swapped_pages: swapped.map(|(read, written)| read.saturating_add(written)),
            thermal_events: thermal_events(root),
            throttled_periods: read::throttled_periods(root),
        }
    }

    /// The changes since `earlier`. A counter that fell, as after the machine was suspended, is unknown.
    pub fn since(&self, earlier: &SystemCounters) -> CounterChanges {
        let grown = |now: Option<u64>, then: Option<u64>| now?.checked_sub(then?);
        let ticks = |field: fn(ProcessorTicks) -> u64| grown(self.ticks.map(field), earlier.ticks.map(field));
        let (total, stolen) = (ticks(|ticks| ticks.total), ticks(|ticks| ticks.stolen));
        CounterChanges {
            stolen_fraction: total
                .filter(|total| *total > 0)
                .zip(stolen)
                .map(|(total, stolen)| stolen as f64 / total as f64),
            swapped_pages: grown(self.swapped_pages, earlier.swapped_pages),
            thermal_events: grown(self.thermal_events, earlier.thermal_events),
            throttled_periods: grown(self.throttled_periods, earlier.throttled_periods),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_grown_counters_are_changes() {
        let ticks = |total, stolen| Some(ProcessorTicks { total, stolen });
        let before = SystemCounters {
            ticks: ticks(1000, 10),
            swapped_pages: Some(5),
            thermal_events: Some(9),
            throttled_periods: None,
        };
        let after = SystemCounters {
            ticks: ticks(1200, 20),
            swapped_pages: Some(8),
            thermal_events: Some(3),
            throttled_periods: Some(1),
        };
        let changes = after.since(&before);
        assert_eq!((changes.stolen_fraction, changes.swapped_pages), (Some(0.05), Some(3)));
        assert_eq!((changes.thermal_events, changes.throttled_periods), (None, None));
        assert_eq!(before.since(&before).stolen_fraction, None);
    }
}
