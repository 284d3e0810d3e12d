//! Output files. Regular files appear whole or not at all: written under a temporary name, synced, then renamed. Devices,
//! pipes and open descriptors are written into, and never replaced.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tempfile::{Builder, NamedTempFile};

pub use self::target::OutputTarget;
use self::target::directory_of;
use crate::error::{Error, Result};
use crate::lock::{OutputLock, lock_at};
pub use crate::temporary::TEMPORARY_PREFIX;
use crate::temporary::{SUFFIX, remove_leftovers};

mod stream;
mod target;

/// The mode of new files, of which the system takes the umask away.
const NEW_FILE_MODE: u32 = 0o666;

/// Attempts to create a temporary file: only a process that removes leftovers at this very moment can make one fail.
const ATTEMPTS: usize = 100;

/// Writes `bytes` to `path`, through all symbolic links.
///
/// A regular file is replaced in one step by a temporary file of its directory, and keeps its mode and owner; a new one has the
/// mode that the umask allows. Where the directory cannot be written to, or the file is a mount point, it is written in place. A
/// device, a pipe or a descriptor is written into.
///
/// # Errors
/// A directory or a block device, or the write fails; a regular file in a writable directory is then unchanged.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let written = match OutputTarget::of(path)? {
        OutputTarget::File(target) => replace(&target, bytes),
        OutputTarget::Stream(target) => stream::write_into(&target, bytes),
        OutputTarget::Descriptor(number) => stream::write_to_descriptor(number, bytes),
    };
    written.map_err(|error| match error.get_ref().is_some_and(|inner| inner.is::<stream::Interrupted>()) {
        true => Error::Interrupted,
        false => Error::io("write", path)(error),
    })
}

/// Checks that `path` can be written, and writes nothing.
///
/// # Errors
/// As of [`write_atomically`]: what would fail before the first byte.
pub fn check_writable(path: &Path) -> Result<()> {
    let target = match OutputTarget::of(path)? {
        OutputTarget::File(target) => target,
        // Opening a pipe would wait for its reader.
        OutputTarget::Stream(_) | OutputTarget::Descriptor(_) => return Ok(()),
    };
    let directory = directory_of(&target);
    remove_leftovers(directory);
    let checked = match temporary_in(directory) {
        Err(error) if target.is_file() && is_in_place(&error) => {
            OpenOptions::new().append(true).open(&target).map(drop)
        }
        created => created.map(drop),
    };
    checked.map_err(Error::io("write", path))
}

/// Locks `path` for this process, so that no second one writes to it at the same time. None for a device, a pipe or a
/// descriptor, which belongs to no process.
///
/// # Errors
/// Another process holds the lock; the message says that it is written by another `who`. Or the directory cannot be written to.
pub fn lock_output(path: &Path, who: &str) -> Result<Option<OutputLock>> {
    let OutputTarget::File(target) = OutputTarget::of(path)? else { return Ok(None) };
    let directory = directory_of(&target);
    remove_leftovers(directory);
    let lock = match OutputLock::acquire(&lock_path(&target)) {
        Err(Error::Io { source, .. }) if target.is_file() && is_in_place(&source) => OutputLock::of_file(&target)?,
        // The name of the lock file is not one that the user knows.
        Err(Error::Io { source, .. }) => return Err(Error::io("write", path)(source)),
        lock => lock?,
    };
    let refused = || Error::file(path, format!("is being written by another {who}; wait for it, or name another file"));
    lock.map(Some).ok_or_else(refused)
}

/// The lock file of `target`, in the same directory. A digest and not the name, which may be as long as names can be.
fn lock_path(target: &Path) -> PathBuf {
    let name = target.file_name().unwrap_or_default();
    let digest = blake3::hash(name.as_encoded_bytes()).to_hex();
    directory_of(target).join(format!("{TEMPORARY_PREFIX}lock-{}{SUFFIX}", &digest[..16]))
}

/// A temporary file in `directory` with the mode of new files, which no other process removes.
pub(crate) fn temporary_in(directory: &Path) -> io::Result<NamedTempFile> {
    let mut builder = Builder::new();
    builder.prefix(TEMPORARY_PREFIX).suffix(SUFFIX).permissions(Permissions::from_mode(NEW_FILE_MODE));
    for _ in 0..ATTEMPTS {
        let file = builder.tempfile_in(directory)?;
        if lock_at(file.as_file(), file.path()) {
            return Ok(file);
        }
    }
    Err(io::Error::other("temporary files are removed at once"))
}

fn replace(target: &Path, bytes: &[u8]) -> io::Result<()> {
    let existing = match fs::metadata(target) {
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        metadata => Some(metadata?),
    };
    let directory = directory_of(target);
    remove_leftovers(directory);
    let mut file = match temporary_in(directory) {
        Err(error) if existing.is_some() && is_in_place(&error) => return write_in_place(target, bytes),
        created => created?,
    };
    // Through the file: an error of the temporary file would name it, and the user has never seen its name.
    file.as_file_mut().write_all(bytes)?;
    if let Some(existing) = &existing {
        // Fails unless this is root, and then the file belongs to the user who writes it. Before the mode, which it may clear.
        let _ = std::os::unix::fs::fchown(file.as_file(), Some(existing.uid()), Some(existing.gid()));
        file.as_file().set_permissions(Permissions::from_mode(existing.mode() & 0o7777))?;
    }
    file.as_file().sync_all()?;
    match file.persist(target) {
        Ok(_) => File::open(directory)?.sync_all(),
        // A mount point, as a single file in a container is, cannot be renamed over.
        Err(error) if existing.is_some() && is_mount_point(&error.error) => write_in_place(target, bytes),
        Err(error) => Err(error.error),
    }
}

fn write_in_place(target: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).truncate(true).open(target)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Whether `error`, of creating a file in a directory, leaves an existing file of the directory writable.
fn is_in_place(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem)
}

fn is_mount_point(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ResourceBusy | ErrorKind::CrossesDevices)
}

#[cfg(test)]
mod tests;
