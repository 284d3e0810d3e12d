//! A digest of many bytes, computed by several threads.

use std::ops::Range;

use rayon::prelude::*;

/// Bytes that one thread digests at a time: large enough for milliseconds of work, small enough that few pages are resident
/// at once.
const CHUNK: usize = 8 << 20;

/// BLAKE3 over the BLAKE3 digests of the 8 MiB chunks of `bytes`, which does not depend on the number of threads.
///
/// `done` is called with each range once it is digested, for callers that then release its pages. (BLAKE3 is a tree of
/// chunks itself, but its own multithreading does not report finished ranges.)
pub(super) fn parallel_digest(bytes: &[u8], done: impl Fn(Range<usize>) + Sync) -> blake3::Hash {
    let digests: Vec<blake3::Hash> = bytes
        .par_chunks(CHUNK)
        .enumerate()
        .map(|(index, chunk)| {
            let digest = blake3::hash(chunk);
            done(index * CHUNK..index * CHUNK + chunk.len());
            digest
        })
        .collect();
    let mut hasher = blake3::Hasher::new();
    for digest in &digests {
        hasher.update(digest.as_bytes());
    }
    hasher.finalize()
}
