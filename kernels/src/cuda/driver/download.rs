//! Asynchronous downloads: copies to pinned memory in a stream of their own, which run during later kernels.
//!
//! A copy starts when the kernels launched before it have completed. It owns its source buffer until it completes, so
//! no kernel writes there. Pinned memory comes from a small pool, because allocating it is slow; the first large downloads
//! take slots of the ring instead ([`super::ring_download`]). A large copy is split into parts, so that the host can read
//! the first ones while the others are in flight.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::{CudaEvent, DriverError, PinnedHostSlice, result, sys};

use super::context::DriverContext;
use super::memory::DriverBuffer;
use super::ring::SLOT_BYTES;
use super::session::Session;
use crate::error::KernelError;
use crate::pending::PendingCopy;

/// Pinned memory, the destination of a download.
type StagingBuffer = PinnedHostSlice<u8>;

/// Staging buffers that the pool keeps for later downloads.
const MAX_POOLED: usize = 4;

/// The size of the smallest staging buffer, in bytes.
const MIN_STAGING_BYTES: usize = 64 << 10;

/// The size of a staging buffer for a download of `bytes` bytes: an eighth more, as batches differ a little in size and
/// the next ones should fit. Not much more, because allocating pinned memory takes the host longer than copying as many
/// bytes several times (H100 in a virtual machine: 0.6 ms for each MB, against 0.02 ms for the copy).
fn staging_bytes(bytes: usize) -> usize {
    bytes.saturating_add(bytes / 8).checked_next_multiple_of(MIN_STAGING_BYTES).unwrap_or(bytes).max(MIN_STAGING_BYTES)
}

/// The largest download, in bytes, for which a staging buffer is allocated at once.
const MAX_PINNED_AT_ONCE: usize = 1 << 20;

/// Larger downloads without a staging buffer before one is allocated. Through the ring, a download takes one more copy in
/// host memory, 0.05 ms a MB with several threads (estimated), and a staging buffer takes 0.6 ms a MB: so a short run
/// allocates none, and for a long one both cost the same (the ski rental problem, Karlin et al. 1988).
const DOWNLOADS_BEFORE_PINNED: usize = 12;

/// The staging buffers that no download uses.
#[derive(Default)]
pub(super) struct PinnedPool(Mutex<PoolState>);

#[derive(Default)]
struct PoolState {
    pooled: Vec<StagingBuffer>,
    /// Large downloads without a staging buffer since the last allocation of one.
    n_without: usize,
}

impl PinnedPool {
    /// A staging buffer of at least `bytes` bytes: the smallest such one of the pool, or a new one. None for a large download
    /// before a staging buffer is worth its allocation.
    pub(super) fn take(&self, context: &DriverContext, bytes: usize) -> Result<Option<StagingBuffer>, DriverError> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fitting = state.pooled.iter().enumerate().filter(|(_, staging)| staging.len() >= bytes);
        if let Some((index, _)) = fitting.min_by_key(|(_, staging)| staging.len()) {
            return Ok(Some(state.pooled.swap_remove(index)));
        }
        if bytes > MAX_PINNED_AT_ONCE {
            if state.n_without < DOWNLOADS_BEFORE_PINNED {
                state.n_without += 1;
                return Ok(None);
            }
            state.n_without = 0;
        }
        // SAFETY: only bytes that a copy has written are read.
        unsafe { context.cuda.alloc_pinned_with_flags(staging_bytes(bytes), 0) }.map(Some)
    }

    /// Returns a staging buffer to the pool, which frees its smallest one if it has too many.
    fn put_back(&self, staging: StagingBuffer) {
        let pooled = &mut self.0.lock().unwrap_or_else(PoisonError::into_inner).pooled;
        pooled.push(staging);
        if pooled.len() > MAX_POOLED
            && let Some((index, _)) = pooled.iter().enumerate().min_by_key(|(_, staging)| staging.len())
        {
            pooled.swap_remove(index);
        }
    }
}

/// Bytes of a part of a copy.
const PART_BYTES: usize = SLOT_BYTES;

/// A download in flight.
pub(super) struct AsyncDownload {
    session: Arc<Session>,
    pool: Arc<PinnedPool>,
    /// The source, until the copy completes.
    buffer: Option<DriverBuffer>,
    /// The destination.
    staging: Option<StagingBuffer>,
    /// The parts in flight, oldest first: where each ends, and the end of its copy.
    parts: VecDeque<(usize, CudaEvent)>,
    /// Bytes that have landed.
    landed: usize,
    bytes: usize,
}

