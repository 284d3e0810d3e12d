//! How much memory an emulated device has and has given out.

use std::sync::atomic::{AtomicU64, Ordering};

use super::MemoryUsage;

/// What is taken from the device at a time, as the memory pools of GPUs do.
const STEP: u64 = 2 << 20;

/// The count of one device's memory.
#[derive(Debug)]
pub(super) struct EmulatedMemory {
    /// Bytes that there are; none is as many as the host has.
    limit: Option<u64>,
    used: AtomicU64,
    peak_used: AtomicU64,
    /// The most that was in use since the last reset or was kept over it.
    reserved: AtomicU64,
}

impl EmulatedMemory {
    pub(super) fn of(limit: Option<u64>) -> Self {
        let nothing = || AtomicU64::new(0);
        EmulatedMemory { limit, used: nothing(), peak_used: nothing(), reserved: nothing() }
    }

    /// Takes `bytes` bytes, if there are as many.
    pub(super) fn take(&self, bytes: usize) -> bool {
        let more =
            |used: u64| used.checked_add(bytes as u64).filter(|sum| self.limit.is_none_or(|limit| *sum <= limit));
        let Ok(before) = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more) else { return false };
        self.peak_used.fetch_max(before + bytes as u64, Ordering::Relaxed);
        self.reserved.fetch_max(steps(before + bytes as u64), Ordering::Relaxed);
        true
    }

    /// Gives `bytes` bytes back.
    pub(super) fn give_back(&self, bytes: usize) {
        self.used.fetch_sub(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn in_use(&self) -> MemoryUsage {
        let reserved = self.reserved.load(Ordering::Relaxed);
        MemoryUsage {
            used: self.used.load(Ordering::Relaxed),
            peak_used: self.peak_used.load(Ordering::Relaxed),
            reserved,
            peak_reserved: reserved,
        }
    }

    /// What was given back leaves the pool, and the high-water marks start anew.
    pub(super) fn reset_high(&self) {
        let used = self.used.load(Ordering::Relaxed);
        self.peak_used.store(used, Ordering::Relaxed);
        self.reserved.store(steps(used), Ordering::Relaxed);
    }

    /// Bytes that can still be taken.
    pub(super) fn free(&self) -> Option<u64> {
        self.limit.map(|limit| limit.saturating_sub(self.used.load(Ordering::Relaxed)))
    }
}

/// Bytes of whole steps that hold `bytes`.
fn steps(bytes: u64) -> u64 {
    bytes.div_ceil(STEP).saturating_mul(STEP)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_itself_can_be_taken_and_one_byte_more_cannot() {
        let memory = EmulatedMemory::of(Some(100));
        assert!(memory.take(60) && memory.take(40) && !memory.take(1) && !memory.take(usize::MAX));
        assert_eq!(memory.free(), Some(0));
        memory.give_back(60);
        assert_eq!(memory.in_use(), MemoryUsage { used: 40, peak_used: 100, reserved: STEP, peak_reserved: STEP });
        memory.reset_high();
        assert_eq!(memory.in_use().peak_used, 40);
        assert_eq!(EmulatedMemory::of(None).free(), None);
    }
}
