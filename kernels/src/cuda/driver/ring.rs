//! A ring of pinned slots, through which all large copies of a device go.
//!
//! Allocating pinned memory takes the host longer than copying as many bytes several times (H100 in a virtual machine: 0.6 ms
//! for each MB, against 0.02 ms for the copy). So it is allocated once, while weights are loaded: the first slots before the
//! first large copy, the others by a thread meanwhile.
//!
//! A slot returns to the ring as soon as its copy was started. Its next user waits for the copy.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use cudarc::driver::{CudaEvent, CudaStream, DriverError, PinnedHostSlice};

use super::context::DriverContext;
use super::session::Session;

/// Bytes of a slot: its copy takes much longer than starting it.
pub(super) const SLOT_BYTES: usize = 8 << 20;

/// Slots of a ring.
const SLOTS: usize = 8;

/// Slots that a large copy cannot do without: the host fills one while the device copies the other.
pub(super) const FIRST_SLOTS: usize = 2;

/// The slots of a device.
pub(super) struct PinnedRing {
    shared: Arc<SharedRing>,
    /// Allocates the slots after the first ones.
    allocator: Mutex<Option<JoinHandle<()>>>,
}

struct SharedRing {
    session: Arc<Session>,
    state: Mutex<RingState>,
    returned: Condvar,
}

#[derive(Default)]
struct RingState {
    /// The slots that no thread has, the one whose copy was started first at the front.
    free: VecDeque<PinnedSlot>,
    /// All slots; none before the first large copy, and where there is no pinned memory.
    total: usize,
    is_started: bool,
    /// The downloads that have copies to start, by their number.
    queued: BTreeSet<u64>,
    /// Downloads so far.
    n_downloads: u64,
}

/// Pinned memory, and the end of the last copy that used it.
struct PinnedSlot {
    memory: PinnedHostSlice<u8>,
    done: CudaEvent,
}

/// A download in the queue of those that have copies to start. It leaves the queue when it is dropped.
pub(super) struct QueuedDownload {
    number: u64,
    ring: Arc<SharedRing>,
}

/// A slot that returns to its ring when it is dropped. A thread that has one must not wait for another.
pub(super) struct RingSlot {
    /// None in the drop alone.
    slot: Option<PinnedSlot>,
    ring: Arc<SharedRing>,
}

impl PinnedSlot {
    fn new(context: &DriverContext) -> Result<Self, DriverError> {
        // SAFETY: the memory is written, by the host or by a copy from the device, before it is read.
        let memory = unsafe { context.cuda.alloc_pinned_with_flags(SLOT_BYTES, 0) }?;
        Ok(PinnedSlot { memory, done: context.cuda.new_event(None)? })
    }
}

impl SharedRing {
    fn lock(&self) -> MutexGuard<'_, RingState> {
        // The state is whole between any two statements that change it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a slot, which is used before those with copies in flight. Returns false without pinned memory.
    fn add_slot(&self) -> bool {
        let Ok(slot) = PinnedSlot::new(&self.session.context) else { return false };
        let mut state = self.lock();
        state.total += 1;
        state.free.push_front(slot);
        self.returned.notify_one();
        true
    }
}

impl PinnedRing {
    /// A ring without slots.
    pub(super) fn new(session: &Arc<Session>) -> Self {
        let shared = SharedRing { session: session.clone(), state: Mutex::default(), returned: Condvar::new() };
        PinnedRing { shared: Arc::new(shared), allocator: Mutex::default() }
    }

    /// Allocates slots for a copy of `bytes` bytes: the first ones now, and if they do not hold all of it, the others by a
    /// thread. Without that thread there are fewer slots. Returns whether there are any.
    pub(super) fn prepare(&self, bytes: usize) -> bool {
        let mut allocator = self.allocator.lock().unwrap_or_else(PoisonError::into_inner);
        let is_started = std::mem::replace(&mut self.shared.lock().is_started, true);
        let has_first = is_started || (0..FIRST_SLOTS).all(|_| self.shared.add_slot());
        let has_any = self.shared.lock().total > 0;
        if allocator.is_some() || !has_first || bytes <= FIRST_SLOTS * SLOT_BYTES || !has_any {
            return has_any;
        }
        let shared = self.shared.clone();
        let allocate = move || {
            let _ = (FIRST_SLOTS..SLOTS).all(|_| shared.add_slot());
        };
        *allocator = std::thread::Builder::new().name("pinned".to_owned()).spawn(allocate).ok();
        true
    }

    /// The slot whose copy was started first, waiting until one was returned. None if there is no pinned memory.
    pub(super) fn take(&self) -> Option<RingSlot> {
        let mut state = self.shared.lock();
        while state.total > 0 {
            if let Some(slot) = state.free.pop_front() {
                return Some(RingSlot { slot: Some(slot), ring: self.shared.clone() });
            }
            state = self.shared.returned.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        None
    }

    /// Appends a download to the queue.
    pub(super) fn queue_download(&self) -> QueuedDownload {
        let mut state = self.shared.lock();
        let number = state.n_downloads;
        state.n_downloads += 1;
        state.queued.insert(number);
        QueuedDownload { number, ring: self.shared.clone() }
    }

    /// A slot, if more than `left` slots are there to take.
    pub(super) fn try_take(&self, left: usize) -> Option<RingSlot> {
        let mut state = self.shared.lock();
        let slot = if state.free.len() > left { state.free.pop_front() } else { None };
        slot.map(|slot| RingSlot { slot: Some(slot), ring: self.shared.clone() })
    }
}

impl Drop for PinnedRing {
    fn drop(&mut self) {
        let allocator = self.allocator.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        // A panic of the thread leaves fewer slots, which are freed all the same.
        let _ = allocator.map(JoinHandle::join);
    }
}

impl QueuedDownload {
    /// Whether no earlier download has copies to start.
    pub(super) fn is_first(&self) -> bool {
        self.ring.lock().queued.first() == Some(&self.number)
    }
}

impl Drop for QueuedDownload {
    fn drop(&mut self) {
        self.ring.lock().queued.remove(&self.number);
    }
}

impl RingSlot {
    /// Waits for the last copy that used the slot and returns its memory.
    pub(super) fn bytes(&mut self) -> Result<&mut [u8], DriverError> {
        match &mut self.slot {
            Some(slot) => {
                slot.done.synchronize()?;
                slot.memory.as_mut_slice()
            }
            None => Ok(&mut []),
        }
    }

    /// Notes that the last copy of `stream` uses the slot.
    pub(super) fn record(&self, stream: &CudaStream) -> Result<(), DriverError> {
        self.slot.as_ref().map_or(Ok(()), |slot| slot.done.record(stream))
    }
}

impl Drop for RingSlot {
    fn drop(&mut self) {
        self.ring.lock().free.extend(self.slot.take());
        self.ring.returned.notify_one();
    }
}
