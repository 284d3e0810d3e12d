//! Locks that end with their process, and files and directories that a killed process left.
//!
//! The lock is `flock` on the file or directory itself: the kernel releases it however the process ends, so that none is ever
//! stale. The holder of the lock of a path may remove it, and a process that has just acquired one checks that the path still leads
//! to what was locked. A file system without locks protects nothing, and nothing is removed there.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::process::interrupt::{ForcedExitRemoval, at_forced_exit};

/// How long a lock that is held may still turn out to be that of a process which only removes a leftover.
const GRACE: Duration = Duration::from_millis(300);

/// Locks `file`, which was opened or created at `path`. False if another process holds it, or if `path` no longer leads
/// to it; true also on a file system without locks.
pub(crate) fn lock_at(file: &File, path: &Path) -> bool {
    match file.try_lock() {
        Ok(()) => leads_to(path, file),
        Err(TryLockError::WouldBlock) => false,
        Err(TryLockError::Error(_)) => true,
    }
}

/// Whether `path`, not followed if it is a link, leads to `file`.
fn leads_to(path: &Path, file: &File) -> bool {
    match (fs::symlink_metadata(path), file.metadata()) {
        (Ok(there), Ok(here)) => (there.dev(), there.ino()) == (here.dev(), here.ino()),
        _ => false,
    }
}

/// The lock of an output that several processes must not write at once. The lock file is removed when this is dropped; one
/// that a killed process left is used again.
#[derive(Debug)]
pub struct OutputLock {
    /// None where the lock is on the output itself.
    path: Option<PathBuf>,
    _file: File,
    _removal: Option<ForcedExitRemoval>,
}

impl OutputLock {
    /// Locks the lock file `path`, which is created if it does not exist. None if another process holds it.
    ///
    /// # Errors
    /// It cannot be created.
    pub fn acquire(path: &Path) -> Result<Option<Self>> {
        let start = Instant::now();
        loop {
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(false).custom_flags(libc::O_NOFOLLOW);
            let file = options.open(path).map_err(Error::io("create", path))?;
            if lock_at(&file, path) {
                let path = path.to_path_buf();
                let removed = path.clone();
                let removal = at_forced_exit(move || drop(fs::remove_file(removed)));
                return Ok(Some(OutputLock { path: Some(path), _file: file, _removal: Some(removal) }));
            }
            if start.elapsed() > GRACE {
                return Ok(None);
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Locks an existing file that is written in place. None if another process holds it.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn of_file(path: &Path) -> Result<Option<Self>> {
        let file = OpenOptions::new().write(true).open(path).map_err(Error::io("open", path))?;
        Ok(lock_at(&file, path).then_some(OutputLock { path: None, _file: file, _removal: None }))
    }
}

impl Drop for OutputLock {
    fn drop(&mut self) {
        // The lock is still held, so the file is this process's own. A failure leaves an empty file that is used again.
        if let Some(path) = &self.path {
            let _ = fs::remove_file(path);
        }
    }
}

/// Removes the files and directories in `directory` that belong to this user, have a name that `is_own` accepts, and are
/// locked by no process. Failures are ignored: a leftover wastes space and harms nothing.
pub(crate) fn sweep(directory: &Path, is_own: impl Fn(&str) -> bool) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    // SAFETY: a plain system call without arguments, which cannot fail.
    let user = unsafe { libc::geteuid() };
    for entry in entries.flatten() {
        if !entry.file_name().to_str().is_some_and(&is_own) {
            continue;
        }
        let path = entry.path();
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        if metadata.uid() != user || !(metadata.is_file() || metadata.is_dir()) {
            continue;
        }
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
        let Ok(file) = options.open(&path) else { continue };
        if file.try_lock().is_ok() && leads_to(&path, &file) {
            let _ = if metadata.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lock_is_exclusive_and_leaves_no_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let held = OutputLock::acquire(&path).unwrap().unwrap();
        assert!(OutputLock::acquire(&path).unwrap().is_none());
        drop(held);
        assert!(!path.exists());
        // As after SIGKILL: the file is there, and no process holds it.
        fs::write(&path, "").unwrap();
        drop(OutputLock::acquire(&path).unwrap().unwrap());
        assert!(!path.exists());
        let error = OutputLock::acquire(&directory.path().join("absent/lock")).unwrap_err();
        assert!(error.to_string().contains("absent/lock"), "{error}");
    }

    #[test]
    fn sweep_removes_only_own_leftovers_without_a_holder() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        for name in ["x-left", "x-held", "other"] {
            fs::create_dir(path(name)).unwrap();
            fs::write(path(name).join("file"), "").unwrap();
        }
        fs::write(path("x-file"), "").unwrap();
        std::os::unix::fs::symlink(path("other"), path("x-link")).unwrap();
        let held = File::open(path("x-held")).unwrap();
        assert!(lock_at(&held, &path("x-held")));
        sweep(directory.path(), |name| name.starts_with("x-"));
        let left: Vec<bool> =
            ["x-left", "x-held", "other", "x-file", "x-link"].map(|name| path(name).exists()).to_vec();
        assert_eq!(left, [false, true, true, false, true]);
    }
}
