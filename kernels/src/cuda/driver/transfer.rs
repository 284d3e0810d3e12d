//! Copies between host and device in the order of the kernels' stream: small ones directly, large ones in chunks
//! through two pinned buffers.
//!
//! From pageable memory the driver copies through a buffer of its own, and the host waits for most of the copy. With
//! two pinned buffers, the host fills or empties one while the device copies the other.

use std::sync::{Mutex, PoisonError};

use cudarc::driver::{CudaEvent, DriverError, PinnedHostSlice, result, sys};
use rayon::prelude::*;

use super::context::DriverContext;
use super::memory::DriverBuffer;
use super::session::Session;
use crate::error::KernelError;

/// Bytes of a pinned buffer: its copy takes much longer than starting it.
const CHUNK_BYTES: usize = 4 << 20;

/// The largest direct copy, in bytes: up to this size the driver takes the bytes before it returns and does not wait
/// for the device ("API synchronization behavior" in its reference).
const MAX_DIRECT_BYTES: usize = 64 << 10;

/// Bytes of a chunk that one thread copies: a single thread is slower than the bus.
const THREAD_BYTES: usize = 512 << 10;

/// Copies `from` to `to`, which have one length, with several threads if they are long.
fn copy_bytes(from: &[u8], to: &mut [u8]) {
    // A rayon thread that waits runs other tasks meanwhile, and these could need the lock that it holds on the buffers.
    if from.len() <= THREAD_BYTES || rayon::current_thread_index().is_some() {
        return to.copy_from_slice(from);
    }
    to.par_chunks_mut(THREAD_BYTES).zip(from.par_chunks(THREAD_BYTES)).for_each(|(to, from)| to.copy_from_slice(from));
}

/// The two pinned buffers, allocated at the first large copy.
#[derive(Default)]
pub(super) struct ChunkedCopies(Mutex<Option<[PinnedChunk; 2]>>);

/// Pinned memory, and the end of the last copy that used it.
struct PinnedChunk {
    memory: PinnedHostSlice<u8>,
    done: CudaEvent,
}

impl PinnedChunk {
    fn new(context: &DriverContext) -> Result<Self, DriverError> {
        // SAFETY: the memory is written, by the host or by a copy from the device, before it is read.
        let memory = unsafe { context.cuda.alloc_pinned_with_flags(CHUNK_BYTES, 0) }?;
        Ok(PinnedChunk { memory, done: context.cuda.new_event(None)? })
    }

    /// Waits for the last copy that used the memory and returns it.
    fn bytes(&mut self) -> Result<&mut [u8], DriverError> {
        self.done.synchronize()?;
        self.memory.as_mut_slice()
    }
}

impl ChunkedCopies {
    /// Runs `copy` with the pinned buffers, or without them for a small copy and if there is no pinned memory.
    fn with<T>(
        &self,
        context: &DriverContext,
        bytes: usize,
        copy: impl FnOnce(Option<&mut [PinnedChunk; 2]>) -> Result<T, DriverError>,
    ) -> Result<T, DriverError> {
        if bytes <= MAX_DIRECT_BYTES {
            return copy(None);
        }
        let mut chunks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if chunks.is_none() {
            *chunks = PinnedChunk::new(context).and_then(|first| Ok([first, PinnedChunk::new(context)?])).ok();
        }
        copy(chunks.as_mut())
    }

    /// Copies `bytes` to the start of `buffer`, in the order of the stream. The caller may change `bytes` when this
    /// returns.
    pub(super) fn write(
        &self,
        context: &DriverContext,
        buffer: &DriverBuffer,
        bytes: &[u8],
    ) -> Result<(), KernelError> {
        let (start, stream) = (buffer.start(), context.stream.cu_stream());
        let copied = self.with(context, bytes.len(), |chunks| {
            let Some(chunks) = chunks else {
                // SAFETY: the caller has checked that the buffer has as many bytes. A copy from pageable memory returns
                // when the driver has taken the bytes ("API synchronization behavior" in its reference).
                return unsafe { result::memcpy_htod_async(start, bytes, stream) };
            };
            for (index, source) in bytes.chunks(CHUNK_BYTES).enumerate() {
                let chunk = &mut chunks[index % 2];
                let staged = &mut chunk.bytes()?[..source.len()];
                copy_bytes(source, staged);
                let destination = start + (index * CHUNK_BYTES) as sys::CUdeviceptr;
                // SAFETY: as above, and `PinnedChunk::bytes` waits for this copy before the memory is used again.
                unsafe { result::memcpy_htod_async(destination, staged, stream) }?;
                chunk.done.record(&context.stream)?;
            }
            Ok(())
        });
        context.check("write", || format!("copying {} bytes to the device", bytes.len()), copied)
    }

    /// Copies the start of `buffer` to `out`, after all earlier work of the stream. Waits for the copy.
    pub(super) fn read(&self, session: &Session, buffer: &DriverBuffer, out: &mut [u8]) -> Result<(), KernelError> {
        let context = &session.context;
        let (start, stream, len) = (buffer.start(), context.stream.cu_stream(), out.len());
        let action = || format!("copying {len} bytes from the device");
        let copied = self.with(context, len, |chunks| {
            let Some(chunks) = chunks else {
                // SAFETY: the buffer has as many bytes, and `out` lives until the wait below.
                return unsafe { result::memcpy_dtoh_async(out, start, stream) };
            };
            let n_chunks = len.div_ceil(CHUNK_BYTES);
            // One chunk ahead: the device copies chunk i + 1 while the host empties chunk i.
            for index in 0..=n_chunks {
                if index < n_chunks {
                    let bytes = CHUNK_BYTES.min(len - index * CHUNK_BYTES);
                    let chunk = &mut chunks[index % 2];
                    let staged = &mut chunk.bytes()?[..bytes];
                    let source = start + (index * CHUNK_BYTES) as sys::CUdeviceptr;
                    // SAFETY: as above; `PinnedChunk::bytes` waits for this copy before the memory is used again.
                    unsafe { result::memcpy_dtoh_async(staged, source, stream) }?;
                    chunk.done.record(&context.stream)?;
                }
                if let Some(previous) = index.checked_sub(1) {
                    let destination = &mut out[previous * CHUNK_BYTES..len.min((previous + 1) * CHUNK_BYTES)];
                    let staged = chunks[previous % 2].bytes()?;
                    copy_bytes(&staged[..destination.len()], destination);
                }
            }
            Ok(())
        });
        context.check("read", action, copied)?;
        session.synchronize("read", action)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copy_bytes_copies_all_lengths_in_and_outside_rayon() {
        let from: Vec<u8> = (0..2 * THREAD_BYTES + 7).map(|index| (index % 251) as u8).collect();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        for len in [0, 1, THREAD_BYTES, THREAD_BYTES + 1, from.len()] {
            let (mut outside, mut inside) = (vec![0; len], vec![0; len]);
            copy_bytes(&from[..len], &mut outside);
            pool.install(|| copy_bytes(&from[..len], &mut inside));
            assert!(outside == from[..len] && inside == from[..len], "{len}");
        }
    }
}
