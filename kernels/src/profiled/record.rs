//! What a profile holds: spans of time on the host's threads and on a device, with the work that was done in them.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::ranges::Range;

/// The work of one call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Floating-point operations, where they are what the operation is limited by; a multiply-add counts as two.
    pub flops: u64,
    /// Bytes that must be read and written at least once: inputs, weights and outputs.
    pub bytes: u64,
}

/// What a span on the host is a span of. Phases and operations of one thread lie in each other or apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SpanKind {
    /// Loading, extracting, training.
    Phase,
    /// One forward pass, from when it is given to when its deepest layer is there. Several can be under way at a time, so
    /// that these belong to no thread.
    Batch,
    /// One operation of a backend.
    Operation,
}

/// A stretch of time on a thread of the host.
#[derive(Clone, Debug, PartialEq)]
pub struct HostSpan {
    /// What it is a span of.
    pub kind: SpanKind,
    /// The phase, the batch or the operation.
    pub name: Cow<'static, str>,
    /// What tells spans of one name apart: shapes of an operation, sizes of a batch.
    pub detail: String,
    /// What was done in it, of an operation.
    pub work: Work,
    /// Number of the thread, from 1 on, in the order in which threads were met. Of a batch, the lowest number that no other
    /// batch under way has.
    pub thread: usize,
    /// Since the profile began.
    pub start: Duration,
    /// From call to return.
    pub duration: Duration,
    /// A number of its own, by which spans of a device name the call that they belong to.
    pub call: u64,
}

/// What a device was doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Running kernels.
    Kernels,
    /// Taking bytes from the host.
    ToDevice,
    /// Giving bytes to the host.
    FromDevice,
}

impl Lane {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Lane::Kernels => "kernels",
            Lane::ToDevice => "copies to the device",
            Lane::FromDevice => "copies from the device",
        }
    }
}

/// A stretch of time on a device, by its own clock.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceSpan {
    /// Number of the device, from 0 on.
    pub device: usize,
    /// What it was doing.
    pub lane: Lane,
    /// The kernel, or `copy`.
    pub name: String,
    /// Bytes of a copy.
    pub bytes: u64,
    /// Since the profile began, by the device's clock laid beside the host's.
    pub start: Duration,
    /// By the device's clock.
    pub duration: Duration,
    /// The call on the host that it belongs to; none outside of operations.
    pub call: Option<u64>,
}

/// All that was recorded in some time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recording {
    /// In the order in which they ended.
    pub host: Vec<HostSpan>,
    /// In the order of the device's work, device by device.
    pub device: Vec<DeviceSpan>,
}

/// All calls of one operation on one shape.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// How long each call took, in the order of the calls: on the device where it had kernels of its own, else on the
    /// host from call to return.
    pub durations: Vec<Duration>,
    /// Of all calls together.
    pub work: Work,
    /// The kernels of a call, in order, one name for each; none on a backend without kernels.
    pub kernels: Vec<String>,
}

/// Keyed by the operation's name and what tells its shapes apart.
pub type Entries = BTreeMap<(String, String), Entry>;

impl Entry {
    /// Of all calls together.
    pub fn total(&self) -> Duration {
        self.durations.iter().sum()
    }

    /// The middle duration; the larger of the two middle ones of an even number.
    pub fn median(&self) -> Duration {
        let mut sorted = self.durations.clone();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied().unwrap_or_default()
    }
}

impl Recording {
    /// The operations by name and shape.
    pub fn entries(&self) -> Entries {
        let mut kernels: BTreeMap<u64, (Duration, Vec<&str>)> = BTreeMap::new();
        for span in self.device.iter().filter(|span| span.lane == Lane::Kernels) {
            if let Some(call) = span.call {
                let (duration, names) = kernels.entry(call).or_default();
                *duration += span.duration;
                names.push(&span.name);
            }
        }
        let mut entries = Entries::new();
        for span in self.host.iter().filter(|span| span.kind == SpanKind::Operation) {
            let entry = entries.entry((span.name.to_string(), span.detail.clone())).or_default();
            let on_device = kernels.get(&span.call);
            entry.durations.push(on_device.map_or(span.duration, |(duration, _)| *duration));
            entry.work.flops += span.work.flops;
            entry.work.bytes += span.work.bytes;
            for name in on_device.map(|(_, names)| names.as_slice()).unwrap_or_default() {
                if !entry.kernels.iter().any(|known| known == name) {
                    entry.kernels.push((*name).to_owned());
                }
            }
        }
        entries
    }

    /// This and `other`, which came after it.
    pub fn followed_by(mut self, other: Recording) -> Recording {
        self.host.extend(other.host);
        self.device.extend(other.device);
        self
    }
}

/// Spans, shared by those who record and those who read.
#[derive(Clone, Debug)]
pub struct Profile {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    begin: Instant,
    recording: Mutex<Recording>,
}

impl Default for Profile {
    fn default() -> Self {
        Profile { shared: Arc::new(Shared { begin: Instant::now(), recording: Mutex::default() }) }
    }
}

