//! A growable buffer aligned to cache lines, the memory behind tensors and packed weights.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;

use crate::error::KernelError;

/// One cache line, and the width of a 512-bit vector.
const ALIGNMENT: usize = 64;

/// Zero-initialised bytes at a 64-byte boundary.
pub struct AlignedBytes {
    pointer: NonNull<u8>,
    len: usize,
}

// SAFETY: the buffer owns its memory and hands out references under the usual borrow rules alone.
unsafe impl Send for AlignedBytes {}
// SAFETY: as above; shared access is read-only.
unsafe impl Sync for AlignedBytes {}

impl AlignedBytes {
    /// Allocates `len` zero bytes. The pages of a large buffer are not touched until they are written.
    ///
    /// # Errors
    /// When the memory cannot be had.
    pub fn zeroed(op: &'static str, len: usize) -> Result<Self, KernelError> {
        if len == 0 {
            return Ok(AlignedBytes { pointer: NonNull::<AlignedLine>::dangling().cast(), len: 0 });
        }
        let out_of_memory = || KernelError::OutOfMemory { op, bytes: len, device: "cpu".to_owned() };
        let layout = Layout::from_size_align(len, ALIGNMENT).map_err(|_| out_of_memory())?;
        // SAFETY: the layout's size is not zero.
        let pointer = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or_else(out_of_memory)?;
        Ok(AlignedBytes { pointer, len })
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: `pointer` is valid for `len` initialised bytes, or dangling and aligned where `len` is zero.
        unsafe { std::slice::from_raw_parts(self.pointer.as_ptr(), self.len) }
    }

    /// The bytes, to be written.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_slice`, and `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.pointer.as_ptr(), self.len) }
    }
}

impl Drop for AlignedBytes {
    fn drop(&mut self) {
        if self.len > 0 {
            // SAFETY: allocated in `zeroed` with this very layout, which was valid then.
            unsafe { dealloc(self.pointer.as_ptr(), Layout::from_size_align_unchecked(self.len, ALIGNMENT)) }
        }
    }
}

/// Stands for the alignment in `NonNull::dangling`.
#[repr(align(64))]
struct AlignedLine;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_zeroed_and_may_be_empty() {
        for len in [0, 1, 63, 64, 4097] {
            let mut buffer = AlignedBytes::zeroed("test", len).unwrap();
            assert_eq!(buffer.as_slice().as_ptr() as usize % ALIGNMENT, 0);
            assert!(buffer.as_slice().iter().all(|byte| *byte == 0));
            buffer.as_mut_slice().fill(1);
            assert_eq!(buffer.as_slice().len(), len);
        }
    }

    #[test]
    fn an_impossible_size_is_an_error() {
        let error = AlignedBytes::zeroed("test", usize::MAX / 2).err().unwrap();
        assert!(error.to_string().contains("could not allocate"), "{error}");
    }
}
