//! The memory of full tensors: mappings of the system, which an allocator cannot count.

use std::ops::{Deref, DerefMut, Range};
use std::sync::{Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use memmap2::MmapMut;

use crate::error::{Error, Result};
use crate::plan::Signature;

/// The bytes of all full tensors of the process.
static RESERVED: Mutex<u64> = Mutex::new(0);

/// Called with the bytes reserved so far, before they change.
static OBSERVER: OnceLock<fn(u64)> = OnceLock::new();

/// The bytes that full tensors take in this process, touched or not, as an allocator counts its blocks.
pub fn reserved_bytes() -> u64 {
    *RESERVED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Has `observer` called with [`reserved_bytes`] before each change of it, so that a count of the heap's peak can include them.
/// The first observer of the process stays.
pub fn observe_reservations(observer: fn(u64)) {
    OBSERVER.get_or_init(|| observer);
}

fn change_reserved(change: impl FnOnce(u64) -> u64) {
    let mut reserved = RESERVED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(observer) = OBSERVER.get() {
        observer(*reserved);
    }
    *reserved = change(*reserved);
}

/// The memory of a full tensor: an anonymous mapping, which the system fills with zeros on the first touch.
///
/// With a `Vec` of zeros, hundreds of megabytes would be faulted in by pages of 4 KiB and zeroed twice, by the system and
/// here.
pub(super) struct FullTensor {
    memory: MmapMut,
    n_bytes: usize,
}

impl FullTensor {
    /// Reserves all of `signature` without touching it.
    ///
    /// # Errors
    /// The system has no such range of addresses.
    pub(super) fn reserve(signature: &Signature) -> Result<Self> {
        let n_bytes = signature.n_bytes();
        // An empty mapping is an error.
        let memory = MmapMut::map_anon(n_bytes.max(1)).map_err(|_| out_of_memory(signature))?;
        // A hint: without huge pages it is only slower.
        #[cfg(target_os = "linux")]
        let _ = memory.advise(memmap2::Advice::HugePage);
        change_reserved(|reserved| reserved + n_bytes as u64);
        Ok(FullTensor { memory, n_bytes })
    }

    /// Makes the zeros of `range` resident: padding is as much a part of the tensor as the positions of a sequence.
    pub(super) fn touch(&mut self, range: Range<usize>) {
        #[cfg(target_os = "linux")]
        if self.memory.advise_range(memmap2::Advice::PopulateWrite, range.start, range.len()).is_ok() {
            return;
        }
        self.memory[range].fill(0);
    }

    /// The same memory, which stays reserved until the last reader drops it.
    pub(super) fn into_bytes(self) -> Bytes {
        let n_bytes = self.n_bytes;
        Bytes::from_owner(self).slice(..n_bytes)
    }
}

impl Deref for FullTensor {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory
    }
}

impl DerefMut for FullTensor {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory
    }
}

impl AsRef<[u8]> for FullTensor {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Drop for FullTensor {
    fn drop(&mut self) {
        change_reserved(|reserved| reserved - self.n_bytes as u64);
    }
}

/// The error of a reservation of `signature`.
pub(super) fn out_of_memory(signature: &Signature) -> Error {
    Error::OutOfMemory { what: format!("activations {signature}"), bytes: signature.n_bytes() as u64 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Axes;

    #[test]
    fn memory_is_zero_whether_touched_or_not_and_counted_until_dropped() {
        let signature = Signature {
            axes: Axes::BLSH,
            n_samples: 3,
            layer_ids: [0].into(),
            seq_len: 1000,
            hidden_size: 7,
            dtype: actbench_kernels::DType::F32,
            has_mask: true,
        };
        let mut tensor = FullTensor::reserve(&signature).unwrap();
        tensor.touch(0..signature.sample_bytes());
        tensor[5] = 1;
        tensor.touch(signature.sample_bytes()..2 * signature.sample_bytes());
        let bytes = tensor.into_bytes();
        assert_eq!((bytes.len(), bytes[5]), (signature.n_bytes(), 1));
        assert_eq!(bytes.iter().filter(|byte| **byte != 0).count(), 1);
        // Other tests of this process also reserve tensors, so that only a lower bound is known.
        assert!(reserved_bytes() >= signature.n_bytes() as u64);
    }
}
