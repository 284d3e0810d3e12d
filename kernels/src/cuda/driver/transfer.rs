//! Copies between host and device in the order of the kernels' stream: small ones directly, large ones in chunks through
//! pinned slots.
//!
//! From pageable memory the driver copies through a buffer of its own, and the host waits for most of the copy. With
//! pinned slots, the host fills or empties one while the device copies the others.

use std::collections::VecDeque;
use std::sync::Arc;

use cudarc::driver::{DriverError, result, sys};
use rayon::prelude::*;

use super::memory::DriverBuffer;
use super::ring::{PinnedRing, RingSlot, SLOT_BYTES};
use super::session::Session;
use crate::error::KernelError;

/// The largest direct copy, in bytes: up to this size the driver takes the bytes before it returns and does not wait
/// for the device ("API synchronization behavior" in its reference).
const MAX_DIRECT_BYTES: usize = 64 << 10;

/// Bytes of a chunk that one thread copies or reads: a single thread is slower than the bus.
const THREAD_BYTES: usize = 512 << 10;

/// Writes the bytes of a source from a position on.
pub(super) type Fill<'a> = dyn Fn(usize, &mut [u8]) -> Result<(), KernelError> + Sync + 'a;

/// Whether `bytes` bytes are copied by several threads.
fn is_parallel(bytes: usize) -> bool {
    // A rayon thread that waits runs other tasks meanwhile, and these could need the slot that it holds.
    bytes > THREAD_BYTES && rayon::current_thread_index().is_none()
}

/// Copies `from` to `to`, which have one length, with several threads if they are long.
pub(super) fn copy_bytes(from: &[u8], to: &mut [u8]) {
    if !is_parallel(from.len()) {
        return to.copy_from_slice(from);
    }
    to.par_chunks_mut(THREAD_BYTES).zip(from.par_chunks(THREAD_BYTES)).for_each(|(to, from)| to.copy_from_slice(from));
}

/// Fills `out` with the bytes of the source from `at` on, with several threads if there are many.
fn fill_bytes(at: usize, out: &mut [u8], fill: &Fill<'_>) -> Result<(), KernelError> {
    if !is_parallel(out.len()) {
        return fill(at, out);
    }
    let parts = out.par_chunks_mut(THREAD_BYTES).enumerate();
    parts.try_for_each(|(index, out)| fill(at + index * THREAD_BYTES, out))
}

/// The copies of a device.
pub(super) struct ChunkedCopies {
    ring: Arc<PinnedRing>,
}

impl ChunkedCopies {
    /// Copies without pinned memory until the first large one.
    pub(super) fn new(session: &Arc<Session>) -> Self {
        ChunkedCopies { ring: Arc::new(PinnedRing::new(session)) }
    }

    /// The slots, of which there are none before the first large copy.
    pub(super) fn ring(&self) -> &Arc<PinnedRing> {
        &self.ring
    }

    /// Copies `bytes` to the start of `buffer`, in the order of the stream. The caller may change `bytes` when this
    /// returns.
    pub(super) fn write(&self, session: &Session, buffer: &DriverBuffer, bytes: &[u8]) -> Result<(), KernelError> {
        self.write_filled(session, buffer, bytes.len(), &|at, out| {
            out.copy_from_slice(&bytes[at..at + out.len()]);
            Ok(())
        })
    }

    /// [`ChunkedCopies::write`] of the `len` bytes that `fill` writes, from several threads at a time.
    pub(super) fn write_filled(
        &self,
        session: &Session,
        buffer: &DriverBuffer,
        len: usize,
        fill: &Fill<'_>,
    ) -> Result<(), KernelError> {
        let context = &session.context;
        let action = || format!("copying {len} bytes to the device");
        let is_direct = len <= MAX_DIRECT_BYTES;
        if !is_direct {
            self.ring.prepare(len);
        }
        for at in (0..len).step_by(SLOT_BYTES) {
            let bytes = SLOT_BYTES.min(len - at);
            let destination = buffer.start() + at as sys::CUdeviceptr;
            let stream = context.stream.cu_stream();
            let Some(mut slot) = (if is_direct { None } else { self.ring.take() }) else {
                let mut pageable = vec![0; bytes];
                fill_bytes(at, &mut pageable, fill)?;
                // SAFETY: the caller has checked that the buffer has as many bytes. A copy from pageable memory returns
                // when the driver has taken the bytes ("API synchronization behavior" in its reference).
                let copied = unsafe { result::memcpy_htod_async(destination, &pageable, stream) };
                context.check("write", action, copied)?;
                continue;
            };
            let staged = &mut context.check("write", action, slot.bytes())?[..bytes];
            fill_bytes(at, staged, fill)?;
            // SAFETY: the buffer has as many bytes, and `RingSlot::bytes` waits for this copy before the memory is used again.
            let copied = unsafe { result::memcpy_htod_async(destination, staged, stream) };
            context.check("write", action, copied.and_then(|()| slot.record(&context.stream)))?;
        }
        Ok(())
    }

