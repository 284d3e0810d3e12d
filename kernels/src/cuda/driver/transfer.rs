//! Copies between host and device: small ones as they are, large ones through pinned memory, a part at a time.
//!
//! From pageable memory the driver copies through a buffer of its own and the host waits for most of it. Here two
//! pinned parts take turns: while the device copies one, the host fills or empties the other.

use std::sync::{Mutex, PoisonError};

use cudarc::driver::{CudaEvent, DriverError, PinnedHostSlice, result, sys};
use rayon::prelude::*;

use super::memory::DriverBuffer;
use super::session::Session;
use crate::error::KernelError;

/// Bytes of a part: long enough that its copy takes far longer than to start it.
pub(super) const PART: usize = 4 << 20;

/// The most bytes of a copy that goes to the driver as it is: up to there it copies them before it returns, and no longer
/// waits for the device ("API synchronization behavior" in its reference).
const SMALL: usize = 64 << 10;

/// Bytes that one thread copies of a part: one alone copies slower than a device takes them.
const PER_THREAD: usize = 512 << 10;

/// Copies `from` to `to`, which are of one length, by several threads if they are long.
fn copy_bytes(from: &[u8], to: &mut [u8]) {
    // A thread of the pool that waits for others takes on other work meanwhile, which might want the parts that it holds.
    if from.len() <= PER_THREAD || rayon::current_thread_index().is_some() {
        return to.copy_from_slice(from);
    }
    to.par_chunks_mut(PER_THREAD).zip(from.par_chunks(PER_THREAD)).for_each(|(to, from)| to.copy_from_slice(from));
}

/// The pinned parts, made when the first large copy needs them.
#[derive(Default)]
pub(super) struct Staging(Mutex<Option<[Part; 2]>>);

/// Pinned memory, and when the device is done with it.
struct Part {
    memory: PinnedHostSlice<u8>,
    done: CudaEvent,
}

impl Part {
    fn new(session: &Session) -> Result<Self, DriverError> {
        // SAFETY: the memory is written before it is read: by the host, or by a copy from the device.
        let memory = unsafe { session.context.alloc_pinned_with_flags(PART, 0) }?;
        Ok(Part { memory, done: session.context.new_event(None)? })
    }

    /// The memory, once the device is done with it.
    fn bytes(&mut self) -> Result<&mut [u8], DriverError> {
        self.done.synchronize()?;
        self.memory.as_mut_slice()
    }
}

impl Staging {
    /// Runs `copy` with the parts, or without them for few bytes and where there is no pinned memory to be had.
    fn with<T>(
        &self,
        session: &Session,
        bytes: usize,
        copy: impl FnOnce(Option<&mut [Part; 2]>) -> Result<T, DriverError>,
    ) -> Result<T, DriverError> {
        if bytes <= SMALL {
            return copy(None);
        }
        let mut parts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if parts.is_none() {
            *parts = Part::new(session).and_then(|first| Ok([first, Part::new(session)?])).ok();
        }
        copy(parts.as_mut())
    }

    /// Copies `bytes` to the start of `buffer`, in the stream's order. `bytes` may change as soon as this returns.
    pub(super) fn write(&self, session: &Session, buffer: &DriverBuffer, bytes: &[u8]) -> Result<(), KernelError> {
        let (start, stream) = (buffer.start(), session.stream.cu_stream());
        let copied = self.with(session, bytes.len(), |parts| {
            let Some(parts) = parts else {
                // SAFETY: the buffer has as many bytes, which the caller has seen to. A copy from pageable memory returns
                // when the driver has taken the bytes ("API synchronization behavior" in its reference).
                return unsafe { result::memcpy_htod_async(start, bytes, stream) };
            };
            for (index, chunk) in bytes.chunks(PART).enumerate() {
                let part = &mut parts[index % 2];
                let staged = &mut part.bytes()?[..chunk.len()];
                copy_bytes(chunk, staged);
                let to = start + (index * PART) as sys::CUdeviceptr;
                // SAFETY: as above, and `Part::bytes` waits for this copy before the part is touched again.
                unsafe { result::memcpy_htod_async(to, staged, stream) }?;
                part.done.record(&session.stream)?;
            }
            Ok(())
        });
        session.check("write", || format!("copying {} bytes to the device", bytes.len()), copied)
    }

    /// Copies the start of `buffer` to `out`, after everything that was given to the stream before.
    pub(super) fn read(&self, session: &Session, buffer: &DriverBuffer, out: &mut [u8]) -> Result<(), KernelError> {
        let (start, stream, len) = (buffer.start(), session.stream.cu_stream(), out.len());
        let what = || format!("copying {len} bytes from the device");
        let copied = self.with(session, len, |parts| {
            let Some(parts) = parts else {
                // SAFETY: the buffer has as many bytes, and `out` lives until the stream was waited for below.
                return unsafe { result::memcpy_dtoh_async(out, start, stream) };
            };
            let n_parts = len.div_ceil(PART);
            // One part ahead: the copy of part i + 1 is under way while part i is taken out.
            for index in 0..=n_parts {
                if index < n_parts {
                    let bytes = PART.min(len - index * PART);
                    let part = &mut parts[index % 2];
                    let staged = &mut part.bytes()?[..bytes];
                    let from = start + (index * PART) as sys::CUdeviceptr;
                    // SAFETY: as above; `Part::bytes` waits for this copy before the part is touched again.
                    unsafe { result::memcpy_dtoh_async(staged, from, stream) }?;
                    part.done.record(&session.stream)?;
                }
                if let Some(before) = index.checked_sub(1) {
                    let chunk = &mut out[before * PART..len.min((before + 1) * PART)];
                    let staged = parts[before % 2].bytes()?;
                    copy_bytes(&staged[..chunk.len()], chunk);
                }
            }
            Ok(())
        });
        session.check("read", what, copied)?;
        session.synchronize("read", what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_of_any_length_are_whole_inside_a_pool_and_outside() {
        let from: Vec<u8> = (0..2 * PER_THREAD + 7).map(|index| (index % 251) as u8).collect();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        for len in [0, 1, PER_THREAD, PER_THREAD + 1, from.len()] {
            let (mut outside, mut inside) = (vec![0; len], vec![0; len]);
            copy_bytes(&from[..len], &mut outside);
            pool.install(|| copy_bytes(&from[..len], &mut inside));
            assert!(outside == from[..len] && inside == from[..len], "{len}");
        }
    }
}