/// Calls of all profiles, so that no two have one number.
static CALLS: AtomicU64 = AtomicU64::new(1);
/// Threads that were met.
static THREADS: AtomicUsize = AtomicUsize::new(1);

thread_local! {
    static THREAD: usize = THREADS.fetch_add(1, Ordering::Relaxed);
    /// The operation that this thread is in.
    static CURRENT: Cell<Option<u64>> = const { Cell::new(None) };
}

impl Profile {
    /// Runs `call`, an operation, and records it.
    pub fn record<T>(&self, op: &'static str, shape: String, work: Work, call: impl FnOnce() -> T) -> T {
        let number = CALLS.fetch_add(1, Ordering::Relaxed);
        let before = CURRENT.replace(Some(number));
        let result = self.span_of(SpanKind::Operation, Cow::Borrowed(op), shape, work, number, call);
        CURRENT.set(before);
        result
    }

    /// Runs `call`, a phase, and records it.
    pub fn phase<T>(&self, name: &'static str, detail: String, call: impl FnOnce() -> T) -> T {
        let number = CALLS.fetch_add(1, Ordering::Relaxed);
        self.span_of(SpanKind::Phase, Cow::Borrowed(name), detail, Work::default(), number, call)
    }

    /// Records a batch that was given at `start` and is done now, as number `thread` of those under way.
    pub fn batch(&self, detail: String, thread: usize, start: Duration) {
        let duration = self.now().saturating_sub(start);
        let call = CALLS.fetch_add(1, Ordering::Relaxed);
        let (kind, name, work) = (SpanKind::Batch, Cow::Borrowed("batch"), Work::default());
        self.with(|recording| {
            recording.host.push(HostSpan { kind, name, detail, work, thread, start, duration, call })
        });
    }

    fn span_of<T>(
        &self,
        kind: SpanKind,
        name: Cow<'static, str>,
        detail: String,
        work: Work,
        call: u64,
        run: impl FnOnce() -> T,
    ) -> T {
        let (start, result, duration) = {
            let _range = Range::push(&name, &detail);
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

    /// The operation that the calling thread is in, if it is in one.
    pub fn current_call() -> Option<u64> {
        CURRENT.get()
    }

    /// Time since the profile began.
    pub fn now(&self) -> Duration {
        self.shared.begin.elapsed()
    }

    /// Records what a device did.
    pub(crate) fn device_spans(&self, spans: Vec<DeviceSpan>) {
        self.with(|recording| recording.device.extend(spans));
    }

    /// What was recorded so far; recording goes on.
    pub fn take(&self) -> Recording {
        self.with(std::mem::take)
    }

    fn with<T>(&self, call: impl FnOnce(&mut Recording) -> T) -> T {
        call(&mut self.shared.recording.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_of_one_shape_are_one_entry() {
        let profile = Profile::default();
        let work = Work { flops: 10, bytes: 3 };
        assert_eq!(profile.record("linear", "2x3".to_owned(), work, || 7), 7);
        profile.record("linear", "2x3".to_owned(), work, || ());
        profile.record("linear", "4x3".to_owned(), work, || ());
        let entries = profile.take().entries();
        assert_eq!(entries.len(), 2);
        let entry = &entries[&("linear".to_owned(), "2x3".to_owned())];
        assert_eq!((entry.durations.len(), entry.work), (2, Work { flops: 20, bytes: 6 }));
        assert!(entry.total() >= entry.median());
        assert_eq!(profile.take(), Recording::default());
        assert_eq!(Entry::default().median(), Duration::ZERO);
    }

    #[test]
    fn a_call_with_kernels_takes_their_time_and_names() {
        let profile = Profile::default();
        let call = profile.record("attention", "8".to_owned(), Work::default(), || Profile::current_call().unwrap());
        assert_eq!(Profile::current_call(), None);
        let span = |lane, name: &str, millis, call| DeviceSpan {
            device: 0,
            lane,
            name: name.to_owned(),
            bytes: 0,
            start: Duration::ZERO,
            duration: Duration::from_millis(millis),
            call,
        };
        profile.device_spans(vec![
            span(Lane::ToDevice, "copy", 50, Some(call)),
            span(Lane::Kernels, "scores", 2, Some(call)),
            span(Lane::Kernels, "sums", 3, Some(call)),
            span(Lane::Kernels, "sums", 3, Some(call)),
            span(Lane::Kernels, "of nobody", 90, None),
        ]);
        let entries = profile.take().entries();
        let entry = entries.values().next().unwrap();
        assert_eq!(entry.durations, [Duration::from_millis(8)]);
        assert_eq!(entry.kernels, ["scores", "sums"]);
    }

    #[test]
    fn spans_lie_in_each_other_and_threads_have_numbers() {
        let profile = Profile::default();
        profile.phase("extracting", String::new(), || {
            profile.record("linear", String::new(), Work::default(), || ());
            std::thread::scope(|scope| {
                scope.spawn(|| profile.record("pool", String::new(), Work::default(), || ()));
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
