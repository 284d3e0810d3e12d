//! Small asynchronous uploads: through pinned memory and a stream of their own, ahead of the queued kernels.
//!
//! The destination is allocated in the upload stream too: an allocation in the kernels' stream, and with it the copy,
//! would come after all queued kernels. The kernels' stream waits for each copy by an event.

use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::{CudaEvent, DriverError, PinnedHostSlice, result};

use super::context::DriverContext;
use super::memory::{DeviceMemory, DriverBuffer};
use crate::error::KernelError;

/// Bytes of each pinned half, and the largest copy that is uploaded this way.
pub(super) const HALF_BYTES: usize = 1 << 20;

/// The alignment of copies in pinned memory, in bytes: two copies do not share a cache line.
const ALIGNMENT: usize = 64;

/// The uploads of a device. The pinned memory is allocated at the first upload.
#[derive(Default)]
pub(super) struct AsyncUploads(Mutex<UploadState>);

#[derive(Default)]
enum UploadState {
    #[default]
    Unused,
    /// There is no pinned memory.
    Unavailable,
    Ready(UploadHalves),
}

/// Two pinned halves, used alternately: the host fills one while the copies from the other complete.
struct UploadHalves {
    halves: [UploadHalf; 2],
    current: usize,
    /// Bytes used in the current half.
    used: usize,
    /// The kernels' stream waits for this event.
    copied: CudaEvent,
}

struct UploadHalf {
    memory: PinnedHostSlice<u8>,
    /// The end of the last copy from it.
    done: CudaEvent,
}

impl UploadHalf {
    fn new(context: &DriverContext) -> Result<Self, DriverError> {
        // SAFETY: the host writes the memory before a copy reads it.
        let memory = unsafe { context.cuda.alloc_pinned_with_flags(HALF_BYTES, 0) }?;
        Ok(UploadHalf { memory, done: context.cuda.new_event(None)? })
    }
}

impl UploadHalves {
    fn new(context: &DriverContext) -> Result<Self, DriverError> {
        let halves = [UploadHalf::new(context)?, UploadHalf::new(context)?];
        Ok(UploadHalves { halves, current: 0, used: 0, copied: context.cuda.new_event(None)? })
    }

    /// Copies `bytes`, at most [`HALF_BYTES`], to `buffer` in the upload stream, and makes the kernels' stream wait for
    /// it.
    fn copy(&mut self, context: &DriverContext, bytes: &[u8], buffer: &DriverBuffer) -> Result<(), DriverError> {
        if self.used + bytes.len() > HALF_BYTES {
            self.current = 1 - self.current;
            self.used = 0;
            // A whole half was filled since the last copy from this one, so this seldom waits.
            self.halves[self.current].done.synchronize()?;
        }
        let half = &mut self.halves[self.current];
        let staged = &mut half.memory.as_mut_slice()?[self.used..self.used + bytes.len()];
        staged.copy_from_slice(bytes);
        self.used = (self.used + bytes.len()).next_multiple_of(ALIGNMENT).min(HALF_BYTES);
        // SAFETY: the buffer has as many bytes and was allocated in the upload stream. These bytes of the half are not
        // written again before `done`, which is recorded behind the copy.
        unsafe { result::memcpy_htod_async(buffer.start(), staged, context.upload_stream.cu_stream()) }?;
        half.done.record(&context.upload_stream)?;
        self.copied.record(&context.upload_stream)?;
        context.stream.wait(&self.copied)
    }
}

impl AsyncUploads {
    /// Whether a copy of `bytes` bytes is uploaded this way, provided that there is pinned memory.
    pub(super) fn accepts(memory: &DeviceMemory, bytes: usize) -> bool {
        bytes > 0 && bytes <= HALF_BYTES && memory.is_stream_ordered()
    }

    /// New memory that contains `bytes`, for later launches. None if the copy has to be made in another way: too many
    /// bytes, no stream-ordered memory, or no pinned memory.
    pub(super) fn upload(&self, memory: &Arc<DeviceMemory>, bytes: &[u8]) -> Result<Option<DriverBuffer>, KernelError> {
        let context = &memory.session.context;
        if !Self::accepts(memory, bytes.len()) {
            return Ok(None);
        }
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*state, UploadState::Unused) {
            *state = UploadHalves::new(context).map_or(UploadState::Unavailable, UploadState::Ready);
        }
        let UploadState::Ready(halves) = &mut *state else { return Ok(None) };
        let buffer = memory.alloc_on(&context.upload_stream, bytes.len())?;
        let copied = halves.copy(context, bytes, &buffer);
        context.check("write", || format!("copying {} bytes to the device", bytes.len()), copied)?;
        Ok(Some(buffer))
    }
}
