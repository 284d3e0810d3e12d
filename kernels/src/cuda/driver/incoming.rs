//! Small copies to the device that nobody waits for: through pinned memory and a stream of their own, ahead of what the
//! device is computing.
//!
//! The memory they go to is allocated in that stream too: an allocation in the stream of the kernels would come after
//! all of them, and so would the copy. The stream of the kernels waits for each copy by an event.

use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::{CudaEvent, DriverError, PinnedHostSlice, result};

use super::memory::{DriverBuffer, Memory};
use super::session::Session;
use crate::error::KernelError;

/// Bytes of a half of the pinned memory; larger copies go another way.
pub(super) const HALF: usize = 1 << 20;

/// Where copies begin, so that none shares a cache line with another.
const ALIGNMENT: usize = 64;

/// The pinned memory, made when the first copy needs it; none where there is none to be had.
#[derive(Default)]
pub(super) struct Incoming(Mutex<State>);

#[derive(Default)]
enum State {
    #[default]
    Unused,
    Unavailable,
    Ready(Halves),
}

/// Two halves in turn: one is filled while the copies from the other end.
struct Halves {
    halves: [Half; 2],
    current: usize,
    /// Bytes taken of the current half.
    taken: usize,
    /// What the stream of the kernels waits for.
    copied: CudaEvent,
}

struct Half {
    memory: PinnedHostSlice<u8>,
    /// The last copy from it.
    done: CudaEvent,
}

impl Half {
    fn new(session: &Session) -> Result<Self, DriverError> {
        // SAFETY: the memory is written by the host before a copy reads it.
        let memory = unsafe { session.context.alloc_pinned_with_flags(HALF, 0) }?;
        Ok(Half { memory, done: session.context.new_event(None)? })
    }
}

impl Halves {
    fn new(session: &Session) -> Result<Self, DriverError> {
        let halves = [Half::new(session)?, Half::new(session)?];
        Ok(Halves { halves, current: 0, taken: 0, copied: session.context.new_event(None)? })
    }

    /// Copies `bytes`, at most [`HALF`] of them, to `buffer` in the copies' stream, and lets the kernels' wait for it.
    fn copy(&mut self, session: &Session, bytes: &[u8], buffer: &DriverBuffer) -> Result<(), DriverError> {
        if self.taken + bytes.len() > HALF {
            self.current = 1 - self.current;
            self.taken = 0;
            // What was copied from this half long ago has most likely ended.
            self.halves[self.current].done.synchronize()?;
        }
        let half = &mut self.halves[self.current];
        let staged = &mut half.memory.as_mut_slice()?[self.taken..self.taken + bytes.len()];
        staged.copy_from_slice(bytes);
        self.taken = (self.taken + bytes.len()).next_multiple_of(ALIGNMENT).min(HALF);
        // SAFETY: the buffer has as many bytes and is of the copies' stream; these bytes of the half are not touched before
        // `done` is over, which is recorded behind the copy.
        unsafe { result::memcpy_htod_async(buffer.start(), staged, session.copy_in.cu_stream()) }?;
        half.done.record(&session.copy_in)?;
        self.copied.record(&session.copy_in)?;
        session.stream.wait(&self.copied)
    }
}

impl Incoming {
    /// Whether so many bytes go this way, if there is pinned memory.
    pub(super) fn takes(memory: &Memory, bytes: usize) -> bool {
        bytes > 0 && bytes <= HALF && memory.is_ordered()
    }

    /// New memory with `bytes` in it, for the kernels that are launched from now on; none where this way is not open:
    /// too many bytes, no memory in a stream's order, no pinned memory.
    pub(super) fn upload(&self, memory: &Arc<Memory>, bytes: &[u8]) -> Result<Option<DriverBuffer>, KernelError> {
        let session = &memory.session;
        if !Self::takes(memory, bytes.len()) {
            return Ok(None);
        }
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*state, State::Unused) {
            *state = Halves::new(session).map_or(State::Unavailable, State::Ready);
        }
        let State::Ready(halves) = &mut *state else { return Ok(None) };
        let buffer = memory.alloc_on(&session.copy_in, bytes.len())?;
        let copied = halves.copy(session, bytes, &buffer);
        session.check("write", || format!("copying {} bytes to the device", bytes.len()), copied)?;
        Ok(Some(buffer))
    }
}
