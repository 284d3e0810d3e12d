//! A lock per file of the cache, in the place where `huggingface_hub` has its own, so that two processes do not download
//! one file at once. Both use `flock`.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use super::{Result, interrupt};
use crate::error::Error;

/// The time after which waiting for another process is reported.
const REPORT_AFTER: Duration = Duration::from_secs(10);

/// A held lock, released when it is dropped or the process ends.
pub(super) struct DownloadLock {
    /// None on file systems without locks.
    file: Option<File>,
}

impl DownloadLock {
    /// Waits for the lock `path` of the file `what`.
    pub(super) fn acquire(path: &Path, what: &str) -> Result<DownloadLock> {
        let start = Instant::now();
        let mut reported = false;
        loop {
            let file = OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .open(path)
                .map_err(|error| super::cache::write_error("create", path, error))?;
            match file.try_lock() {
                // Another process may have deleted the file between opening and locking it.
                Ok(()) if same_file(&file, path) => return Ok(DownloadLock { file: Some(file) }),
                Ok(()) => continue,
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(_)) => return Ok(DownloadLock { file: None }),
            }
            if interrupt::requested() {
                return Err(Error::Interrupted.into());
            }
            if !reported && start.elapsed() > REPORT_AFTER {
                tracing::warn!("{what}: waiting for another process that downloads it (lock {})", path.display());
                reported = true;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Whether other processes are kept out.
    pub(super) fn is_exclusive(&self) -> bool {
        self.file.is_some()
    }
}

fn same_file(file: &File, path: &Path) -> bool {
    let id = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
    file.metadata().map(id).ok() == path.metadata().map(id).ok()
}
