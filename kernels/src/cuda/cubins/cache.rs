//! The cache of compiled cubins, one file each, in the user's cache directory.
//!
//! A file is named by a digest of the cubin's inputs: source, architecture, options, compiler. It contains that digest and
//! one of the cubin, so that a truncated, renamed or foreign file is compiled again.

use std::io;
use std::path::{Path, PathBuf};

use super::{OPTIONS, digest_of, source_digest, unit, write_atomically};
use crate::cuda::Architecture;
use crate::cuda::registry::KernelSource;

/// The first bytes of a file; the number is the format's version.
const MAGIC: &[u8; 16] = b"actbench cubin 1";

/// Digests are 64 hexadecimal digits.
const DIGEST: usize = 64;

/// The file of one cubin in the cache.
pub(super) struct CacheEntry {
    path: PathBuf,
    key: String,
}

impl CacheEntry {
    pub(super) fn new(
        directory: &Path,
        source: &KernelSource,
        architecture: Architecture,
        compiler: &str,
    ) -> CacheEntry {
        let mut parts = vec![source_digest(source), architecture.to_string(), compiler.to_owned()];
        parts.extend(OPTIONS.map(str::to_owned));
        let key = digest_of(&parts.iter().map(String::as_str).collect::<Vec<_>>());
        let name = format!("{}.{architecture}.{}.cubin", unit(source), key.get(..16).unwrap_or(&key));
        CacheEntry { path: directory.join(name), key }
    }

    /// The cubin, if the file is complete.
    pub(super) fn read(&self) -> Option<Vec<u8>> {
        let file = std::fs::read(&self.path).ok()?;
        let rest = file.strip_prefix(MAGIC)?.strip_prefix(self.key.as_bytes())?;
        let (digest, cubin) = rest.split_at_checked(DIGEST)?;
        (digest == blake3::hash(cubin).to_hex().as_bytes()).then(|| cubin.to_vec())
    }

    /// Stores `cubin` for the next run.
    pub(super) fn write(&self, cubin: &[u8]) -> io::Result<()> {
        let digest = blake3::hash(cubin).to_hex();
        write_atomically(&self.path, &[MAGIC, self.key.as_bytes(), digest.as_bytes(), cubin])
    }

    #[cfg(test)]
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}
