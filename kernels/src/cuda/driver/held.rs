//! Launches that are held back to go to the device together, and memory that is given back meanwhile.
//!
//! While a thread holds its launches back, memory that anybody gives back is kept: a launch that is still to come may
//! work on it. Everything else that a thread does in the order of the stream, such as a copy, first lets go of what it
//! holds. Nothing here waits for anything, so threads that share a device cannot block each other.
//!
//! The rejected way to a graph is to capture the stream: a capture takes in what other threads do to the stream, forbids
//! them calls elsewhere, and is void, with the work to be done again, after a copy or a wait.

use std::sync::{Mutex, PoisonError};
use std::thread::{self, ThreadId};

use cudarc::driver::sys;

use super::prepared::Prepared;
use super::session::Session;
use crate::error::KernelError;

/// What is held back on a device, by one thread at a time.
#[derive(Default)]
pub(super) struct Held(Mutex<State>);

#[derive(Default)]
struct State {
    holder: Option<ThreadId>,
    launches: Vec<Prepared>,
    given_back: Vec<sys::CUdeviceptr>,
}

impl State {
    fn is_mine(&self) -> bool {
        self.holder == Some(thread::current().id())
    }
}

impl Held {
    fn with<T>(&self, call: impl FnOnce(&mut State) -> T) -> T {
        call(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Holds this thread's launches back from now on, until the answer is dropped; not if that is so already, or if
    /// another thread's are.
    pub(super) fn begin<'a>(&self, session: &'a Session) -> Option<Holding<'a>> {
        let begun = self.with(|state| {
            let is_free = state.holder.is_none();
            if is_free {
                state.holder = Some(thread::current().id());
            }
            is_free
        });
        begun.then_some(Holding { session })
    }

    /// Keeps `launch` if this thread's launches are held back; else gives it back.
    pub(super) fn hold(&self, launch: Prepared) -> Option<Prepared> {
        self.with(|state| match state.is_mine() {
            true => {
                state.launches.push(launch);
                None
            }
            false => Some(launch),
        })
    }

    /// Keeps memory that is given back while a launch that may use it is still to come.
    pub(super) fn keeps(&self, start: sys::CUdeviceptr) -> bool {
        self.with(|state| {
            let keeps = state.holder.is_some();
            if keeps {
                state.given_back.push(start);
            }
            keeps
        })
    }

    /// What this thread holds back. Memory is still kept.
    pub(super) fn take(&self) -> Vec<Prepared> {
        self.with(|state| if state.is_mine() { std::mem::take(&mut state.launches) } else { Vec::new() })
    }

    /// Ends what this thread began. The memory that was kept meanwhile.
    fn end(&self) -> Vec<sys::CUdeviceptr> {
        self.with(|state| {
            if !state.is_mine() {
                return Vec::new();
            }
            state.holder = None;
            // None but after a panic: then nobody waits for what they would have done.
            state.launches.clear();
            std::mem::take(&mut state.given_back)
        })
    }
}

/// For as long as launches of a thread are held back. Whoever has it launches them before it is dropped.
pub(super) struct Holding<'a> {
    session: &'a Session,
}

impl Drop for Holding<'_> {
    fn drop(&mut self) {
        self.session.held.end().into_iter().for_each(|start| self.session.release(start));
    }
}

impl Session {
    /// Launches what this thread holds back, and holds nothing back any more: whatever comes next is behind it.
    pub(super) fn let_go(&self) -> Result<(), KernelError> {
        let launched = self.launch_all(self.held.take());
        self.held.end().into_iter().for_each(|start| self.release(start));
        launched
    }

    /// Launches `launches` one by one, up to the first that fails.
    pub(super) fn launch_all(&self, launches: Vec<Prepared>) -> Result<(), KernelError> {
        launches.into_iter().try_for_each(|launch| {
            self.check("launch", || launch.to_string(), launch.launch(self))?;
            self.launched(launch);
            Ok(())
        })
    }
}
