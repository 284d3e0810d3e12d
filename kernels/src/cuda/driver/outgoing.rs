//! Copies from the device that go on beside its kernels: to pinned memory, in a stream of their own.
//!
//! The copy begins when the kernels launched before have ended, and owns the memory it copies from until it is over, so
//! that no kernel writes there. The pinned memory comes from a small stock, as to make some takes long.

use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::{CudaEvent, DriverError, PinnedHostSlice, result};

use super::memory::DriverBuffer;
use super::session::Session;
use crate::error::KernelError;
use crate::pending::PendingCopy;

/// Pieces of pinned memory that are kept for later copies.
const KEPT: usize = 4;

/// The least bytes of a piece.
const LEAST: usize = 64 << 10;

/// Bytes of a piece made for `bytes` bytes. Batches differ a little in size, and the next ones should fit too; but not far
/// more is made than was asked for, as that takes the host as long as copying as many bytes several times over (an H100 in
/// a virtual machine: 0.6 ms for each MB, where the copy takes 0.02 ms).
fn piece_bytes(bytes: usize) -> usize {
    bytes.saturating_add(bytes / 8).checked_next_multiple_of(LEAST).unwrap_or(bytes).max(LEAST)
}

/// Pieces that no copy is using.
#[derive(Default)]
pub(super) struct Stock(Mutex<Vec<PinnedHostSlice<u8>>>);

impl Stock {
    /// A piece of at least `bytes` bytes.
    pub(super) fn take(&self, session: &Session, bytes: usize) -> Result<PinnedHostSlice<u8>, DriverError> {
        let mut pieces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fitting = pieces.iter().enumerate().filter(|(_, piece)| piece.len() >= bytes);
        if let Some((index, _)) = fitting.min_by_key(|(_, piece)| piece.len()) {
            return Ok(pieces.swap_remove(index));
        }
        // SAFETY: nothing of the memory is read but what a copy has written.
        unsafe { session.context.alloc_pinned_with_flags(piece_bytes(bytes), 0) }
    }

    /// Takes a piece back; the smallest are let go if there are too many.
    fn give_back(&self, piece: PinnedHostSlice<u8>) {
        let mut pieces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pieces.push(piece);
        if pieces.len() > KEPT
            && let Some((index, _)) = pieces.iter().enumerate().min_by_key(|(_, piece)| piece.len())
        {
            pieces.swap_remove(index);
        }
    }
}

/// A copy under way.
pub(super) struct Outgoing {
    session: Arc<Session>,
    stock: Arc<Stock>,
    /// Where it copies from, until it is over.
    buffer: Option<DriverBuffer>,
    /// Where it copies to.
    piece: Option<PinnedHostSlice<u8>>,
    done: CudaEvent,
    bytes: usize,
}

impl Outgoing {
    /// Starts to copy the first `bytes` bytes of `buffer` to `piece`, after the kernels launched so far.
    pub(super) fn start(
        session: &Arc<Session>,
        stock: &Arc<Stock>,
        buffer: DriverBuffer,
        mut piece: PinnedHostSlice<u8>,
        bytes: usize,
    ) -> Result<Self, KernelError> {
        let start = |piece: &mut PinnedHostSlice<u8>| -> Result<CudaEvent, DriverError> {
            let (computed, done) = (session.context.new_event(None)?, session.context.new_event(None)?);
            computed.record(&session.stream)?;
            session.copy_out.wait(&computed)?;
            // SAFETY: buffer and piece have as many bytes, and both are kept until `done` is over.
            unsafe {
                let to = &mut piece.as_mut_slice()?[..bytes];
                result::memcpy_dtoh_async(to, buffer.start(), session.copy_out.cu_stream())
            }?;
            done.record(&session.copy_out)?;
            Ok(done)
        };
        let done = session.check("read", || format!("copying {bytes} bytes from the device"), start(&mut piece))?;
        let (session, stock) = (session.clone(), stock.clone());
        Ok(Outgoing { session, stock, buffer: Some(buffer), piece: Some(piece), done, bytes })
    }

    /// Waits for the copy; the memory on the device is free then.
    fn finish(&mut self) -> Result<(), KernelError> {
        if self.buffer.is_some() {
            self.session.enter("read")?;
            let bytes = self.bytes;
            self.session.check("read", || format!("copying {bytes} bytes from the device"), self.done.synchronize())?;
            self.buffer = None;
        }
        Ok(())
    }
}

impl PendingCopy for Outgoing {
    fn wait(&mut self) -> Result<&[u8], KernelError> {
        self.finish()?;
        let piece = self.piece.as_mut().map(|piece| piece.as_mut_slice());
        match self.session.check("read", || "reading pinned memory".to_owned(), piece.transpose())? {
            Some(bytes) => Ok(&bytes[..self.bytes]),
            None => Ok(&[]),
        }
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        // Of a broken context no copy goes on, and nobody is left to tell of the failure.
        let _ = self.finish();
        if let Some(piece) = self.piece.take() {
            self.stock.give_back(piece);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_has_room_for_batches_that_are_a_little_larger_and_for_no_more() {
        assert_eq!((piece_bytes(0), piece_bytes(1), piece_bytes(LEAST)), (LEAST, LEAST, 2 * LEAST));
        for bytes in [LEAST + 1, 8_257_536, 1 << 24, (1 << 24) + 1] {
            let piece = piece_bytes(bytes);
            assert!(piece >= bytes + bytes / 8 && piece < bytes + bytes / 8 + LEAST, "{bytes}: {piece}");
        }
        assert!(piece_bytes(usize::MAX) == usize::MAX);
    }
}
