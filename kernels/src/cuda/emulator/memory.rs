//! The accounting of an emulated device's memory.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::cuda::MemoryUsage;

/// The unit in which a pool reserves memory, as a GPU's does.
const POOL_STEP: u64 = 2 << 20;

/// The counters of one device.
#[derive(Debug)]
pub(super) struct EmulatedMemory {
    /// The size of the memory; `None` is the host's.
    limit: Option<u64>,
    used: AtomicU64,
    peak_used: AtomicU64,
    /// The pool's memory: the peak of `used` since the last reset, in steps.
    reserved: AtomicU64,
}

impl EmulatedMemory {
    pub(super) fn new(limit: Option<u64>) -> Self {
        let zero = || AtomicU64::new(0);
        EmulatedMemory { limit, used: zero(), peak_used: zero(), reserved: zero() }
    }

    /// Reserves `bytes` bytes, if they are free.
    pub(super) fn reserve(&self, bytes: usize) -> bool {
        let more =
            |used: u64| used.checked_add(bytes as u64).filter(|sum| self.limit.is_none_or(|limit| *sum <= limit));
        let Ok(before) = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more) else { return false };
        self.peak_used.fetch_max(before + bytes as u64, Ordering::Relaxed);
        self.reserved.fetch_max(steps(before + bytes as u64), Ordering::Relaxed);
        true
    }

    /// Releases `bytes` bytes.
    pub(super) fn release(&self, bytes: usize) {
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

    /// Trims the pool and resets the peaks to the current use.
    pub(super) fn reset_peak(&self) {
        let used = self.used.load(Ordering::Relaxed);
        self.peak_used.store(used, Ordering::Relaxed);
        self.reserved.store(steps(used), Ordering::Relaxed);
    }

    /// Bytes that can still be reserved; `None` without a limit.
    pub(super) fn free(&self) -> Option<u64> {
        self.limit.map(|limit| limit.saturating_sub(self.used.load(Ordering::Relaxed)))
    }
}

/// Bytes of whole steps that hold `bytes`.
fn steps(bytes: u64) -> u64 {
    bytes.div_ceil(POOL_STEP).saturating_mul(POOL_STEP)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_reserved_up_to_its_limit() {
        let memory = EmulatedMemory::new(Some(100));
        assert!(memory.reserve(60) && memory.reserve(40) && !memory.reserve(1) && !memory.reserve(usize::MAX));
        assert_eq!(memory.free(), Some(0));
        memory.release(60);
        assert_eq!(
            memory.in_use(),
            MemoryUsage { used: 40, peak_used: 100, reserved: POOL_STEP, peak_reserved: POOL_STEP }
        );
        memory.reset_peak();
        assert_eq!(memory.in_use().peak_used, 40);
        assert_eq!(EmulatedMemory::new(None).free(), None);
    }
}
