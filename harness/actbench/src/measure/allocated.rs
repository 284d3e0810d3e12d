//! The peak of the memory that this process allocates: anonymous and shared memory without mapped files.
//!
//! How many pages of a mapped file are resident depends on the page cache, so that the peak RSS of one program differs from
//! copy to copy. The kernel keeps a high-water mark of all resident memory only (`VmHWM`). A thread reads and resets it at
//! short intervals, and subtracts the file pages that were resident meanwhile.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::mounts::is_in_memory;

/// The shortest and the longest time between two samples. A sample takes tens of microseconds.
///
/// Pages of the program that become resident after a peak in the same interval are taken off the peak: up to 1 MiB at a fixed
/// interval of 20 ms in a case that takes 20 ms and allocates 9 MiB.
const INTERVALS: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(20));

/// An interval is at most this part of the time since the start, so that a short case has short intervals and a long one does
/// not pay for them.
const ELAPSED_PER_INTERVAL: u32 = 32;

/// The stack of the sampling thread: it has no deep calls and a buffer of [`STATUS_BYTES`].
const STACK_BYTES: usize = 64 << 10;

/// More than `/proc/self/status` has.
const STATUS_BYTES: usize = 8 << 10;

/// Peaks in KiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AllocationPeaks {
    /// Largest resident size, mapped files included.
    pub resident_kib: u64,
    /// Largest size of anonymous and shared memory.
    pub allocated_kib: u64,
}

/// Samples the memory of this process until it is dropped.
#[derive(Debug)]
pub struct AllocationSampler {
    shared: Arc<SharedState>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct SharedState {
    sampling: Mutex<Sampling>,
    stop: Condvar,
}

#[derive(Debug)]
struct Sampling {
    status: File,
    /// Resets the high-water mark; none where the system refuses.
    clear: Option<File>,
    tracker: PeakTracker,
    stopped: bool,
}

impl AllocationSampler {
    /// Starts to sample. `resets` is whether the kernel resets its high-water mark. None if the system does not report
    /// memory by kind, or permits no further thread: a peak without samples is not a peak.
    pub fn start(resets: bool) -> Option<Self> {
        let status = File::open("/proc/self/status").ok()?;
        let clear = resets.then(|| fs::OpenOptions::new().write(true).open("/proc/self/clear_refs").ok()).flatten();
        let first = read_sizes(&status)?;
        let tracker = PeakTracker::new(first, counts_shared_memory(), clear.is_some());
        let sampling = Mutex::new(Sampling { status, clear, tracker, stopped: false });
        let shared = Arc::new(SharedState { sampling, stop: Condvar::new() });
        let sampled = shared.clone();
        let builder = thread::Builder::new().name("memory".to_owned()).stack_size(STACK_BYTES);
        let thread = builder.spawn(move || sampled.sample_until_stopped()).ok()?;
        Some(AllocationSampler { shared, thread: Some(thread) })
    }

    /// The peaks from the start until now.
    pub fn peaks(&self) -> AllocationPeaks {
        let mut sampling = self.shared.lock();
        sampling.sample();
        sampling.tracker.peaks
    }
}

impl Drop for AllocationSampler {
    fn drop(&mut self) {
        self.shared.lock().stopped = true;
        self.shared.stop.notify_one();
        // The thread cannot panic, and its result is nothing.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

impl SharedState {
    fn lock(&self) -> MutexGuard<'_, Sampling> {
        self.sampling.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sample_until_stopped(&self) {
        let started = Instant::now();
        let mut sampling = self.lock();
        while !sampling.stopped {
            let interval = (started.elapsed() / ELAPSED_PER_INTERVAL).clamp(INTERVALS.0, INTERVALS.1);
            sampling = self.stop.wait_timeout(sampling, interval).unwrap_or_else(PoisonError::into_inner).0;
            sampling.sample();
        }
    }
}

impl Sampling {
    fn sample(&mut self) {
        // A read that fails now and succeeded before is skipped: the high-water mark still has its interval.
        let Some(sizes) = read_sizes(&self.status) else { return };
        let reset = self.clear.as_ref().is_some_and(|clear| clear.write_all_at(b"5", 0).is_ok());
        self.tracker.add(sizes, reset);
    }
}

/// Resident memory of the process at a moment, in KiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct ResidentSizes {
    /// The high-water mark of the sum since it was reset.
    high_water: u64,
    anonymous: u64,
    file: u64,
    shared: u64,
}

/// Peaks over samples.
#[derive(Debug)]
struct PeakTracker {
    counts_shared: bool,
    /// Whether the high-water mark of the next sample belongs to its interval alone.
    interval_only: bool,
    previous: ResidentSizes,
    peaks: AllocationPeaks,
}

impl PeakTracker {
    /// Begins with the sizes before the first interval.
    fn new(first: ResidentSizes, counts_shared: bool, interval_only: bool) -> Self {
        let peaks = AllocationPeaks::default();
        let mut tracker = PeakTracker { counts_shared, interval_only: false, previous: first, peaks };
        tracker.add(first, interval_only);
        tracker
    }

