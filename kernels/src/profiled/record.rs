//! The data of a profile: time spans of the host's threads and of devices, with the amount of work in them.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::ranges::NvtxRange;

/// The amount of work of an operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OperationWork {
    /// Floating-point operations, a multiply-add counted as two. 0 for operations that are bound by memory bandwidth.
    pub flops: u64,
    /// The least memory traffic: bytes of inputs, weights and outputs, each counted once.
    pub bytes: u64,
}

/// The kind of a host span. Phases and operations of one thread are nested or disjoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SpanKind {
    /// A phase of a run, such as loading or training.
    Phase,
    /// A forward pass, from its submission to the output of its last layer. Several can be in flight at a time, so
    /// these spans do not belong to a thread.
    Batch,
    /// An operation of a backend.
    Operation,
}

/// A time span on a thread of the host.
#[derive(Clone, Debug, PartialEq)]
pub struct HostSpan {
    /// Phase, batch or operation.
    pub kind: SpanKind,
    /// The name of the phase or of the operation, or `batch`.
    pub name: Cow<'static, str>,
    /// Distinguishes spans of one name: the shapes of an operation, the sizes of a batch.
    pub detail: String,
    /// The work of an operation; zero for the other kinds.
    pub work: OperationWork,
    /// The thread's number, from 1, in the order of their first span. For a batch, the lowest number that no other
    /// batch in flight has.
    pub thread: usize,
    /// Time since the start of the profile.
    pub start: Duration,
    /// Time from call to return.
    pub duration: Duration,
    /// A unique number of the call, which [`DeviceSpan::call`] refers to.
    pub call: u64,
}

/// A row of a device's timeline: the kernels, or the copies in one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DeviceTrack {
    /// Kernels.
    Kernels,
    /// Copies from the host to the device (H2D).
    ToDevice,
    /// Copies from the device to the host (D2H).
    FromDevice,
}

impl DeviceTrack {
    /// The name in reports and traces.
    pub fn name(self) -> &'static str {
        match self {
            DeviceTrack::Kernels => "kernels",
            DeviceTrack::ToDevice => "copies to the device",
            DeviceTrack::FromDevice => "copies from the device",
        }
    }
}

/// A time span on a device, by its own clock.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceSpan {
    /// Index of the device, from 0.
    pub device: usize,
    /// The track of the kernel or the copy.
    pub track: DeviceTrack,
    /// The kernel's name, or `copy`.
    pub name: String,
    /// Bytes of a copy; 0 for a kernel.
    pub bytes: u64,
    /// Time since the start of the profile: the device's clock, aligned with the host's when recording began.
    pub start: Duration,
    /// The duration, by the device's clock.
    pub duration: Duration,
    /// The [`HostSpan::call`] that issued it; none outside of operations.
    pub call: Option<u64>,
}

/// The spans of a period of time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProfileRecording {
    /// Host spans, in the order of their ends.
    pub host: Vec<HostSpan>,
    /// Device spans, device by device, in the order of issue.
    pub device: Vec<DeviceSpan>,
}

/// The calls of one operation with one shape.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OperationCalls {
    /// The duration of each call, in order: the time of its kernels on the device if it launched any, else the time on
    /// the host from call to return.
    pub durations: Vec<Duration>,
    /// The work of all calls together.
    pub work: OperationWork,
    /// The distinct kernels of a call, in launch order; empty on a backend without kernels.
    pub kernels: Vec<String>,
}

/// The calls by operation name and shape.
pub type OperationTable = BTreeMap<(String, String), OperationCalls>;

impl OperationCalls {
    /// The duration of all calls together.
    pub fn total(&self) -> Duration {
        self.durations.iter().sum()
    }

    /// The median duration; for an even number of calls, the larger of the two middle ones.
    pub fn median(&self) -> Duration {
        let mut sorted = self.durations.clone();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied().unwrap_or_default()
    }
}

impl ProfileRecording {
    /// Groups the operations by name and shape.
    pub fn operations(&self) -> OperationTable {
        let mut kernels: BTreeMap<u64, (Duration, Vec<&str>)> = BTreeMap::new();
        for span in self.device.iter().filter(|span| span.track == DeviceTrack::Kernels) {
            if let Some(call) = span.call {
                let (duration, names) = kernels.entry(call).or_default();
                *duration += span.duration;
                names.push(&span.name);
            }
        }
        let mut table = OperationTable::new();
        for span in self.host.iter().filter(|span| span.kind == SpanKind::Operation) {
            let calls = table.entry((span.name.to_string(), span.detail.clone())).or_default();
            let on_device = kernels.get(&span.call);
            calls.durations.push(on_device.map_or(span.duration, |(duration, _)| *duration));
            calls.work.flops += span.work.flops;
            calls.work.bytes += span.work.bytes;
            for name in on_device.map(|(_, names)| names.as_slice()).unwrap_or_default() {
                if !calls.kernels.iter().any(|known| known == name) {
                    calls.kernels.push((*name).to_owned());
                }
            }
        }
        table
    }
}

/// A shared, growing list of spans. Clones refer to the same list.
#[derive(Clone, Debug)]
pub struct Profile {
    shared: Arc<SharedProfile>,
}

#[derive(Debug)]
struct SharedProfile {
    begin: Instant,
    recording: Mutex<ProfileRecording>,
}

impl Default for Profile {
    fn default() -> Self {
        Profile { shared: Arc::new(SharedProfile { begin: Instant::now(), recording: Mutex::default() }) }
    }
}

/// The next call number: one counter for all profiles, as [`CURRENT`] is per thread and not per profile.
static NEXT_CALL: AtomicU64 = AtomicU64::new(1);
/// The next thread number.
static NEXT_THREAD: AtomicUsize = AtomicUsize::new(1);

