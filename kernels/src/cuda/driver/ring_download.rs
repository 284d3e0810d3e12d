//! Asynchronous downloads through the slots of the ring into pageable memory.
//!
//! A download takes the slots that it can get, and the others as it empties them in the wait for it. Pinned memory of its
//! size would be ready sooner and takes longer to allocate: see [`super::download`].

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use cudarc::driver::{DriverError, result, sys};

use super::memory::DriverBuffer;
use super::ring::{FIRST_SLOTS, PinnedRing, RingSlot, SLOT_BYTES};
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
        let (in_flight, out) = (VecDeque::new(), vec![0; bytes]);
        let mut download = RingDownload { session, ring, buffer: Some(buffer), in_flight, started: 0, out };
        let started = download.wait_for_kernels().and_then(|()| download.start_copies());
        download.check(started)?;
        Ok(download)
    }

    fn check<T>(&self, result: Result<T, DriverError>) -> Result<T, KernelError> {
        self.session.context.check("read", || format!("copying {} bytes from the device", self.out.len()), result)
    }

    /// The download stream waits for the kernels launched so far.
    fn wait_for_kernels(&self) -> Result<(), DriverError> {
        let context = &self.session.context;
        let computed = context.cuda.new_event(None)?;
        computed.record(&context.stream)?;
        context.download_stream.wait(&computed)
    }

    /// Starts copies to the slots that are free, but for those that other copies cannot do without.
    fn start_copies(&mut self) -> Result<(), DriverError> {
        while self.started < self.out.len()
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
        let source = buffer.start() + place.start as sys::CUdeviceptr;
        let staged = &mut slot.bytes()?[..place.len()];
        // SAFETY: the buffer has as many bytes from `source` on and is kept until the copy completes; `RingSlot::bytes`
        // waits for the copy before the slot is read or used again.
        unsafe { result::memcpy_dtoh_async(staged, source, stream.cu_stream()) }?;
        slot.record(stream)?;
        self.started = place.end;
        self.in_flight.push_back((slot, place));
        Ok(())
    }

    /// Empties the oldest slot, and starts a copy to it.
    fn empty_one(&mut self) -> Result<(), DriverError> {
        if let Some((mut slot, place)) = self.in_flight.pop_front() {
            copy_bytes(&slot.bytes()?[..place.len()], &mut self.out[place]);
            drop(slot);
            return self.start_copies();
        }
        // Only a download without slots may wait for one.
        let slot = self.ring.take().ok_or(DriverError(sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY))?;
        self.start_copy(slot)
    }

    /// Waits for all copies and releases their source.
    fn finish(&mut self) -> Result<(), KernelError> {
        if self.buffer.is_some() {
            self.session.context.enter("read")?;
            while self.started < self.out.len() || !self.in_flight.is_empty() {
                let emptied = self.empty_one();
                self.check(emptied)?;
            }
            self.buffer = None;
        }
        Ok(())
    }
}

impl PendingCopy for RingDownload {
    fn wait(&mut self) -> Result<&[u8], KernelError> {
        self.finish()?;
        Ok(&self.out)
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
