//! Launches that a thread defers to launch them together, and memory that is freed in the meantime.
//!
//! While a thread defers launches, memory that any thread frees is kept: a deferred launch may use it. Everything else
//! that the thread does in the order of the stream, such as a copy, first flushes its deferred launches. Nothing here
//! waits, so threads that share a device cannot block each other.
//!
//! Rejected: capturing the stream. A capture includes what other threads do to the stream, forbids them other calls,
//! and is invalidated by a copy or a wait, after which the work would have to be repeated.

use std::sync::{Mutex, PoisonError};
use std::thread::{self, ThreadId};

use cudarc::driver::sys;

use super::encoded_launch::EncodedLaunch;

/// The deferred launches of a device. One thread at a time can defer launches; the others launch directly.
#[derive(Default)]
pub(super) struct DeferredLaunches(Mutex<DeferralState>);

#[derive(Default)]
struct DeferralState {
    /// The thread that defers its launches.
    owner: Option<ThreadId>,
    launches: Vec<EncodedLaunch>,
    freed: Vec<sys::CUdeviceptr>,
}

impl DeferralState {
    fn is_mine(&self) -> bool {
        self.owner == Some(thread::current().id())
    }
}

impl DeferredLaunches {
    fn with<T>(&self, call: impl FnOnce(&mut DeferralState) -> T) -> T {
        call(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Starts to defer this thread's launches. Returns false if this or another thread's launches are deferred already.
    pub(super) fn begin(&self) -> bool {
        self.with(|state| {
            let is_free = state.owner.is_none();
            if is_free {
                state.owner = Some(thread::current().id());
            }
            is_free
        })
    }

    /// Keeps `launch` if this thread's launches are deferred; otherwise returns it.
    pub(super) fn defer(&self, launch: EncodedLaunch) -> Option<EncodedLaunch> {
        self.with(|state| {
            if state.is_mine() {
                state.launches.push(launch);
                None
            } else {
                Some(launch)
            }
        })
    }

    /// Keeps freed memory if any launches are deferred. Returns whether it did.
    pub(super) fn defer_free(&self, start: sys::CUdeviceptr) -> bool {
        self.with(|state| {
            let is_deferred = state.owner.is_some();
            if is_deferred {
                state.freed.push(start);
            }
            is_deferred
        })
    }

    /// Removes and returns this thread's deferred launches. Freed memory is still kept.
    pub(super) fn take(&self) -> Vec<EncodedLaunch> {
        self.with(|state| if state.is_mine() { std::mem::take(&mut state.launches) } else { Vec::new() })
    }

    /// Stops deferring this thread's launches and returns the memory that was freed in the meantime.
    pub(super) fn end(&self) -> Vec<sys::CUdeviceptr> {
        self.with(|state| {
            if !state.is_mine() {
                return Vec::new();
            }
            state.owner = None;
            // Empty unless a panic ended the group: then its results are not used.
            state.launches.clear();
            std::mem::take(&mut state.freed)
        })
    }
}