thread_local! {
    static THREAD: usize = NEXT_THREAD.fetch_add(1, Ordering::Relaxed);
    /// The call number of this thread's current operation.
    static CURRENT: Cell<Option<u64>> = const { Cell::new(None) };
}

impl Profile {
    /// Runs `call`, the operation `op`, and records its span.
    pub fn record<T>(&self, op: &'static str, shape: String, work: OperationWork, call: impl FnOnce() -> T) -> T {
        let number = NEXT_CALL.fetch_add(1, Ordering::Relaxed);
        let outer = CURRENT.replace(Some(number));
        let result = self.record_span(SpanKind::Operation, Cow::Borrowed(op), shape, work, number, call);
        CURRENT.set(outer);
        result
    }

    /// Runs `call`, a phase of a run, and records its span.
    pub fn phase<T>(&self, name: &'static str, detail: String, call: impl FnOnce() -> T) -> T {
        let number = NEXT_CALL.fetch_add(1, Ordering::Relaxed);
        self.record_span(SpanKind::Phase, Cow::Borrowed(name), detail, OperationWork::default(), number, call)
    }

    /// Records the span of a batch that was submitted at `start` and has completed now, as number `thread` of the
    /// batches in flight.
    pub fn batch(&self, detail: String, thread: usize, start: Duration) {
        let duration = self.now().saturating_sub(start);
        let call = NEXT_CALL.fetch_add(1, Ordering::Relaxed);
        let (kind, name, work) = (SpanKind::Batch, Cow::Borrowed("batch"), OperationWork::default());
        self.with(|recording| {
            recording.host.push(HostSpan { kind, name, detail, work, thread, start, duration, call })
        });
    }

    fn record_span<T>(
        &self,
        kind: SpanKind,
        name: Cow<'static, str>,
        detail: String,
        work: OperationWork,
        call: u64,
        run: impl FnOnce() -> T,
    ) -> T {
        let (start, result, duration) = {
            let _range = NvtxRange::push(&name, &detail);
            let start = self.now();
            let result = run();
            (start, result, self.now().saturating_sub(start))
        };
        let thread = THREAD.with(|thread| *thread);
        self.with(|recording| {
            recording.host.push(HostSpan { kind, name, detail, work, thread, start, duration, call });
        });
        result
    }

    /// The number of the calling thread's current operation; none outside of one.
    pub fn current_call() -> Option<u64> {
        CURRENT.get()
    }

    /// Time since the start of the profile.
    pub fn now(&self) -> Duration {
        self.shared.begin.elapsed()
    }

    /// Adds spans of a device.
    pub(crate) fn device_spans(&self, spans: Vec<DeviceSpan>) {
        self.with(|recording| recording.device.extend(spans));
    }

    /// Removes and returns the spans so far. Recording continues.
    pub fn take(&self) -> ProfileRecording {
        self.with(std::mem::take)
    }

    fn with<T>(&self, call: impl FnOnce(&mut ProfileRecording) -> T) -> T {
        call(&mut self.shared.recording.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_of_one_shape_share_an_entry() {
        let profile = Profile::default();
        let work = OperationWork { flops: 10, bytes: 3 };
        assert_eq!(profile.record("linear", "2x3".to_owned(), work, || 7), 7);
        profile.record("linear", "2x3".to_owned(), work, || ());
        profile.record("linear", "4x3".to_owned(), work, || ());
        let table = profile.take().operations();
        assert_eq!(table.len(), 2);
        let linear = &table[&("linear".to_owned(), "2x3".to_owned())];
        assert_eq!((linear.durations.len(), linear.work), (2, OperationWork { flops: 20, bytes: 6 }));
        assert!(linear.total() >= linear.median());
        assert_eq!(profile.take(), ProfileRecording::default());
        assert_eq!(OperationCalls::default().median(), Duration::ZERO);
    }

    #[test]
    fn call_with_kernels_uses_kernel_times() {
        let profile = Profile::default();
        let call =
            profile.record("attention", "8".to_owned(), OperationWork::default(), || Profile::current_call().unwrap());
        assert_eq!(Profile::current_call(), None);
        let span = |track, name: &str, millis, call| DeviceSpan {
            device: 0,
            track,
            name: name.to_owned(),
            bytes: 0,
            start: Duration::ZERO,
            duration: Duration::from_millis(millis),
            call,
        };
        profile.device_spans(vec![
            span(DeviceTrack::ToDevice, "copy", 50, Some(call)),
            span(DeviceTrack::Kernels, "scores", 2, Some(call)),
            span(DeviceTrack::Kernels, "sums", 3, Some(call)),
            span(DeviceTrack::Kernels, "sums", 3, Some(call)),
            span(DeviceTrack::Kernels, "no call", 90, None),
        ]);
        let table = profile.take().operations();
        let attention = table.values().next().unwrap();
        assert_eq!(attention.durations, [Duration::from_millis(8)]);
        assert_eq!(attention.kernels, ["scores", "sums"]);
    }

    #[test]
    fn spans_nest_and_threads_are_numbered() {
        let profile = Profile::default();
        profile.phase("extracting", String::new(), || {
            profile.record("linear", String::new(), OperationWork::default(), || ());
            std::thread::scope(|scope| {
                scope.spawn(|| profile.record("pool", String::new(), OperationWork::default(), || ()));
            });
        });
        let recording = profile.take();
        let [linear, pool, phase] = &recording.host[..] else { unreachable!("three spans") };
        assert!(phase.start <= linear.start && linear.start + linear.duration <= phase.start + phase.duration);
        assert_eq!(linear.thread, phase.thread);
        assert_ne!(pool.thread, phase.thread);
        assert!(linear.call != pool.call && pool.call != phase.call);
    }
}
