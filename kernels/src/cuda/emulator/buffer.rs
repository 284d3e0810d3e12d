//! Memory of the emulated device: the page after it is inaccessible.

use std::ptr::NonNull;
use std::sync::Arc;

use super::memory::EmulatedMemory;

/// The byte of unwritten memory: all ones is a NaN in each storage type.
pub(super) const POISON: u8 = 0xff;

unsafe extern "C" {
    fn actbench_emulator_alloc(bytes: usize) -> *mut u8;
    fn actbench_emulator_free(start: *mut u8, bytes: usize);
}

/// A buffer of the emulated device.
pub struct EmulatedBuffer {
    start: NonNull<u8>,
    len: usize,
    memory: Arc<EmulatedMemory>,
}

// SAFETY: the buffer owns its memory and hands out references under the usual borrow rules alone.
unsafe impl Send for EmulatedBuffer {}
// SAFETY: as above; shared access is read-only.
unsafe impl Sync for EmulatedBuffer {}

impl EmulatedBuffer {
    /// A buffer of `len` bytes, or `None` if the device or the host has no memory for it.
    pub(super) fn new(len: usize, memory: &Arc<EmulatedMemory>) -> Option<Self> {
        if !memory.reserve(len) {
            return None;
        }
        // SAFETY: any size may be requested; the result is memory of NaN bytes or null.
        match NonNull::new(unsafe { actbench_emulator_alloc(len) }) {
            Some(start) => Some(EmulatedBuffer { start, len, memory: memory.clone() }),
            None => {
                memory.release(len);
                None
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn as_ptr(&self) -> *const u8 {
        self.start.as_ptr().cast_const()
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        // SAFETY: `start` is valid for `len` initialized bytes until the buffer is dropped.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_slice`, and `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }

    /// Whether the bytes between the end and the inaccessible page are unwritten.
    pub(super) fn is_intact(&self) -> bool {
        let padding = self.len.next_multiple_of(16) - self.len;
        // SAFETY: memory is allocated in whole multiples of 16 bytes, all initialized.
        let padding = unsafe { std::slice::from_raw_parts(self.start.as_ptr().add(self.len), padding) };
        padding.iter().all(|byte| *byte == POISON)
    }
}

impl Drop for EmulatedBuffer {
    fn drop(&mut self) {
        // SAFETY: allocated with this very size and freed here alone.
        unsafe { actbench_emulator_free(self.start.as_ptr(), self.len) }
        self.memory.release(self.len);
    }
}
