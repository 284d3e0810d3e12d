//! Peaks of a process's own memory, read inside it.
//!
//! The resident peak is `VmHWM` of `/proc/self/status`, never `ru_maxrss`: that one is inherited from the parent, so
//! a child of a large parent would report the parent's size. The heap's peak is the allocator's own count.

use std::fs;

use peak_alloc::PeakAlloc;
use serde::{Deserialize, Serialize};

use super::MEGABYTE;

/// Peaks of the measured part of a case, in MB of 2^20 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Peaks {
    /// Largest resident size, mapped files included.
    pub rss_mb: Option<f64>,
    /// Largest size of the heap.
    pub heap_mb: f64,
    /// Resident anonymous memory at the end.
    pub rss_anonymous_mb: Option<f64>,
    /// Resident pages of files at the end.
    pub rss_file_mb: Option<f64>,
    /// Largest resident size before the measured part began.
    pub load_rss_mb: Option<f64>,
    /// Whether the kernel would not forget the peak of loading, so that `rss_mb` includes it.
    pub includes_loading: bool,
}

/// The state at the beginning of the measured part.
#[derive(Clone, Copy, Debug)]
pub struct Baseline {
    load_rss_mb: Option<f64>,
    includes_loading: bool,
}

/// Forgets earlier peaks, so that later ones are the measured part's own.
pub fn begin() -> Baseline {
    let load_rss_mb = status_mb("VmHWM");
    let reset = forget_resident_peak();
    // Its counts are the process's, whichever value they are read through.
    PeakAlloc.reset_peak_usage();
    Baseline { load_rss_mb, includes_loading: !reset }
}

/// Resets VmHWM to the present size by writing 5, see proc(5). Some sandboxes refuse that, and some take it and do
/// nothing, so the answer comes from looking again.
fn forget_resident_peak() -> bool {
    // The kernel counts resident pages per processor and adds them up lazily.
    const SLACK_MB: f64 = 1.0;
    let written = fs::write("/proc/self/clear_refs", "5").is_ok();
    let forgotten = status_mb("VmHWM").zip(status_mb("VmRSS")).is_some_and(|(peak, now)| peak <= now + SLACK_MB);
    written && forgotten
}

/// Gives memory that was freed and that the allocator keeps for later back to the system, so that what is freed before
/// a large allocation does not stand beside it in the resident peak.
pub fn return_freed() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: touches free memory of the allocator alone and takes its locks itself.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Peaks since `baseline`.
pub fn peaks(baseline: Baseline) -> Peaks {
    Peaks {
        heap_mb: PeakAlloc.peak_usage() as f64 / MEGABYTE,
        rss_mb: status_mb("VmHWM"),
        rss_anonymous_mb: status_mb("RssAnon"),
        rss_file_mb: status_mb("RssFile"),
        load_rss_mb: baseline.load_rss_mb,
        includes_loading: baseline.includes_loading,
    }
}

/// Bytes on the heap now; 0 where the program has another allocator.
pub fn heap() -> u64 {
    PeakAlloc.current_usage() as u64
}

/// Bytes resident now; 0 where the system does not say.
pub fn resident() -> u64 {
    status_mb("VmRSS").map_or(0, |megabytes| (megabytes * MEGABYTE) as u64)
}

/// A line of `/proc/self/status`, which counts in kB of 1024 bytes; none on systems without it.
fn status_mb(name: &str) -> Option<f64> {
    parse_status(&fs::read_to_string("/proc/self/status").ok()?, name)
}

fn parse_status(status: &str, name: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let kilobytes: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_line_is_read_in_megabytes() {
        let status = "VmPeak:\t  900 kB\nVmHWM:\t    2048 kB\nRssAnon:\t     512 kB\n";
        assert_eq!(parse_status(status, "VmHWM"), Some(2.0));
        assert_eq!(parse_status(status, "RssAnon"), Some(0.5));
        assert_eq!(parse_status(status, "RssFile"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_large_touched_allocation_raises_the_resident_peak() {
        let baseline = begin();
        let before = peaks(baseline).rss_mb.unwrap();
        let block = vec![1u8; 64 << 20];
        assert!(std::hint::black_box(&block).iter().step_by(4096).all(|byte| *byte == 1));
        let after = peaks(baseline).rss_mb.unwrap();
        assert!(after >= before + 60.0, "{before} to {after}");
    }
}
