//! What a profile holds: one entry for each operation and shape, with the time, the work and the traffic of its calls.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The work of one call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Floating-point operations, where they are what the operation is limited by; a multiply-add counts as two.
    pub flops: u64,
    /// Bytes that must be read and written at least once: inputs, weights and outputs.
    pub bytes: u64,
}

/// All calls of one operation on one shape.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// How long each call took, in the order of the calls.
    pub durations: Vec<Duration>,
    /// Of all calls together.
    pub work: Work,
}

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

/// Entries by operation and shape, shared by those who record and those who read.
#[derive(Clone, Debug, Default)]
pub struct Profile {
    entries: Arc<Mutex<Entries>>,
}

/// Keyed by the operation's name and what tells its shapes apart.
pub type Entries = BTreeMap<(&'static str, String), Entry>;

impl Profile {
    /// Runs `call` and records it.
    pub fn record<T>(&self, op: &'static str, shape: String, work: Work, call: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = call();
        let duration = start.elapsed();
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = entries.entry((op, shape)).or_default();
        entry.durations.push(duration);
        entry.work.flops += work.flops;
        entry.work.bytes += work.bytes;
        result
    }

    /// What was recorded so far; recording starts anew.
    pub fn take(&self) -> Entries {
        std::mem::take(&mut *self.entries.lock().unwrap_or_else(PoisonError::into_inner))
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
        let entries = profile.take();
        assert_eq!(entries.len(), 2);
        let entry = &entries[&("linear", "2x3".to_owned())];
        assert_eq!((entry.durations.len(), entry.work), (2, Work { flops: 20, bytes: 6 }));
        assert!(entry.total() >= entry.median());
        assert!(profile.take().is_empty());
        assert_eq!(Entry::default().median(), Duration::ZERO);
    }
}
