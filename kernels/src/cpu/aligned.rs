//! Buffers aligned to cache lines: the memory of tensors and packed weights.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;

use crate::error::KernelError;

/// One cache line, and the width of a 512-bit vector.
const ALIGNMENT: usize = 64;

/// The size of huge pages on x86-64 and on most arm64 systems. With 4 KiB pages, a large matrix has more pages than the
/// TLB has entries, and each panel would wait for page walks.
const HUGE_PAGE: usize = 2 << 20;

/// Zero-initialized bytes at a 64-byte boundary, on huge pages if the buffer is large enough.
pub struct AlignedBytes {
    /// Start of the bytes.
    pointer: NonNull<u8>,
    len: usize,
    /// The allocation that contains the bytes.
    allocation: Option<(NonNull<u8>, Layout)>,
}

// SAFETY: the buffer owns its memory, and its references follow the borrow rules.
unsafe impl Send for AlignedBytes {}
// SAFETY: as above; shared access is read-only.
unsafe impl Sync for AlignedBytes {}

impl AlignedBytes {
    /// Allocates `len` zero bytes. Pages of a large buffer take no memory until they are written.
    ///
    /// # Errors
    /// [`KernelError::OutOfMemory`].
    pub fn zeroed(op: &'static str, len: usize) -> Result<Self, KernelError> {
        if len == 0 {
            return Ok(AlignedBytes { pointer: NonNull::<AlignedLine>::dangling().cast(), len: 0, allocation: None });
        }
        let out_of_memory = || KernelError::OutOfMemory { op, bytes: len, device: "cpu".to_owned() };
        let alignment = alignment(len);
        // Aligned by hand: for a large alignment the allocator does not use fresh zero pages, but writes the zeros
        // itself.
        let layout = len
            .checked_add(alignment)
            .and_then(|len| Layout::from_size_align(len, align_of::<u64>()).ok())
            .ok_or_else(out_of_memory)?;
        // SAFETY: the layout's size is not zero.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or_else(out_of_memory)?;
        let skipped = start.as_ptr().align_offset(alignment).min(alignment);
        // SAFETY: the allocation has `alignment` bytes more than `len`.
        let pointer = unsafe { start.add(skipped) };
        #[cfg(target_os = "linux")]
        if len >= HUGE_PAGE {
            // SAFETY: the range is whole pages inside the allocation, and the advice changes no contents. It may be
            // ignored, so its result is not checked.
            unsafe { libc::madvise(pointer.as_ptr().cast(), len / HUGE_PAGE * HUGE_PAGE, libc::MADV_HUGEPAGE) };
        }
        Ok(AlignedBytes { pointer, len, allocation: Some((start, layout)) })
    }

    /// Replaces the buffer by one of `len` zero bytes. The old one is freed first, so that growing takes no memory for both.
    ///
    /// # Errors
    /// [`KernelError::OutOfMemory`]; the buffer is then empty.
    pub fn replace(&mut self, op: &'static str, len: usize) -> Result<(), KernelError> {
        *self = AlignedBytes::zeroed(op, 0)?;
        *self = AlignedBytes::zeroed(op, len)?;
        Ok(())
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: `pointer` is valid for `len` initialized bytes, or dangling and aligned where `len` is zero.
        unsafe { std::slice::from_raw_parts(self.pointer.as_ptr(), self.len) }
    }

    /// The bytes, for writing.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_slice`, and `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.pointer.as_ptr(), self.len) }
    }
}

/// The alignment of a buffer of `len` bytes.
fn alignment(len: usize) -> usize {
    if len >= HUGE_PAGE { HUGE_PAGE } else { ALIGNMENT }
}

/// Bytes that a tensor or packed matrix of `len` bytes takes from the allocator: `len` and the padding for its
/// alignment.
pub fn allocated_bytes(len: u64) -> u64 {
    let padding = alignment(usize::try_from(len).unwrap_or(usize::MAX)) as u64;
    if len == 0 { 0 } else { len.saturating_add(padding) }
}

impl Drop for AlignedBytes {
    fn drop(&mut self) {
        if let Some((start, layout)) = self.allocation {
            // SAFETY: allocated in `zeroed` with this layout.
            unsafe { dealloc(start.as_ptr(), layout) }
        }
    }
}

/// A type with the alignment of the buffers, for `NonNull::dangling`.
#[repr(align(64))]
struct AlignedLine;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_and_zeroed() {
        for len in [0, 1, 63, 64, 4097, HUGE_PAGE, 2 * HUGE_PAGE + 5] {
            let mut buffer = AlignedBytes::zeroed("test", len).unwrap();
            assert_eq!(buffer.as_slice().as_ptr() as usize % ALIGNMENT, 0);
            assert!(buffer.as_slice().iter().all(|byte| *byte == 0));
            buffer.as_mut_slice().fill(1);
            assert_eq!(buffer.as_slice().len(), len);
        }
    }

    #[test]
    fn allocated_bytes_equals_allocation_size() {
        for len in [0, 1, 4097, HUGE_PAGE - 1, HUGE_PAGE, 2 * HUGE_PAGE + 5] {
            let buffer = AlignedBytes::zeroed("test", len).unwrap();
            let allocated = buffer.allocation.map_or(0, |(_, layout)| layout.size());
            assert_eq!(allocated_bytes(len as u64), allocated as u64, "{len}");
        }
    }

    #[test]
    fn replaced_buffer_has_the_new_length() {
        let mut buffer = AlignedBytes::zeroed("test", 5000).unwrap();
        buffer.as_mut_slice().fill(1);
        buffer.replace("test", 70_000).unwrap();
        assert!(buffer.as_slice().len() == 70_000 && buffer.as_slice().iter().all(|byte| *byte == 0));
        assert!(buffer.replace("test", usize::MAX / 2).is_err());
        assert_eq!(buffer.as_slice().len(), 0);
    }

    #[test]
    fn impossible_size_is_out_of_memory() {
        let error = AlignedBytes::zeroed("test", usize::MAX / 2).err().unwrap();
        assert!(error.to_string().contains("could not allocate"), "{error}");
    }
}
