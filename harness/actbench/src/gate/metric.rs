//! The metrics of the gate: one list, with the unit of each and the rule that it is judged by.

use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// Something that is measured once a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Metric {
    /// Seconds of everything after loading, by the child's own clock; for a bench, of one iteration.
    Wall,
    /// Seconds of processor time (user and system, all threads) in the same span.
    Cpu,
    /// High-water mark of the resident size, in MB of 2^20 bytes.
    PeakRss,
    /// High-water mark of the allocator, in MB of 2^20 bytes.
    PeakHeap,
    /// High-water mark of GPU memory used, in MB of 2^20 bytes.
    GpuUsed,
    /// High-water mark of GPU memory reserved, in MB of 2^20 bytes.
    GpuReserved,
    /// Instructions executed, as Valgrind counts them.
    Instructions,
    /// AUROC of the probes.
    Auroc,
    /// Digest of the features that the probes were trained on.
    FeatureDigest,
}

/// How a metric is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// The ratio of pairs, by the signed-rank test.
    Time,
    /// The smallest of head above the largest of base and a margin.
    Memory,
    /// A count that hardly varies: the ratio of medians against a fixed margin.
    Count,
    /// A result that must be the same within a tolerance.
    Quality,
    /// A result that must be the same.
    Identity,
}

impl Metric {
    /// All, in the order in which they are shown.
    pub const ALL: [Metric; 9] = [
        Metric::Wall,
        Metric::Cpu,
        Metric::PeakRss,
        Metric::PeakHeap,
        Metric::GpuUsed,
        Metric::GpuReserved,
        Metric::Instructions,
        Metric::Auroc,
        Metric::FeatureDigest,
    ];

    /// The name in files and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Metric::Wall => "wall",
            Metric::Cpu => "cpu",
            Metric::PeakRss => "peak-rss",
            Metric::PeakHeap => "peak-heap",
            Metric::GpuUsed => "gpu-used",
            Metric::GpuReserved => "gpu-reserved",
            Metric::Instructions => "instructions",
            Metric::Auroc => "auroc",
            Metric::FeatureDigest => "feature-digest",
        }
    }

    /// The unit; empty for numbers without one.
    pub fn unit(self) -> &'static str {
        match self {
            Metric::Wall | Metric::Cpu => "s",
            Metric::PeakRss | Metric::PeakHeap | Metric::GpuUsed | Metric::GpuReserved => "MB",
            Metric::Instructions => "instructions",
            Metric::Auroc | Metric::FeatureDigest => "",
        }
    }

    /// How it is judged.
    pub fn rule(self) -> Rule {
        match self {
            Metric::Wall | Metric::Cpu => Rule::Time,
            Metric::PeakRss | Metric::PeakHeap | Metric::GpuUsed | Metric::GpuReserved => Rule::Memory,
            Metric::Instructions => Rule::Count,
            Metric::Auroc => Rule::Quality,
            Metric::FeatureDigest => Rule::Identity,
        }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_files_and_of_the_command_line() {
        for metric in Metric::ALL {
            assert_eq!(serde_json::to_string(&metric).unwrap(), format!("\"{}\"", metric.name()));
            assert_eq!(Metric::from_str(metric.name(), false), Ok(metric));
        }
    }
}