    /// Adds the sizes at the end of an interval; `reset` is whether the high-water mark was reset after they were read.
    fn add(&mut self, now: ResidentSizes, reset: bool) {
        let mut allocated = self.allocated(now);
        if self.interval_only {
            // The pages of files at the peak are unknown: the larger figure, so that a file that was mapped or unmapped in the
            // interval does not count as memory.
            let files = self.files(now).max(self.files(self.previous));
            allocated = allocated.max(now.high_water.saturating_sub(files));
        }
        self.peaks.allocated_kib = self.peaks.allocated_kib.max(allocated);
        self.peaks.resident_kib = self.peaks.resident_kib.max(now.high_water);
        self.previous = now;
        self.interval_only = reset;
    }

    fn allocated(&self, sizes: ResidentSizes) -> u64 {
        sizes.anonymous + if self.counts_shared { sizes.shared } else { 0 }
    }

    fn files(&self, sizes: ResidentSizes) -> u64 {
        sizes.file + if self.counts_shared { 0 } else { sizes.shared }
    }
}

/// Reads the sizes without an allocation, which would add to the peak of the heap.
fn read_sizes(status: &File) -> Option<ResidentSizes> {
    let mut buffer = [0u8; STATUS_BYTES];
    let length = status.read_at(&mut buffer, 0).ok()?;
    parse_sizes(buffer.get(..length)?)
}

fn parse_sizes(status: &[u8]) -> Option<ResidentSizes> {
    let text = std::str::from_utf8(status).ok()?;
    let size = |name: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().strip_suffix("kB")?.trim().parse().ok()
    };
    Some(ResidentSizes {
        high_water: size("VmHWM")?,
        anonymous: size("RssAnon")?,
        file: size("RssFile")?,
        shared: size("RssShmem")?,
    })
}

/// Whether shared memory is memory that the program allocates. The kernel counts mapped files in a tmpfs as shared memory, so
/// that a program in a tmpfs has its own code there.
fn counts_shared_memory() -> bool {
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let directories: BTreeSet<PathBuf> =
        mapped_files(&maps).filter_map(|path| Some(path.parent()?.to_path_buf())).collect();
    !directories.iter().any(|directory| is_in_memory(directory))
}

/// The files of `/proc/self/maps`. Shared anonymous memory has the name of a deleted file there.
fn mapped_files(maps: &str) -> impl Iterator<Item = &Path> {
    maps.lines()
        .filter_map(|line| line.find('/').and_then(|start| line.get(start..)))
        .filter(|name| !name.ends_with(" (deleted)"))
        .map(Path::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(high_water: u64, anonymous: u64, file: u64, shared: u64) -> ResidentSizes {
        ResidentSizes { high_water, anonymous, file, shared }
    }

    fn peak(counts_shared: bool, reset: bool, samples: &[ResidentSizes]) -> AllocationPeaks {
        let mut tracker = PeakTracker::new(samples[0], counts_shared, reset);
        samples[1..].iter().for_each(|sample| tracker.add(*sample, reset));
        tracker.peaks
    }

    #[test]
    fn peak_between_samples_is_found_without_files() {
        // 900 KiB were allocated and released between the samples.
        let samples = [sizes(150, 100, 50, 0), sizes(1050, 100, 50, 0), sizes(150, 100, 50, 0)];
        let found = peak(true, true, &samples);
        assert_eq!(found, AllocationPeaks { resident_kib: 1050, allocated_kib: 1000 });
        // The same work with many more resident pages of files.
        let cached = samples.map(|it| ResidentSizes { high_water: it.high_water + 700, file: 750, ..it });
        assert_eq!(peak(true, true, &cached).allocated_kib, 1000);
    }

    #[test]
    fn files_mapped_or_released_meanwhile_do_not_count() {
        let mapped = [sizes(150, 100, 50, 0), sizes(950, 100, 850, 0), sizes(950, 100, 50, 0)];
        assert_eq!(peak(true, true, &mapped).allocated_kib, 100);
    }

    #[test]
    fn high_water_mark_of_loading_does_not_count() {
        let samples = [sizes(9000, 100, 50, 0), sizes(200, 150, 50, 0)];
        assert_eq!(peak(true, true, &samples).allocated_kib, 150);
        // A kernel that resets nothing still shows the sampled sizes.
        let kept = [sizes(9000, 100, 50, 0), sizes(9000, 150, 50, 0)];
        assert_eq!(peak(true, false, &kept).allocated_kib, 150);
    }

    #[test]
    fn shared_memory_counts_unless_files_are_in_it() {
        let samples = [sizes(150, 100, 50, 0), sizes(450, 100, 50, 300)];
        assert_eq!(peak(true, true, &samples).allocated_kib, 400);
        assert_eq!(peak(false, true, &samples).allocated_kib, 100);
        let maps = "55d0-55d9 r-xp 00000000 fd:00 77   /opt/a program\n7f00-7f01 rw-s 00000000 00:01 5 /dev/zero (deleted)\n\
                    7f02-7f03 rw-p 00000000 00:00 0 \n7ffc-7ffd rw-p 00000000 00:00 0   [stack]\n";
        assert_eq!(mapped_files(maps).collect::<Vec<_>>(), [Path::new("/opt/a program")]);
    }

    #[test]
    fn status_without_a_kind_is_unknown() {
        let status = b"VmHWM:\t 2048 kB\nRssAnon:\t 512 kB\nRssFile:\t 1024 kB\nRssShmem:\t 4 kB\n";
        assert_eq!(parse_sizes(status), Some(sizes(2048, 512, 1024, 4)));
        assert_eq!(parse_sizes(b"VmHWM:\t 2048 kB\nRssAnon:\t 512 kB\n"), None);
    }
}
