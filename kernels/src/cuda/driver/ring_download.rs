//! Asynchronous downloads through the slots of the ring into pageable memory.
//!
//! A download takes the slots that it can get, and the others as it empties them in the wait for it. Pinned memory of its
//! size would be ready sooner and takes longer to allocate: see [`super::download`].
//!
//! Downloads start their copies in the order of the downloads. Otherwise the later copies of one would wait for the kernels
//! whose results the next one copies.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use cudarc::driver::{CudaEvent, DriverError, result, sys};

use super::memory::DriverBuffer;
use super::ring::{FIRST_SLOTS, PinnedRing, QueuedDownload, RingSlot, SLOT_BYTES};
use super::session::Session;
use super::transfer::copy_bytes;
use crate::error::KernelError;
use crate::pending::PendingCopy;

/// A download in flight.
pub(super) struct RingDownload {
    session: Arc<Session>,
    ring: Arc<PinnedRing>,
    /// The source, until all copies have completed.
    buffer: Option<DriverBuffer>,
    /// Copies that were started, oldest first, with their places in `out`.
    in_flight: VecDeque<(RingSlot, Range<usize>)>,
    /// Bytes whose copies were started.
    started: usize,
    /// The end of the kernels whose results are copied, until the first copy.
    computed: Option<CudaEvent>,
    /// Held while copies have yet to be started.
    queued: Option<QueuedDownload>,
    /// Bytes of `out` that have landed.
    landed: usize,
    /// The destination.
    out: Vec<u8>,
}

impl RingDownload {
    /// Starts to copy the first `bytes` bytes of `buffer`, after the kernels launched so far.
    pub(super) fn start(
        session: &Arc<Session>,
        ring: &Arc<PinnedRing>,
        buffer: DriverBuffer,
        bytes: usize,
    ) -> Result<Self, KernelError> {
        let (session, ring) = (session.clone(), ring.clone());
        let queued = Some(ring.queue_download());
        let (in_flight, out) = (VecDeque::new(), vec![0; bytes]);
        let buffer = Some(buffer);
        let mut download =
            RingDownload { session, ring, buffer, in_flight, started: 0, computed: None, queued, landed: 0, out };
        let started = download.record_kernels().and_then(|()| download.start_copies());
        download.check(started)?;
        Ok(download)
    }

    fn check<T>(&self, result: Result<T, DriverError>) -> Result<T, KernelError> {
        self.session.context.check("read", || format!("copying {} bytes from the device", self.out.len()), result)
    }

    /// Notes the end of the kernels launched so far.
    fn record_kernels(&mut self) -> Result<(), DriverError> {
        let context = &self.session.context;
        let computed = context.cuda.new_event(None)?;
        computed.record(&context.stream)?;
        self.computed = Some(computed);
        Ok(())
    }

    /// Starts copies to the slots that are free, but for those that other copies cannot do without, and none while an
    /// earlier download has copies to start.
    fn start_copies(&mut self) -> Result<(), DriverError> {
        while self.queued.as_ref().is_some_and(QueuedDownload::is_first)
            && let Some(slot) = self.ring.try_take(FIRST_SLOTS)
        {
            self.start_copy(slot)?;
        }
        Ok(())
    }

    fn start_copy(&mut self, mut slot: RingSlot) -> Result<(), DriverError> {
        let Some(buffer) = &self.buffer else { return Ok(()) };
        let place = self.started..self.out.len().min(self.started + SLOT_BYTES);
        let stream = &self.session.context.download_stream;
        if let Some(computed) = self.computed.take() {
            stream.wait(&computed)?;
        }
        let source = buffer.start() + place.start as sys::CUdeviceptr;
        let staged = &mut slot.bytes()?[..place.len()];
        // SAFETY: the buffer has as many bytes from `source` on and is kept until the copy completes; `RingSlot::bytes`
        // waits for the copy before the slot is read or used again.
        unsafe { result::memcpy_dtoh_async(staged, source, stream.cu_stream()) }?;
        slot.record(stream)?;
        self.started = place.end;
        self.in_flight.push_back((slot, place));
        if self.started == self.out.len() {
            self.queued = None;
        }
        Ok(())
    }

    /// Empties the oldest slot, and starts a copy to it.
    fn empty_one(&mut self) -> Result<(), DriverError> {
        if let Some((mut slot, place)) = self.in_flight.pop_front() {
            let end = place.end;
            copy_bytes(&slot.bytes()?[..place.len()], &mut self.out[place]);
            self.landed = end;
            drop(slot);
            return self.start_copies();
        }
        // Only a download without slots may wait for one.
        let slot = self.ring.take().ok_or(DriverError(sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY))?;
        self.start_copy(slot)
    }

    /// Waits for the copies of the first `n_bytes` bytes. Releases the source after the last copy.
    fn land(&mut self, n_bytes: usize) -> Result<(), KernelError> {
        if self.buffer.is_some() {
            self.session.context.enter("read")?;
            while self.landed < n_bytes.min(self.out.len()) {
                let emptied = self.empty_one();
                self.check(emptied)?;
            }
            if self.landed == self.out.len() {
                self.buffer = None;
            }
        }
        Ok(())
    }
}

impl PendingCopy for RingDownload {
    fn n_bytes(&self) -> usize {
        self.out.len()
    }

    fn wait_for(&mut self, n_bytes: usize) -> Result<&[u8], KernelError> {
        self.land(n_bytes)?;
        Ok(&self.out[..self.landed])
    }
}

impl Drop for RingDownload {
    fn drop(&mut self) {
        // The source is freed after the copies from it. A drop cannot return an error; no copy of a broken context
        // continues.
        if self.session.context.enter("read").is_ok() {
            for (slot, _) in &mut self.in_flight {
                let _ = slot.bytes();
            }
        }
    }
}
