//! The metrics of the gate: one list, with the unit of each and the rule that it is judged by.
//!
//! The list is closed, so that journals, reports and histories of all programs share names, units and rules. A source
//! measures as many of them as it can.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Something that is measured once a process. Memory is in MiB, which files and tables of this crate call MB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum Metric {
    /// Wall-clock seconds of the measured span; for a benchmark, of one iteration
    Wall,
    /// Seconds of CPU time (user and system, all threads) in the same span
    Cpu,
    /// High-water mark of the resident size, in MiB, with the mapped pages of files, which depend on the page cache
    PeakRss,
    /// High-water mark of the memory that the program allocates (anonymous and shared, without mapped files), in MiB
    PeakAnonymous,
    /// High-water mark of the allocator, in MiB
    PeakHeap,
    /// High-water mark of GPU memory in use, in MiB
    GpuUsed,
    /// High-water mark of GPU memory reserved, in MiB
    GpuReserved,
    /// Instructions executed, as counted by Valgrind
    Instructions,
    /// Quality of the result: AUROC of a classifier that the program trained
    Auroc,
    /// Digest of the result, which must not change
    #[serde(rename = "feature-digest")]
    #[cfg_attr(feature = "clap", value(name = "feature-digest"))]
    ResultDigest,
}

/// How a metric is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MetricRule {
    /// The ratio of pairs, by the signed-rank test.
    Time,
    /// The smallest value of head against the largest of base plus a margin.
    Memory,
    /// A count that hardly varies: the ratio of medians against a fixed margin.
    Count,
    /// A result that must be equal within a tolerance.
    Quality,
    /// A result that must be identical.
    Identity,
}

impl MetricRule {
    /// Whether metrics with this rule are judged at each look: results are compared once, over all pairs.
    pub fn is_judged_at_looks(self) -> bool {
        matches!(self, MetricRule::Time | MetricRule::Memory | MetricRule::Count)
    }
}

/// Seconds that one process can take and a clock of nanoseconds can resolve; the upper end is 30 years.
pub const PROCESS_SECONDS: RangeInclusive<f64> = 1e-9..=1e9;

/// Seconds that an iteration of a benchmark can take: a mean over many of them can be shorter than a tick of the clock.
const SECONDS: RangeInclusive<f64> = 1e-12..=1e9;

/// The largest plausible figure of memory in MiB, and of instructions.
const MAX_FIGURE: f64 = 1e18;

impl Metric {
    /// Whether a measurement can have this value. A time of zero, or one that is negative, not a number or beyond all
    /// processes, is a fault of the program that reported it, and a ratio of such times has no meaning.
    pub fn is_possible(self, value: f64) -> bool {
        match self.rule() {
            MetricRule::Time => SECONDS.contains(&value),
            MetricRule::Memory | MetricRule::Count => (0.0..=MAX_FIGURE).contains(&value),
            MetricRule::Quality => value.is_finite(),
            MetricRule::Identity => false,
        }
    }

    /// All, in the order in which they are shown.
    pub const ALL: [Metric; 10] = [
        Metric::Wall,
        Metric::Cpu,
        Metric::PeakRss,
        Metric::PeakAnonymous,
        Metric::PeakHeap,
        Metric::GpuUsed,
        Metric::GpuReserved,
        Metric::Instructions,
        Metric::Auroc,
        Metric::ResultDigest,
    ];

    /// The name in files and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Metric::Wall => "wall",
            Metric::Cpu => "cpu",
            Metric::PeakRss => "peak-rss",
            Metric::PeakAnonymous => "peak-anonymous",
            Metric::PeakHeap => "peak-heap",
            Metric::GpuUsed => "gpu-used",
            Metric::GpuReserved => "gpu-reserved",
            Metric::Instructions => "instructions",
            Metric::Auroc => "auroc",
            Metric::ResultDigest => "feature-digest",
        }
    }

    /// The unit; empty for numbers without one. `MB` stands for MiB: stored reports have this name.
    pub fn unit(self) -> &'static str {
        match self {
            Metric::Wall | Metric::Cpu => "s",
            Metric::PeakRss | Metric::PeakAnonymous | Metric::PeakHeap | Metric::GpuUsed | Metric::GpuReserved => "MB",
            Metric::Instructions => "instructions",
            Metric::Auroc | Metric::ResultDigest => "",
        }
    }

    /// The rule that it is judged by.
    pub fn rule(self) -> MetricRule {
        match self {
            Metric::Wall | Metric::Cpu => MetricRule::Time,
            Metric::PeakRss | Metric::PeakAnonymous | Metric::PeakHeap | Metric::GpuUsed | Metric::GpuReserved => {
                MetricRule::Memory
            }
            Metric::Instructions => MetricRule::Count,
            Metric::Auroc => MetricRule::Quality,
            Metric::ResultDigest => MetricRule::Identity,
        }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Metric {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Metric::ALL.into_iter().find(|metric| metric.name() == name).ok_or_else(|| {
            let names = Metric::ALL.map(Metric::name).join(", ");
            Error::usage(format!("no metric '{name}'; the metrics are {names}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_agree_in_files_and_on_command_lines() {
        for metric in Metric::ALL {
            assert_eq!(serde_json::to_string(&metric).unwrap(), format!("\"{}\"", metric.name()));
            assert_eq!(metric.name().parse::<Metric>().unwrap(), metric);
            #[cfg(feature = "clap")]
            assert_eq!(<Metric as clap::ValueEnum>::from_str(metric.name(), false), Ok(metric));
        }
        assert!("speed".parse::<Metric>().unwrap_err().to_string().contains("peak-rss"));
    }
}
