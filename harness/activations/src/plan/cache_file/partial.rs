//! The partial file of a cache file that is being written: its name, its lock, and a durable rename.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The path of the partial file of `target`.
///
/// # Errors
/// A path without a file name.
pub(super) fn partial_path(target: &Path) -> Result<PathBuf> {
    let Some(name) = target.file_name() else {
        return Err(Error::usage(format!("{} does not name a file to write", target.display())));
    };
    let mut partial = OsString::from(".");
    partial.push(name);
    partial.push(".partial");
    Ok(target.with_file_name(partial))
}

/// Opens the partial file and locks it.
pub(super) fn lock_partial(partial: &Path, target: &Path) -> Result<File> {
    loop {
        // Not truncated before the lock is held: it may belong to another writer.
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(partial);
        let file = file.map_err(Error::io("create", partial))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::file(
                    target,
                    format!(
                        "another process is writing this cache file ({} is locked); wait for it or use another path",
                        partial.display()
                    ),
                ));
            }
            Err(TryLockError::Error(source)) => {
                return Err(Error::Io { action: "lock", path: partial.to_path_buf(), source });
            }
        }
        // Between opening and locking, another writer may have finished and renamed or removed this very file.
        let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
        let ours = file.metadata().map(identity).map_err(Error::io("write", partial))?;
        match fs::metadata(partial).map(identity) {
            Ok(named) if named == ours => return Ok(file),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(Error::Io { action: "write", path: partial.to_path_buf(), source }),
        }
    }
}

/// Makes a rename in the directory of `path` durable.
pub(super) fn sync_directory(path: &Path) -> Result<()> {
    let directory = match path.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => directory,
        _ => Path::new("."),
    };
    File::open(directory).and_then(|file| file.sync_all()).map_err(Error::io("write", directory))
}