impl AsyncDownload {
    /// Starts to copy the first `bytes` bytes of `buffer` to `staging`, after the kernels launched so far.
    pub(super) fn start(
        session: &Arc<Session>,
        pool: &Arc<PinnedPool>,
        buffer: DriverBuffer,
        staging: StagingBuffer,
        bytes: usize,
    ) -> Result<Self, KernelError> {
        let (session, pool) = (session.clone(), pool.clone());
        let (buffer, staging, parts) = (Some(buffer), Some(staging), VecDeque::new());
        let mut download = AsyncDownload { session, pool, buffer, staging, parts, landed: 0, bytes };
        let started = download.start_parts();
        if started.is_err() {
            // Freed instead of pooled: the driver first waits for copies to it.
            download.staging = None;
        }
        download.check(started)?;
        Ok(download)
    }

    fn check<T>(&self, result: Result<T, DriverError>) -> Result<T, KernelError> {
        self.session.context.check("read", || format!("copying {} bytes from the device", self.bytes), result)
    }

    fn start_parts(&mut self) -> Result<(), DriverError> {
        let (Some(buffer), Some(staging)) = (&self.buffer, &mut self.staging) else { return Ok(()) };
        let (context, bytes) = (&self.session.context, self.bytes);
        let computed = context.cuda.new_event(None)?;
        computed.record(&context.stream)?;
        context.download_stream.wait(&computed)?;
        let staged = &mut staging.as_mut_slice()?[..bytes];
        for start in (0..bytes.max(1)).step_by(PART_BYTES) {
            let end = bytes.min(start + PART_BYTES);
            let source = buffer.start() + start as sys::CUdeviceptr;
            let done = context.cuda.new_event(None)?;
            // SAFETY: source and destination have as many bytes, and both are kept until `done`.
            unsafe { result::memcpy_dtoh_async(&mut staged[start..end], source, context.download_stream.cu_stream()) }?;
            done.record(&context.download_stream)?;
            self.parts.push_back((end, done));
        }
        Ok(())
    }

    /// Waits for the parts with the first `n_bytes` bytes. Releases the source after the last part.
    fn land(&mut self, n_bytes: usize) -> Result<(), KernelError> {
        if self.buffer.is_some() {
            self.session.context.enter("read")?;
            while let Some((end, done)) = self.parts.front()
                && self.landed < n_bytes.max(1)
            {
                let end = *end;
                self.check(done.synchronize())?;
                self.landed = end;
                self.parts.pop_front();
            }
            if self.parts.is_empty() {
                self.buffer = None;
            }
        }
        Ok(())
    }
}

impl PendingCopy for AsyncDownload {
    fn n_bytes(&self) -> usize {
        self.bytes
    }

    fn wait_for(&mut self, n_bytes: usize) -> Result<&[u8], KernelError> {
        self.land(n_bytes)?;
        let Some(staging) = &self.staging else { return Ok(&[]) };
        let start = self.session.context.check("read", || "reading pinned memory".to_owned(), staging.as_ptr())?;
        // SAFETY: the memory lives as long as `staging`. No copy writes to the bytes that have landed; later ones may be in
        // flight.
        Ok(unsafe { std::slice::from_raw_parts(start, self.landed) })
    }
}

impl Drop for AsyncDownload {
    fn drop(&mut self) {
        // A drop cannot return the error; no copy of a broken context continues.
        let _ = self.land(self.bytes);
        if let Some(staging) = self.staging.take() {
            self.pool.put_back(staging);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn staging_buffer_is_an_eighth_larger_than_requested() {
        let sizes = [0, 1, MIN_STAGING_BYTES].map(staging_bytes);
        assert_eq!(sizes, [MIN_STAGING_BYTES, MIN_STAGING_BYTES, 2 * MIN_STAGING_BYTES]);
        for bytes in [MIN_STAGING_BYTES + 1, 8_257_536, 1 << 24, (1 << 24) + 1] {
            let staging = staging_bytes(bytes);
            let expected = bytes + bytes / 8;
            assert!(staging >= expected && staging < expected + MIN_STAGING_BYTES, "{bytes}: {staging}");
        }
        assert!(staging_bytes(usize::MAX) == usize::MAX);
    }
}
