//! Cubins that an earlier run compiled, one file each, in the user's cache folder.
//!
//! A file is named by a digest of what the cubin depends on: source, architecture, options, compiler. It holds that
//! digest again and one of its own content, so that a file that was cut off, renamed or written by something else is
//! compiled anew.

use std::io;
use std::path::{Path, PathBuf};

use super::{OPTIONS, digest_of, source_digest, unit, write_whole};
use crate::cuda::Architecture;
use crate::cuda::sources::KernelSource;

/// The first bytes of a file; the number counts forms of the file.
const MAGIC: &[u8; 16] = b"actbench cubin 1";

/// Digests are 64 hexadecimal digits.
const DIGEST: usize = 64;

/// One cubin's place in the cache.
pub(super) struct Entry {
    path: PathBuf,
    key: String,
}

impl Entry {
    pub(super) fn new(folder: &Path, source: &KernelSource, architecture: Architecture, compiler: &str) -> Entry {
        let mut parts = vec![source_digest(source), architecture.to_string(), compiler.to_owned()];
        parts.extend(OPTIONS.map(str::to_owned));
        let key = digest_of(&parts.iter().map(String::as_str).collect::<Vec<_>>());
        let name = format!("{}.{architecture}.{}.cubin", unit(source), key.get(..16).unwrap_or(&key));
        Entry { path: folder.join(name), key }
    }

    /// The cubin, if a whole one is there.
    pub(super) fn read(&self) -> Option<Vec<u8>> {
        let file = std::fs::read(&self.path).ok()?;
        let rest = file.strip_prefix(MAGIC)?.strip_prefix(self.key.as_bytes())?;
        let (digest, cubin) = rest.split_at_checked(DIGEST)?;
        (digest == blake3::hash(cubin).to_hex().as_bytes()).then(|| cubin.to_vec())
    }

    /// Keeps `cubin` for the next run.
    pub(super) fn write(&self, cubin: &[u8]) -> io::Result<()> {
        let digest = blake3::hash(cubin).to_hex();
        write_whole(&self.path, &[MAGIC, self.key.as_bytes(), digest.as_bytes(), cubin])
    }

    #[cfg(test)]
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}
