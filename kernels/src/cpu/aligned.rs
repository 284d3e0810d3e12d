//! A growable buffer aligned to cache lines, the memory behind tensors and packed weights.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;

use crate::error::KernelError;

/// One cache line, and the width of a 512-bit vector.
const ALIGNMENT: usize = 64;

/// The larger pages of x86-64 and, mostly, of arm64. With common pages of 4 KiB a large matrix has more of them than
/// a processor keeps addresses for, and each panel would wait for page tables.
const HUGE_PAGE: usize = 2 << 20;

/// Zero-initialised bytes at a 64-byte boundary, on huge pages where there are enough of them.
pub struct AlignedBytes {
    /// Start of the bytes.
    pointer: NonNull<u8>,
    len: usize,
    /// What was allocated, and holds the bytes.
    allocation: Option<(NonNull<u8>, Layout)>,
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
            return Ok(AlignedBytes { pointer: NonNull::<AlignedLine>::dangling().cast(), len: 0, allocation: None });
        }
        let out_of_memory = || KernelError::OutOfMemory { op, bytes: len, device: "cpu".to_owned() };
        let alignment = alignment(len);
        // Aligned by hand: asked for an alignment, the allocator has no zero pages to give and writes zeros itself.
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
            // SAFETY: the range is whole pages inside the allocation, and the advice changes no contents. It is
            // advice, so the outcome does not matter.
            unsafe { libc::madvise(pointer.as_ptr().cast(), len / HUGE_PAGE * HUGE_PAGE, libc::MADV_HUGEPAGE) };
        }
        Ok(AlignedBytes { pointer, len, allocation: Some((start, layout)) })
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

/// What a buffer of `len` bytes begins at a multiple of.
fn alignment(len: usize) -> usize {
    if len >= HUGE_PAGE { HUGE_PAGE } else { ALIGNMENT }
}

/// Bytes that a tensor or packed matrix of `len` bytes takes from the allocator: what its alignment needs comes on top.
pub fn allocated_bytes(len: u64) -> u64 {
    let on_top = alignment(usize::try_from(len).unwrap_or(usize::MAX)) as u64;
    if len == 0 { 0 } else { len.saturating_add(on_top) }
}

impl Drop for AlignedBytes {
    fn drop(&mut self) {
        if let Some((start, layout)) = self.allocation {
            // SAFETY: allocated in `zeroed` with this very layout.
            unsafe { dealloc(start.as_ptr(), layout) }
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
        for len in [0, 1, 63, 64, 4097, HUGE_PAGE, 2 * HUGE_PAGE + 5] {
            let mut buffer = AlignedBytes::zeroed("test", len).unwrap();
            assert_eq!(buffer.as_slice().as_ptr() as usize % ALIGNMENT, 0);
            assert!(buffer.as_slice().iter().all(|byte| *byte == 0));
            buffer.as_mut_slice().fill(1);
            assert_eq!(buffer.as_slice().len(), len);
        }
    }

    #[test]
    fn what_a_buffer_takes_is_told() {
        for len in [0, 1, 4097, HUGE_PAGE - 1, HUGE_PAGE, 2 * HUGE_PAGE + 5] {
            let buffer = AlignedBytes::zeroed("test", len).unwrap();
            let taken = buffer.allocation.map_or(0, |(_, layout)| layout.size());
            assert_eq!(allocated_bytes(len as u64), taken as u64, "{len}");
        }
    }

    #[test]
    fn an_impossible_size_is_an_error() {
        let error = AlignedBytes::zeroed("test", usize::MAX / 2).err().unwrap();
        assert!(error.to_string().contains("could not allocate"), "{error}");
    }
}
