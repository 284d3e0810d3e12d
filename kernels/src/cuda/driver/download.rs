//! Asynchronous downloads: copies to pinned memory in a stream of their own, which run during later kernels.
//!
//! A copy starts when the kernels launched before it have completed. It owns its source buffer until it completes, so
//! no kernel writes there. Pinned memory comes from a small pool, because allocating it is slow; the first large downloads
//! take slots of the ring instead ([`super::ring_download`]).

use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::{CudaEvent, DriverError, PinnedHostSlice, result};

use super::context::DriverContext;
use super::memory::DriverBuffer;
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

/// A download in flight.
pub(super) struct AsyncDownload {
    session: Arc<Session>,
    pool: Arc<PinnedPool>,
    /// The source, until the copy completes.
    buffer: Option<DriverBuffer>,
    /// The destination.
    staging: Option<StagingBuffer>,
    done: CudaEvent,
    bytes: usize,
}

impl AsyncDownload {
    /// Starts to copy the first `bytes` bytes of `buffer` to `staging`, after the kernels launched so far.
    pub(super) fn start(
        session: &Arc<Session>,
        pool: &Arc<PinnedPool>,
        buffer: DriverBuffer,
        mut staging: StagingBuffer,
        bytes: usize,
    ) -> Result<Self, KernelError> {
        let context = &session.context;
        let start = |staging: &mut StagingBuffer| -> Result<CudaEvent, DriverError> {
            let (computed, done) = (context.cuda.new_event(None)?, context.cuda.new_event(None)?);
            computed.record(&context.stream)?;
            context.download_stream.wait(&computed)?;
            // SAFETY: source and destination have as many bytes, and both are kept until `done`.
            unsafe {
                let destination = &mut staging.as_mut_slice()?[..bytes];
                result::memcpy_dtoh_async(destination, buffer.start(), context.download_stream.cu_stream())
            }?;
            done.record(&context.download_stream)?;
            Ok(done)
        };
        let started = start(&mut staging);
        let done = context.check("read", || format!("copying {bytes} bytes from the device"), started)?;
        let (session, pool) = (session.clone(), pool.clone());
        Ok(AsyncDownload { session, pool, buffer: Some(buffer), staging: Some(staging), done, bytes })
    }

    /// Waits for the copy and releases its source.
    fn finish(&mut self) -> Result<(), KernelError> {
        if self.buffer.is_some() {
            let (context, bytes) = (&self.session.context, self.bytes);
            context.enter("read")?;
            context.check("read", || format!("copying {bytes} bytes from the device"), self.done.synchronize())?;
            self.buffer = None;
        }
        Ok(())
    }
}

impl PendingCopy for AsyncDownload {
    fn wait(&mut self) -> Result<&[u8], KernelError> {
        self.finish()?;
        let staged = self.staging.as_mut().map(|staging| staging.as_mut_slice());
        match self.session.context.check("read", || "reading pinned memory".to_owned(), staged.transpose())? {
            Some(bytes) => Ok(&bytes[..self.bytes]),
            None => Ok(&[]),
        }
    }
}

impl Drop for AsyncDownload {
    fn drop(&mut self) {
        // A drop cannot return the error; no copy of a broken context continues.
        let _ = self.finish();
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
