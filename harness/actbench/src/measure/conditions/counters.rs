//! What only shows over a stretch of time: counters of the kernel, read before and after.

use std::path::Path;

use super::parse::{ProcessorTicks, named_number, processor_ticks};
use super::read::{text, thermal_events, throttled_periods};

/// Counters since the machine started; what is not known is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Processor time.
    pub ticks: Option<ProcessorTicks>,
    /// Pages that were swapped in and out.
    pub swapped_pages: Option<u64>,
    /// Times that a processor was too hot.
    pub thermal_events: Option<u64>,
    /// Times that the control group was stopped because it had used up its processor time.
    pub quota_stops: Option<u64>,
}

/// What happened between two readings.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Changes {
    /// Share of the processors' time that went to other virtual machines.
    pub stolen_share: Option<f64>,
    /// Pages that were swapped.
    pub swapped_pages: Option<u64>,
    /// Times that a processor was too hot.
    pub thermal_events: Option<u64>,
    /// Times that the control group was stopped.
    pub quota_stops: Option<u64>,
}

impl Counters {
    /// Reads them below `root`, which is `/` except in tests.
    pub fn read(root: &Path) -> Self {
        let vmstat = text(root, "proc/vmstat").unwrap_or_default();
        let swapped = named_number(&vmstat, "pswpin").zip(named_number(&vmstat, "pswpout"));
        Counters {
            ticks: text(root, "proc/stat").as_deref().and_then(processor_ticks),
            swapped_pages: swapped.map(|(read, written)| read.saturating_add(written)),
            thermal_events: thermal_events(root),
            quota_stops: throttled_periods(root),
        }
    }

    /// What happened since `earlier`. A counter that fell, as after a suspended machine, tells nothing.
    pub fn since(&self, earlier: &Counters) -> Changes {
        let grown = |now: Option<u64>, then: Option<u64>| now?.checked_sub(then?);
        let ticks = |of: fn(ProcessorTicks) -> u64| grown(self.ticks.map(of), earlier.ticks.map(of));
        let (total, stolen) = (ticks(|ticks| ticks.total), ticks(|ticks| ticks.stolen));
        Changes {
            stolen_share: total
                .filter(|total| *total > 0)
                .zip(stolen)
                .map(|(total, stolen)| stolen as f64 / total as f64),
            swapped_pages: grown(self.swapped_pages, earlier.swapped_pages),
            thermal_events: grown(self.thermal_events, earlier.thermal_events),
            quota_stops: grown(self.quota_stops, earlier.quota_stops),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_grew_is_a_change() {
        let ticks = |total, stolen| Some(ProcessorTicks { total, stolen });
        let before =
            Counters { ticks: ticks(1000, 10), swapped_pages: Some(5), thermal_events: Some(9), quota_stops: None };
        let after =
            Counters { ticks: ticks(1200, 20), swapped_pages: Some(8), thermal_events: Some(3), quota_stops: Some(1) };
        let changes = after.since(&before);
        assert_eq!((changes.stolen_share, changes.swapped_pages), (Some(0.05), Some(3)));
        assert_eq!((changes.thermal_events, changes.quota_stops), (None, None));
        assert_eq!(before.since(&before).stolen_share, None);
    }
}
