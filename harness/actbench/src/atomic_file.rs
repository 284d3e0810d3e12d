//! Output files: how they are written, and by this process alone.

use std::path::Path;

use pairgate::atomic_file::{self, OutputTarget};
use pairgate::lock::OutputLock;
use pairgate::temporary::TemporaryDirectory;

use crate::error::{Result, from_pairgate};

/// Writes a file under a temporary name in its directory, and renames it once its bytes are on the disk. A device or a pipe is
/// written into.
///
/// # Errors
/// As of [`pairgate::atomic_file::write_atomically`].
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    pairgate::atomic_file::write_atomically(path, bytes).map_err(from_pairgate)
}

/// Whether `path` is a device, a pipe or an open descriptor. Such an output is written once, at the end: it cannot be replaced.
pub fn is_stream(path: &Path) -> bool {
    matches!(OutputTarget::of(path), Ok(OutputTarget::Stream(_) | OutputTarget::Descriptor(_)))
}

/// Locks the output `path` while the result lives, so that no second `who` writes to it at the same time.
///
/// # Errors
/// Another process holds the lock.
pub fn lock_output(path: &Path, who: &str) -> Result<Option<OutputLock>> {
    atomic_file::lock_output(path, who).map_err(from_pairgate)
}

/// A temporary directory whose name begins with `prefix`, in `parent` or in the system's temporary directory. The next run
/// removes it if this process is killed.
///
/// # Errors
/// The parent directory cannot be written to.
pub fn temporary_directory(prefix: &str, parent: Option<&Path>) -> Result<TemporaryDirectory> {
    TemporaryDirectory::create(prefix, parent).map_err(from_pairgate)
}