    /// Copies the start of `buffer` to `out`, after all earlier work of the stream. Waits for the copy.
    pub(super) fn read(&self, session: &Session, buffer: &DriverBuffer, out: &mut [u8]) -> Result<(), KernelError> {
        let (context, len) = (&session.context, out.len());
        let action = || format!("copying {len} bytes from the device");
        let copied = if len <= MAX_DIRECT_BYTES {
            self.read_pageable(session, buffer, 0, out)
        } else {
            self.ring.prepare(len);
            self.read_through_ring(session, buffer, out)
        };
        context.check("read", action, copied)?;
        session.synchronize("read", action)
    }

    /// Copies to pageable memory, which lasts until the caller waits for the stream.
    fn read_pageable(
        &self,
        session: &Session,
        buffer: &DriverBuffer,
        at: usize,
        out: &mut [u8],
    ) -> Result<(), DriverError> {
        let source = buffer.start() + at as sys::CUdeviceptr;
        // SAFETY: the buffer has as many bytes after `at`, and `out` lives until the caller's wait.
        unsafe { result::memcpy_dtoh_async(out, source, session.context.stream.cu_stream()) }
    }

    fn read_through_ring(&self, session: &Session, buffer: &DriverBuffer, out: &mut [u8]) -> Result<(), DriverError> {
        let stream = &session.context.stream;
        let empty = |(mut slot, out): (RingSlot, &mut [u8])| {
            let staged = slot.bytes()?;
            copy_bytes(&staged[..out.len()], out);
            Ok::<(), DriverError>(())
        };
        // The device copies the next chunks while the host empties the first one.
        let mut in_flight = VecDeque::new();
        for (index, out) in out.chunks_mut(SLOT_BYTES).enumerate() {
            let at = index * SLOT_BYTES;
            let mut slot = self.ring.try_take(0);
            // Only a thread that has no slot may wait for one.
            while slot.is_none()
                && let Some(first) = in_flight.pop_front()
            {
                empty(first)?;
                slot = self.ring.try_take(0);
            }
            let Some(mut slot) = slot.or_else(|| self.ring.take()) else {
                self.read_pageable(session, buffer, at, out)?;
                continue;
            };
            let staged = &mut slot.bytes()?[..out.len()];
            let source = buffer.start() + at as sys::CUdeviceptr;
            // SAFETY: the buffer has as many bytes after `at`; `RingSlot::bytes` waits for this copy before the memory is
            // used again.
            unsafe { result::memcpy_dtoh_async(staged, source, stream.cu_stream()) }?;
            slot.record(stream)?;
            in_flight.push_back((slot, out));
        }
        in_flight.into_iter().try_for_each(empty)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copy_bytes_copies_all_lengths_in_and_outside_rayon() {
        let from: Vec<u8> = (0..2 * THREAD_BYTES + 7).map(|index| (index % 251) as u8).collect();
        let fill = |at: usize, out: &mut [u8]| {
            out.copy_from_slice(&from[at..at + out.len()]);
            Ok(())
        };
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        for len in [0, 1, THREAD_BYTES, THREAD_BYTES + 1, from.len() - 3] {
            let (mut outside, mut inside, mut filled) = (vec![0; len], vec![0; len], vec![0; len]);
            copy_bytes(&from[..len], &mut outside);
            pool.install(|| copy_bytes(&from[..len], &mut inside));
            fill_bytes(3, &mut filled, &fill).unwrap();
            assert!(outside == from[..len] && inside == from[..len] && filled == from[3..3 + len], "{len}");
        }
    }

    #[test]
    fn failure_of_one_part_fails_the_whole() {
        let fill = |at: usize, _: &mut [u8]| {
            if at == THREAD_BYTES { Err(KernelError::shape("fill", "a part")) } else { Ok(()) }
        };
        let error = fill_bytes(0, &mut vec![0; 3 * THREAD_BYTES], &fill).unwrap_err();
        assert_eq!(error.to_string(), "fill: a part");
    }
}
