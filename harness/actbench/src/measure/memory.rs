//! Peaks of a process's own memory, read inside the process.
//!
//! The resident peak is `VmHWM` of `/proc/self/status`. `ru_maxrss` is not used: a child inherits it, so that a child of a
//! large parent would report the size of the parent. The heap peak is counted by the allocator, and eager's full tensors, which
//! are mapped, are added to it. [`super::allocated`] has the peak without mapped files.

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};

use actbench_activations::eager;
use peak_alloc::PeakAlloc;
use serde::{Deserialize, Serialize};

use super::MIB;
use super::allocated::AllocationSampler;

/// Peaks of the measured part of a case, in MiB.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Peaks {
    /// Largest resident size, mapped files included.
    pub rss_mb: Option<f64>,
    /// Largest size of anonymous and shared memory, which no mapped file belongs to.
    pub anonymous_mb: Option<f64>,
    /// Largest size of the heap and of eager's full tensors together.
    pub heap_mb: f64,
    /// Resident anonymous memory at the end.
    pub rss_anonymous_mb: Option<f64>,
    /// Resident file pages at the end.
    pub rss_file_mb: Option<f64>,
    /// Largest resident size before the measured part began.
    pub load_rss_mb: Option<f64>,
    /// Whether the kernel did not reset the peak of loading, so that `rss_mb` includes it.
    pub includes_loading: bool,
}

/// The state at the beginning of the measured part; memory is sampled until it is dropped.
#[derive(Debug)]
pub struct Baseline {
    load_rss_mb: Option<f64>,
    includes_loading: bool,
    sampler: Option<AllocationSampler>,
}

/// The largest sum of heap and full tensors, in bytes, until the tensors changed the last time.
static LARGEST: AtomicU64 = AtomicU64::new(0);

/// Full tensors are mappings, which the allocator does not see. While they stay the same, the peak of the sum is the heap's peak
/// and their size: called before they change, this notes it and begins a new peak of the heap.
fn note_full_tensors(reserved: u64) {
    LARGEST.fetch_max(PeakAlloc.peak_usage() as u64 + reserved, Ordering::Relaxed);
    PeakAlloc.reset_peak_usage();
}

/// Resets the peaks, so that later ones belong to the measured part alone.
pub fn begin() -> Baseline {
    let load_rss_mb = status_mb("VmHWM");
    let reset = reset_resident_peak();
    // Before the heap's peak is reset, so that the thread's own memory is not part of it.
    let sampler = AllocationSampler::start(reset);
    // `PeakAlloc` keeps its counts in statics, so that any value of the type reads them.
    eager::observe_reservations(note_full_tensors);
    PeakAlloc.reset_peak_usage();
    LARGEST.store(0, Ordering::Relaxed);
    Baseline { load_rss_mb, includes_loading: !reset, sampler }
}

/// Resets VmHWM to the current size by writing 5, see proc(5). Some sandboxes refuse the write and some ignore it, so that
/// success is verified by reading VmHWM again.
fn reset_resident_peak() -> bool {
    // The kernel counts resident pages per processor and adds the counts up lazily.
    const SLACK_MB: f64 = 1.0;
    let written = fs::write("/proc/self/clear_refs", "5").is_ok();
    let was_reset = status_mb("VmHWM").zip(status_mb("VmRSS")).is_some_and(|(peak, now)| peak <= now + SLACK_MB);
    written && was_reset
}

/// Returns freed memory that the allocator retains to the system, so that memory freed before a large allocation does not add
/// to the resident peak.
pub fn return_freed() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: touches free memory of the allocator alone and takes its locks itself.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Peaks since `baseline`.
pub fn peaks(baseline: &Baseline) -> Peaks {
    let now = PeakAlloc.peak_usage() as u64 + eager::reserved_bytes();
    let heap_mb = LARGEST.load(Ordering::Relaxed).max(now) as f64 / MIB;
    let mib = |kib: u64| kib as f64 / 1024.0;
    let sampled = baseline.sampler.as_ref().map(AllocationSampler::peaks);
    Peaks {
        heap_mb,
        // The sampler resets the kernel's mark, and keeps the largest.
        rss_mb: sampled.map(|peaks| mib(peaks.resident_kib)).or_else(|| status_mb("VmHWM")),
        anonymous_mb: sampled.map(|peaks| mib(peaks.allocated_kib)),
        rss_anonymous_mb: status_mb("RssAnon"),
        rss_file_mb: status_mb("RssFile"),
        load_rss_mb: baseline.load_rss_mb,
        includes_loading: baseline.includes_loading,
    }
}

/// Bytes on the heap now; 0 if the process has another allocator.
pub fn heap() -> u64 {
    PeakAlloc.current_usage() as u64
}

/// Resident bytes now; 0 if the system does not report them.
pub fn resident() -> u64 {
    status_mb("VmRSS").map_or(0, |mib| (mib * MIB) as u64)
}

/// A line of `/proc/self/status`, converted from KiB to MiB; none on systems without it.
fn status_mb(name: &str) -> Option<f64> {
    parse_status(&fs::read_to_string("/proc/self/status").ok()?, name)
}

fn parse_status(status: &str, name: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_line_is_converted_to_mib() {
        let status = "VmPeak:\t  900 kB\nVmHWM:\t    2048 kB\nRssAnon:\t     512 kB\n";
        assert_eq!(parse_status(status, "VmHWM"), Some(2.0));
        assert_eq!(parse_status(status, "RssAnon"), Some(0.5));
        assert_eq!(parse_status(status, "RssFile"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn touched_allocation_raises_peaks_and_mapped_file_does_not() {
        // One test, because peaks are of the process: two that reset them at once disturb each other.
        let baseline = begin();
        let before = peaks(&baseline);
        let block = vec![1u8; 64 << 20];
        assert!(std::hint::black_box(&block).iter().step_by(4096).all(|byte| *byte == 1));
        let after = peaks(&baseline);
        assert!(after.rss_mb.unwrap() >= before.rss_mb.unwrap() + 60.0, "{before:?} to {after:?}");
        assert!(after.anonymous_mb.unwrap() >= before.anonymous_mb.unwrap() + 60.0, "{before:?} to {after:?}");
        let file = tempfile::NamedTempFile::new_in(std::env::current_exe().unwrap().parent().unwrap()).unwrap();
        file.as_file().set_len(256 << 20).unwrap();
        // SAFETY: no other process knows the file, which does not change while it is mapped.
        let map = unsafe { memmap2::Mmap::map(file.as_file()) }.unwrap();
        assert!(std::hint::black_box(&map).iter().step_by(4096).all(|byte| *byte == 0));
        let mapped = peaks(&baseline);
        assert!(mapped.rss_mb.unwrap() >= after.rss_mb.unwrap() + 150.0, "{after:?} to {mapped:?}");
        // Other tests of this process allocate meanwhile, but by far not as much.
        assert!(mapped.anonymous_mb.unwrap() < after.anonymous_mb.unwrap() + 100.0, "{after:?} to {mapped:?}");
        drop(block);
    }
}
