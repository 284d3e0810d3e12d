//! Files that appear whole or not at all: written under a temporary name, synced, then renamed.

use std::io::Write;
use std::path::Path;

use crate::error::{Error, Result};

/// How the name of a file begins while it is being written: leftovers of a killed process can be removed.
pub const TEMPORARY_PREFIX: &str = ".pairgate-";

/// Writes `bytes` to a temporary file in the directory of `path`, syncs it, and renames it to `path`.
///
/// # Errors
/// The directory cannot be written to; a file that was at `path` is then unchanged.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let write = || -> std::io::Result<()> {
        let mut file = tempfile::Builder::new().prefix(TEMPORARY_PREFIX).tempfile_in(directory)?;
        file.write_all(bytes)?;
        make_readable(file.as_file())?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        std::fs::File::open(directory)?.sync_all()
    };
    write().map_err(Error::io("write", path))
}

/// Lets all users read `file`: temporary files are created for their owner alone, results are for everybody.
pub(crate) fn make_readable(file: &std::fs::File) -> std::io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        file.set_permissions(std::fs::Permissions::from_mode(0o644))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn write_replaces_the_file_and_leaves_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        write_atomically(&path, b"one").unwrap();
        write_atomically(&path, b"two").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
        let error = write_atomically(&directory.path().join("absent/file"), b"").unwrap_err();
        assert!(error.to_string().contains("absent/file"), "{error}");
    }
}
